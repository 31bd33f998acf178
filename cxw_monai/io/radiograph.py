"""Reads a radiograph of any supported format into the package's one convention.

The format is told by the file's content, not by its name. A reader that fails never falls through to another one.
"""

from __future__ import annotations

import gzip
import zlib
from os import PathLike
from pathlib import Path

import numpy as np

from cxw_monai.io.dicom import PREAMBLE, looks_like_bare_dicom, read_dicom
from cxw_monai.io.image import MAX_PIXELS, Radiograph, RadiographError
from cxw_monai.io.nifti import is_nifti_header, read_nifti
from cxw_monai.io.raster import is_raster_header, read_raster

__all__ = ["Radiograph", "RadiographError", "read_radiograph"]

_HEAD_BYTES = 352  # a NIfTI-1 header with its magic; more than DICOM's 132 and any raster magic
_FORMATS = "give a DICOM, PNG, JPEG, TIFF or 2-D NIfTI file"


def read_radiograph(
    path: str | PathLike[str], *, voi: str = "auto", min_size: int = 16, max_pixels: int = MAX_PIXELS
) -> Radiograph:
    """Read one radiograph.

    Grey values are scaled by the range that the file declares, never by the image's own extremes:

    - DICOM: Modality LUT, VOI LUT or window, inversion of MONOCHROME1, declared output range
      (:mod:`cxw_monai.io.dicom`).
    - PNG, JPEG, TIFF: the depth of the samples; colour becomes luma (:mod:`cxw_monai.io.raster`).
    - NIfTI: ``cal_min``/``cal_max``, the unsigned integer type, or floats in [0, 1] (:mod:`cxw_monai.io.nifti`).

    Formats other than DICOM (and TIFF's WhiteIsZero) don't declare a polarity: they are taken to be bone bright.

    Args:
        path: the file.
        voi: ``"auto"`` applies a DICOM's first VOI LUT, else its first window, where it has one; ``"none"`` keeps the
            full declared range. No other format has one.
        min_size: the least number of pixels on the shorter side.
        max_pixels: the most pixels that are decoded; larger images are refused from their header.

    Returns:
        The radiograph: float32 ``[1, H, W]`` in [0, 1] and its ``meta``.

    Raises:
        RadiographError: the file is missing, empty, truncated, no image, has several frames or is a volume, is a
            colour DICOM, needs a decoder that isn't installed, holds NaN or infinity, is constant, too small or too
            large.
        ValueError: ``voi`` is neither ``"auto"`` nor ``"none"``.
    """
    if voi not in ("auto", "none"):
        raise ValueError(f"voi must be 'auto' or 'none', got {voi!r}")
    head = _read_head(path)
    if head[128:132] == PREAMBLE or looks_like_bare_dicom(head):
        radiograph = read_dicom(path, use_voi=voi == "auto", max_pixels=max_pixels)
    elif is_raster_header(head):
        radiograph = read_raster(path, max_pixels=max_pixels)
    elif is_nifti_header(_gunzipped_head(path) if head[:2] == b"\x1f\x8b" else head):
        radiograph = read_nifti(path, max_pixels=max_pixels)
    else:
        raise RadiographError(path, "not an image of a known format", _FORMATS)
    _check(radiograph, min_size)
    return radiograph


def _read_head(path: str | PathLike[str]) -> bytes:
    """The first bytes of a file that exists and isn't empty."""
    if not Path(path).exists():
        raise RadiographError(path, "no such file", "check the path")
    if not Path(path).is_file():
        raise RadiographError(path, "not a file", _FORMATS)
    try:
        with open(path, "rb") as stream:
            head = stream.read(_HEAD_BYTES)
    except OSError as error:
        raise RadiographError(path, f"cannot be opened ({error.strerror})", "check its permissions") from error
    if not head:
        raise RadiographError(path, "the file is empty", "copy it again from its source")
    return head


def _gunzipped_head(path: str | PathLike[str]) -> bytes:
    """The first bytes of a gzip file's content."""
    try:
        with gzip.open(path, "rb") as stream:
            return stream.read(_HEAD_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise RadiographError(path, "the gzip stream is truncated or damaged", "copy it again") from error


def _check(radiograph: Radiograph, min_size: int) -> None:
    """Refuse arrays that no model can learn from."""
    array, path = radiograph.array, radiograph.meta["path"]
    height, width = array.shape[1:]  # [1, H, W]
    if min(height, width) < min_size:
        raise RadiographError(
            path, f"{height}x{width} pixels (rows x columns), smaller than {min_size}", "leave it out or lower min_size"
        )
    low, high = float(array.min()), float(array.max())  # NaN comes through both
    if not (np.isfinite(low) and np.isfinite(high)):
        raise RadiographError(path, "holds NaN or infinite values", "export it again with finite values")
    if low == high:
        raise RadiographError(path, f"constant image (every pixel is {low:.4g} of 1)", "leave it out")
