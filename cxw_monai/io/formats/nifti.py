"""Single 2-D NIfTI slices through nibabel; orientation and range: :mod:`cxw_monai.io.formats.slices`.

An orientation is declared where the qform or sform code is above 0, a range where ``cal_min`` is below ``cal_max``.
"""

from __future__ import annotations

import gzip
from os import PathLike
from typing import Any

import nibabel as nib
import numpy as np

from cxw_monai.io.radiograph import Radiograph, describe, errors_of
from cxw_monai.io.scaling import GreyOptions

from .slices import RANGE_REMEDY, film_axes, known_spacing, refuse_unless_slice, unit_range

__all__ = ["HEAD_BYTES", "is_nifti_header", "read_nifti", "unzipped_head"]

HEAD_BYTES = 352
"""Bytes of a NIfTI-1 header with its magic."""

_RANGE_REMEDY = f"set cal_min and cal_max in its header, {RANGE_REMEDY}"


def is_nifti_header(head: bytes) -> bool:
    """Whether a file's first (unzipped) bytes are those of a single-file NIfTI-1 or NIfTI-2."""
    return head[344:348] == b"n+1\x00" or head[4:8] == b"n+2\x00"


def unzipped_head(path: str | PathLike[str]) -> bytes:
    """The first bytes of a file, or of what a gzip file holds."""
    with open(path, "rb") as stream:
        head = stream.read(HEAD_BYTES)
    if head[:2] != b"\x1f\x8b":
        return head
    with gzip.open(path, "rb") as stream:
        return stream.read(HEAD_BYTES)


def read_nifti(path: str | PathLike[str], *, options: GreyOptions, max_pixels: int) -> Radiograph:
    """Read a NIfTI file of one slice, as :func:`~cxw_monai.io.read.read_radiograph` describes.

    Raises:
        RadiographError: truncated, a volume or a colour image, too large, or no declared range.
    """
    damage = "cannot be decoded, damaged, truncated or not named .nii/.nii.gz"
    with errors_of(path, damage, "copy or export it again"):
        image: Any = nib.load(path, mmap=False)  # its type says nothing of arrays
        refuse_unless_slice(image.shape, image.get_data_dtype(), max_pixels)
        return _to_radiograph(image, options)


def _to_radiograph(image: nib.Nifti1Image, options: GreyOptions) -> Radiograph:
    header = image.header
    oriented = header["qform_code"] > 0 or header["sform_code"] > 0
    pixel_map, (rows, columns), step = film_axes(image.shape, image.affine if oriented else None)
    stored = np.asanyarray(image.dataobj).reshape(pixel_map.source_shape)  # floats where a scale factor is set
    film = pixel_map.turn(stored)  # [H, W]
    low, high = float(header["cal_min"]), float(header["cal_max"])
    declared = (low, high) if np.isfinite([low, high]).all() and low < high else None
    array, range_step = unit_range(film, options, declared, _RANGE_REMEDY)
    unit = header.get_xyzt_units()[0]
    zooms = [float(zoom) for zoom in header.get_zooms()]
    meta = describe(
        pixel_map,
        bits=8 * image.get_data_dtype().itemsize,
        photometric=str(image.get_data_dtype()),
        steps=[step, range_step],
        spacing=known_spacing(zooms[rows], zooms[columns], None if unit == "unknown" else unit),
    )
    return Radiograph(np.ascontiguousarray(array)[None], meta)  # [1, H, W]
