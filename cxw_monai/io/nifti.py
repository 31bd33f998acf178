"""Single 2-D NIfTI slices through nibabel.

Orientation: a NIfTI array is ``[X, Y]``. Where an affine is declared (qform or sform code above 0), the axes are
flipped so that columns run towards the patient's left, rows towards posterior or inferior (the order of a PA/AP film),
and the array is transposed. Without a declared orientation it is only transposed.

Range: ``cal_min``/``cal_max`` where set; else the whole range of uint8 and uint16; else floats that already lie in
[0, 1]. Anything else declares no range and is refused.
"""

from __future__ import annotations

from os import PathLike

import nibabel as nib
import numpy as np

from cxw_monai.io.image import Radiograph, RadiographError

__all__ = ["is_nifti_header", "read_nifti"]

_MM_PER_UNIT = {"mm": 1.0, "meter": 1000.0, "micron": 0.001}
_RANGE_REMEDY = "set cal_min and cal_max in its header, or save it as uint8, uint16 or floats in [0, 1]"


def is_nifti_header(head: bytes) -> bool:
    """Whether a file's first (unzipped) bytes are those of a single-file NIfTI-1 or NIfTI-2."""
    return head[344:348] == b"n+1\x00" or head[4:8] == b"n+2\x00"


def read_nifti(path: str | PathLike[str], *, max_pixels: int) -> Radiograph:
    """Read a NIfTI file that holds one slice; see the module for orientation and range.

    Args:
        path: a ``.nii`` or ``.nii.gz`` file.
        max_pixels: the most pixels that are decoded.

    Returns:
        The radiograph, float32 ``[1, H, W]`` in [0, 1].

    Raises:
        RadiographError: truncated, a volume or a colour image, too large, or no declared range.
    """
    try:
        image = nib.load(path)
        _refuse_unusable(image, path, max_pixels)
        return _to_radiograph(image, path)
    except RadiographError:
        raise
    except Exception as error:  # nibabel raises whatever the damage provokes (EOFError, zlib.error, KeyError, ...)
        reason = f"cannot be decoded, damaged, truncated or not named .nii/.nii.gz ({type(error).__name__})"
        raise RadiographError(path, reason, "copy or export it again") from error


def _to_radiograph(image: nib.Nifti1Image, path: str | PathLike[str]) -> Radiograph:
    """Decode, turn and scale one slice."""
    values = np.asanyarray(image.dataobj)
    slice3, zooms, steps = _as_film(values.reshape((*image.shape[:3], 1, 1)[:3]), image)
    axes = [axis for axis in range(3) if slice3.shape[axis] > 1]  # two of them, see _refuse_unusable
    rows_last = slice3.squeeze(3 - sum(axes))  # [columns, rows]
    array, range_step = _unit_range(rows_last.T, image, path)  # [H, W]
    meta = {
        "path": str(path),
        "spacing_mm": _spacing(image, (zooms[axes[1]], zooms[axes[0]])),
        "original_shape": array.shape,
        "bits": 8 * image.get_data_dtype().itemsize,
        "photometric": str(image.get_data_dtype()),
        "steps": [*steps, range_step],
        "view": None,
        "laterality": None,
    }
    return Radiograph(np.ascontiguousarray(array, dtype=np.float32)[None], meta)  # [1, H, W]


def _refuse_unusable(image: nib.Nifti1Image, path: str | PathLike[str], max_pixels: int) -> None:
    """Refuse, from the header alone, what isn't one grey slice."""
    shape = image.shape
    if image.get_data_dtype().kind not in "iuf":
        raise RadiographError(path, f"samples of type {image.get_data_dtype()} aren't grey", "save a grey image")
    if sum(size > 1 for size in shape[:3]) != 2 or any(size > 1 for size in shape[3:]):
        raise RadiographError(path, f"shape {tuple(shape)} is not a single 2-D slice", "save one slice per file")
    if np.prod(shape, dtype=np.int64) > max_pixels:
        reason = f"shape {tuple(shape)} is more than the limit of {max_pixels} pixels"
        raise RadiographError(path, reason, "resample it, or raise max_pixels")


def _as_film(slice3: np.ndarray, image: nib.Nifti1Image) -> tuple[np.ndarray, list[float], list[str]]:
    """Axes of ``[X, Y, Z]`` (one of size 1) towards left, posterior, inferior, with their zooms."""
    zooms = ([float(zoom) for zoom in image.header.get_zooms()] + [1.0, 1.0])[:3]
    if image.header["qform_code"] <= 0 and image.header["sform_code"] <= 0:
        return slice3, zooms, ["no declared orientation: transposed"]
    stored = nib.orientations.io_orientation(image.affine)
    change = nib.orientations.ornt_transform(stored, nib.orientations.axcodes2ornt("LPI"))
    film = nib.orientations.apply_orientation(slice3, change)
    order = np.argsort(change[:, 0])  # output axis -> stored axis
    codes = "".join(nib.orientations.ornt2axcodes(stored))
    return film, [zooms[axis] for axis in order], [f"{codes} to LPI, transposed"]


def _spacing(image: nib.Nifti1Image, zooms: tuple[float, float]) -> tuple[float, float] | None:
    """(row, column) spacing in mm, or None where none is declared (no unit and zooms left at 1)."""
    unit = image.header.get_xyzt_units()[0]
    if unit == "unknown" and zooms == (1.0, 1.0):
        return None
    row, column = (zoom * _MM_PER_UNIT.get(unit, 1.0) for zoom in zooms)
    return (row, column) if np.isfinite([row, column]).all() and row > 0 and column > 0 else None


def _unit_range(values: np.ndarray, image: nib.Nifti1Image, path: str | PathLike[str]) -> tuple[np.ndarray, str]:
    """Values in [0, 1] by the declared range, and the step that did it."""
    low, high = float(image.header["cal_min"]), float(image.header["cal_max"])
    if np.isfinite([low, high]).all() and high > low:
        return np.clip((values.astype(np.float64) - low) / (high - low), 0, 1), f"cal_min {low:g}, cal_max {high:g}"
    if values.dtype in (np.uint8, np.uint16):  # nibabel gives floats where a scale factor is set
        return values / np.iinfo(values.dtype).max, f"full range of {values.dtype}"
    if values.dtype.kind == "f" and np.isfinite(values).all():
        if values.min() >= 0 and values.max() <= 1:
            return values, "floats in [0, 1] kept"
    elif values.dtype.kind == "f":
        raise RadiographError(path, "holds NaN or infinite values", "export it again with finite values")
    reason = f"{values.dtype} values from {values.min():g} to {values.max():g} without a declared grey range"
    raise RadiographError(path, reason, _RANGE_REMEDY)
