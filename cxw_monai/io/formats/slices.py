"""What NIfTI and NRRD slices share: from the stored axes to a film, from spacing fields to millimetres, the grey range.

Both store ``[X, Y]`` (an axis of size 1 may stand before, between or after). Where the file declares an orientation in
the patient, the axes are flipped so that columns run towards the patient's left and rows towards posterior or inferior
(the order of a PA/AP film). Without one, the array is only transposed. ``meta["pixel_map"]`` holds the flips and the
transposition, from the stored array without its axis of size 1.

Range: what the caller asks for (window, percentiles); else what the file declares; else the whole range of uint8 and
uint16, or of the bits that their values need (:func:`~cxw_monai.io.scaling.used_range`); else floats that already lie
in [0, 1]. Anything else declares no range and is refused.
"""

from __future__ import annotations

from collections.abc import Sequence

import nibabel as nib
import numpy as np

from cxw_monai.io.pixel_map import PixelMap
from cxw_monai.io.radiograph import UnusableError, refuse_huge
from cxw_monai.io.scaling import GreyOptions, full_range, scale_as_asked

__all__ = ["RANGE_REMEDY", "film_axes", "known_spacing", "refuse_unless_slice", "unit_range"]

RANGE_REMEDY = "save it as uint8, uint16 or floats in [0, 1], or read it with window=(center, width)"
_MM_PER_UNIT = {"mm": 1.0, "cm": 10.0, "m": 1000.0, "meter": 1000.0, "um": 0.001, "micron": 0.001}


def refuse_unless_slice(shape: Sequence[int], dtype: np.dtype, max_pixels: int) -> None:
    """Refuse, from a header's shape and type, what isn't one grey slice of a sensible size.

    Raises:
        UnusableError: colour samples, a volume, a line, several frames, or too large.
    """
    if dtype.kind not in "iuf":
        raise UnusableError(f"samples of type {dtype} aren't grey", "save a grey image")
    if sum(size > 1 for size in shape[:3]) != 2 or any(size > 1 for size in shape[3:]) or min(shape) < 1:
        sizes = tuple(int(size) for size in shape)
        raise UnusableError(f"shape {sizes} is not a single 2-D slice", "save one slice per file")
    refuse_huge(shape, max_pixels)


def film_axes(shape: Sequence[int], affine: np.ndarray | None) -> tuple[PixelMap, tuple[int, int], str]:
    """How a stored slice becomes a film.

    Args:
        shape: stored sizes, two of them above 1 among the first three.
        affine: ``[4, 4]`` from array indices to RAS+ millimetres; None where no orientation is declared.

    Returns:
        ``(pixel_map, axes, step)``: the flips and transposition from the stored slice without its axes of size 1; the
        stored axes of the film's rows and columns; what was done, in words.
    """
    stored = [axis for axis in range(min(len(shape), 3)) if shape[axis] > 1]
    pixel_map = PixelMap.identity(tuple(shape[axis] for axis in stored))
    if affine is None:
        return pixel_map.transpose(), (stored[1], stored[0]), "no declared orientation: transposed"
    found = nib.orientations.io_orientation(affine)
    change = nib.orientations.ornt_transform(found, nib.orientations.axcodes2ornt("LPI"))  # [stored axis, (new, flip)]
    for place, axis in enumerate(stored):
        if change[axis, 1] < 0:
            pixel_map = pixel_map.flip(place)
    rows, columns = sorted(stored, key=lambda axis: -change[axis, 0])
    if rows > columns:
        pixel_map = pixel_map.transpose()
    codes = "".join(nib.orientations.ornt2axcodes(found))
    return pixel_map, (rows, columns), f"{codes} to LPI"


def known_spacing(row: float, column: float, unit: str | None) -> tuple[float, float] | None:
    """(row, column) spacing in mm, or None where none is declared: no unit, and sizes left at 1 (or no sizes).

    A ``unit`` of None, where none is declared, stands for mm.
    """
    if unit is None and (row, column) == (1, 1):
        return None
    factor = _MM_PER_UNIT.get(unit or "mm")
    if factor is None or not (np.isfinite([row, column]).all() and row > 0 and column > 0):
        return None
    return float(row * factor), float(column * factor)


def unit_range(
    values: np.ndarray,
    options: GreyOptions,
    declared: tuple[float, float] | None = None,
    remedy: str = RANGE_REMEDY,
) -> tuple[np.ndarray, str]:
    """Values ``[H, W]`` in [0, 1] as float32, and the step that did it; ``remedy`` is for a file without a range.

    Raises:
        UnusableError: not finite, or no range is declared or asked for.
    """
    scaled = scale_as_asked(values, options, declared)
    if scaled is not None:
        return scaled
    unit, note = full_range(values, 8 * values.dtype.itemsize, remedy)
    return unit, note or ("floats in [0, 1] kept" if values.dtype.kind == "f" else f"full range of {values.dtype.name}")
