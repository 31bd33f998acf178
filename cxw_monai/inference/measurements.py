"""Areas, and the cardiothoracic ratio, of a film's structures.

Lengths and areas in mm hold at the plane that the spacing is declared for. A DICOM's PixelSpacing may be calibrated to
the patient; ImagerPixelSpacing is that of the detector and is divided by the declared magnification only where one is
declared. Without it, and in any other format, structures are magnified by the distance between patient and detector
(by some 5 to 20 % in chest films, the heart more than the thorax in AP films): compare films of one protocol only.
Ratios within a film don't depend on the spacing.

The cardiothoracic ratio is that of Danzer (Am J Med Sci 1919; 157:513-521): the heart's greatest transverse extent,
from its rightmost to its leftmost point whatever their rows, over the greatest inner width of the thorax, which is the
greatest distance in one row from the outer edge of one lung to that of the other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from cxw_monai.io.structures import split_side

__all__ = ["measure", "measurement_columns"]

Value = float | int | None

_RATIOS = (
    "cardiothoracic_ratio",
    "heart_diameter_px",
    "heart_diameter_mm",
    "heart_first_column",
    "heart_last_column",
    "thorax_diameter_px",
    "thorax_diameter_mm",
    "thorax_row",
    "thorax_first_column",
    "thorax_last_column",
    "lung_left_right_area_ratio",
)


def measurement_columns(structures: Sequence[str]) -> list[str]:
    """Names of what :func:`measure` gives: two areas per structure, then the ratios and what they are made of."""
    return [f"area_{unit}_{name}" for name in structures for unit in ("px", "mm2")] + list(_RATIOS)


def measure(masks: np.ndarray, structures: Sequence[str], spacing_mm: tuple[float, float] | None) -> dict[str, Value]:
    """Measurements of one film.

    Left and right follow from the structures' names (``lung_left`` or ``left_lung``), never by their place. Diameters
    are taken from the largest connected part of the heart and of each lung (the two largest of ``lungs``), so that a
    stray pixel moves no edge; areas count every pixel.

    Args:
        masks: bool ``[S, H, W]``, rows downwards.
        structures: S names.
        spacing_mm: (row, column) spacing, or None where it is unknown.

    Returns:
        A value per name of :func:`measurement_columns`; None where a structure has no pixels or isn't there, or where
        mm are not known. Rows and columns count from 0; first and last ones belong to the structure.

    Raises:
        ValueError: masks of another form.
    """
    if masks.ndim != 3 or masks.dtype != bool or len(masks) != len(structures):
        raise ValueError(f"masks must be bool [{len(structures)}, H, W], got {masks.dtype} of shape {masks.shape}")
    found: dict[str, Value] = dict.fromkeys(measurement_columns(structures))
    by_name: dict[tuple[str, str | None], np.ndarray] = {}
    for name, mask in zip(structures, masks, strict=True):
        pixels = int(np.count_nonzero(mask))
        found[f"area_px_{name}"] = pixels
        found[f"area_mm2_{name}"] = pixels * spacing_mm[0] * spacing_mm[1] if spacing_mm else None
        if pixels:
            by_name.setdefault(split_side(name), mask)
    left, right = by_name.get(("lung", "left")), by_name.get(("lung", "right"))
    if left is not None and right is not None:
        found["lung_left_right_area_ratio"] = np.count_nonzero(left) / np.count_nonzero(right)
    both = by_name.get(("lungs", None), by_name.get(("lung", None)))
    thorax = _thorax(left, right) if left is not None and right is not None else None
    if thorax is None and both is not None:
        thorax = _widest_row(_largest_parts(both, 2))
    heart = by_name.get(("heart", None))
    if thorax is not None:
        found["thorax_row"] = thorax[0]
        found |= _diameter("thorax", thorax[1], thorax[2], spacing_mm)
    if heart is not None:
        columns = np.flatnonzero(_largest_parts(heart, 1).any(axis=0))
        found |= _diameter("heart", int(columns[0]), int(columns[-1]), spacing_mm)
    if thorax is not None and heart is not None:
        _, first, last = thorax
        found["cardiothoracic_ratio"] = (int(columns[-1]) - int(columns[0]) + 1) / (last - first + 1)
    return found


def _diameter(name: str, first: int, last: int, spacing_mm: tuple[float, float] | None) -> dict[str, Value]:
    """A transverse diameter and its ends."""
    width = last - first + 1
    return {
        f"{name}_diameter_px": width,
        f"{name}_diameter_mm": width * spacing_mm[1] if spacing_mm else None,
        f"{name}_first_column": first,
        f"{name}_last_column": last,
    }


def _largest_parts(mask: np.ndarray, count: int) -> np.ndarray:
    """The largest connected parts of a mask ``[H, W]``; pixels that touch at a corner are connected."""
    labels, parts = ndimage.label(mask, structure=np.ones((3, 3)))
    if parts <= count:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(np.isin(labels, np.argsort(sizes)[-count:]))


def _thorax(left: np.ndarray, right: np.ndarray) -> tuple[int, int, int] | None:
    """Row, first and last column of the greatest width over both lungs, in the rows that both reach; None if none."""
    left, right = _largest_parts(left, 1), _largest_parts(right, 1)
    rows = np.logical_and(left.any(axis=1), right.any(axis=1))
    return _widest_row((left | right) & rows[:, None]) if rows.any() else None


def _widest_row(mask: np.ndarray) -> tuple[int, int, int]:
    """Row, first and last column of the row (the middle one of several) with the greatest extent."""
    width = mask.shape[1]
    first, last = mask.argmax(axis=1), width - 1 - mask[:, ::-1].argmax(axis=1)
    extent = np.where(mask.any(axis=1), last - first, -1)
    widest = np.flatnonzero(extent == extent.max())
    row = int(widest[len(widest) // 2])
    return row, int(first[row]), int(last[row])
