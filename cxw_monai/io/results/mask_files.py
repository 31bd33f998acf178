"""Masks as files that lie on the film they were made for: PNG and NIfTI, one file per structure.

Structures overlap (the heart on the left lung, a clavicle on both), so one label map could not hold them, and 3D Slicer
and ITK-SNAP open a mask per file as a segmentation, but not a 4-D file. The NIfTI files are opened beside the original:

- Film from DICOM, PNG, JPEG or TIFF: ``[X, Y, 1]``, X along the columns, with the directions that ITK gives a film
  without patient geometry (origin 0, X to the patient's left, Y to posterior). Where the spacing is known it is in the
  header in mm; else the unit is "unknown" and a pixel is 1 wide, as ITK opens such films. ITK takes a resolution in dpi
  in a TIFF or JPEG for a spacing, and of a DICOM the spacing at the detector, so beside these a mask can have another
  scale, though it has the same pixels; ITK-SNAP takes such a mask, 3D Slicer needs the two spacings made equal.
- Film from NIfTI: shape, axes and affine of that file. From NRRD: its axes, at the place where ITK has them.

The third axis of a projection has no extent; its spacing of 1 means nothing.
"""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Callable, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import itk
import nibabel as nib
import numpy as np
from PIL import Image

from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.formats.nifti import is_nifti_header, unzipped_head
from cxw_monai.io.formats.nrrd import is_nrrd_header

__all__ = [
    "check_structures",
    "itk_header",
    "itk_place",
    "stores_columns_first",
    "write_nifti_masks",
    "write_png_masks",
]

_ALIGNED = 2  # NIfTI's code for "coordinates of another file"


def check_structures(structures: Sequence[str]) -> tuple[str, ...]:
    """Names of structures that can be names of files.

    Args:
        structures: one name per mask: letters, digits, ``_``, ``-`` and ``.``, a letter or digit first, 64 at most.

    Returns:
        The names.

    Raises:
        ValueError: no name, a name that can't be a file's, or two that are the same on some file systems.
    """
    names = tuple(structures)
    if not names:
        raise ValueError("structures is empty, expected at least one name")
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name):
            raise ValueError(f"structure name {name!r}: use up to 64 letters, digits, '_', '-' and '.'")
    if len({name.casefold() for name in names}) < len(names):
        raise ValueError(f"structure names must differ, got {list(names)}")
    return names


def _checked(masks: np.ndarray, structures: Sequence[str]) -> tuple[str, ...]:
    names = check_structures(structures)
    if masks.ndim != 3 or masks.dtype != bool or len(masks) != len(structures):
        raise ValueError(f"masks must be bool [{len(structures)}, H, W], got {masks.dtype} of shape {masks.shape}")
    return names


def write_png_masks(folder: str | PathLike[str], masks: np.ndarray, structures: Sequence[str]) -> list[Path]:
    """Write ``<folder>/<structure>.png``: 8 bits, 0 outside and 255 inside, a pixel for each of the mask's.

    Args:
        folder: is made.
        masks: bool ``[S, H, W]``.
        structures: S names, see :func:`check_structures`.

    Returns:
        The files.

    Raises:
        ValueError: masks or names of another form.
    """
    names = _checked(masks, structures)
    files = [Path(folder) / f"{name}.png" for name in names]
    for file, mask in zip(files, masks, strict=True):
        with atomic_file(file) as stream:
            Image.fromarray(np.where(mask, np.uint8(255), np.uint8(0))).save(stream, format="PNG")
    return files


def write_nifti_masks(
    folder: str | PathLike[str],
    masks: np.ndarray,
    structures: Sequence[str],
    *,
    source: str | PathLike[str],
    spacing_mm: tuple[float, float] | None,
) -> list[Path]:
    """Write ``<folder>/<structure>.nii.gz``: uint8, 0 and 1, geometry as described in the module.

    Args:
        folder: is made.
        masks: bool ``[S, H, W]``, rows downwards; for a film from NIfTI or NRRD (:func:`stores_columns_first`)
            ``[S, X, Y]``, the file's own axes without those of size 1.
        structures: S names, see :func:`check_structures`.
        source: the film's file.
        spacing_mm: (row, column) spacing or None where it is unknown; that of a NIfTI or NRRD counts instead.

    Returns:
        The files.

    Raises:
        ValueError: masks or names of another form, or masks that don't fit a NIfTI source.
    """
    names = _checked(masks, structures)
    make = _place(source, masks.shape[1:], spacing_mm)
    files = [Path(folder) / f"{name}.nii.gz" for name in names]
    for file, mask in zip(files, masks, strict=True):
        with atomic_file(file) as stream:
            stream.write(gzip.compress(make(mask.astype(np.uint8)).to_bytes(), compresslevel=6, mtime=0))
    return files


def stores_columns_first(source: str | PathLike[str]) -> bool:
    """Whether a film's file is a NIfTI or NRRD, whose stored array is ``[X, Y]`` and lies anywhere in the patient."""
    head = unzipped_head(source)
    return is_nifti_header(head) or is_nrrd_header(head)


def itk_header(path: str | PathLike[str]) -> Any:
    """An image's header as ITK reads it, without decoding the image; None for a format that ITK doesn't know."""
    reader = itk.ImageIOFactory.CreateImageIO(os.fspath(path), itk.CommonEnums.IOFileMode_ReadMode)
    if reader is not None:
        reader.SetFileName(os.fspath(path))
        reader.ReadImageInformation()
    return reader


def itk_place(path: str | PathLike[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Spacing ``[3]``, origin ``[3]`` and direction ``[3, 3]`` (columns are axes) at which ITK's clients open an image.

    Those of a pixel grid at the origin where ITK can't read the file, or of axes that it hasn't.
    """
    reader = itk_header(path)
    spacing, origin, direction = np.ones(3), np.zeros(3), np.eye(3)
    axes = 0 if reader is None else min(3, reader.GetNumberOfDimensions())
    for axis in range(axes):
        spacing[axis], origin[axis] = reader.GetSpacing(axis), reader.GetOrigin(axis)
        direction[:axes, axis] = np.asarray(reader.GetDirection(axis))[:axes]
    return spacing, origin, direction


def _place(
    source: str | PathLike[str], shape: tuple[int, ...], spacing_mm: tuple[float, float] | None
) -> Callable[[np.ndarray], nib.Nifti1Image]:
    """What makes of a mask an image that lies on its film."""
    head = unzipped_head(source)
    if is_nifti_header(head):
        original: Any = nib.load(source)
        if tuple(size for size in original.shape if size > 1) != shape:
            raise ValueError(f"{source}: masks of shape {shape} don't fit the file's {original.shape}")
        return partial(_like, original=original)
    if is_nrrd_header(head):
        spacing, origin, direction = itk_place(source)
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = direction * spacing, origin
        affine = (
            np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
        )  # ITK's axes are left and posterior, NIfTI's right and anterior
        return partial(_with_affine, affine=affine, unit="mm" if spacing_mm else "unknown")
    row, column = spacing_mm or (1.0, 1.0)
    affine = np.diag([-column, -row, 1.0, 1.0])
    return lambda mask: _with_affine(mask.T, affine=affine, unit="mm" if spacing_mm else "unknown")


def _with_affine(mask: np.ndarray, affine: np.ndarray, unit: str) -> nib.Nifti1Image:
    image = nib.Nifti1Image(mask[:, :, None], affine)  # [X, Y, 1]
    image.set_qform(affine, _ALIGNED)
    image.set_sform(affine, _ALIGNED)
    image.header.set_xyzt_units(unit)
    return image


def _like(mask: np.ndarray, original: nib.Nifti1Image) -> nib.Nifti1Image:
    """A mask with the shape and geometry of a NIfTI file, and nothing else of its header."""
    header = type(original).header_class()
    header.set_data_shape(original.shape)
    header.set_data_dtype(np.uint8)
    header["pixdim"] = original.header["pixdim"]
    header["xyzt_units"] = original.header["xyzt_units"]
    for form in ("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"):
        header[form] = original.header[form]
    for form in ("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"):
        header[form] = original.header[form]
    return type(original)(mask.reshape(original.shape), None, header)
