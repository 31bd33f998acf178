"""Areas, the cardiothoracic ratio, and the geometry of a film's structures.

Lengths and areas in mm hold at the plane that the spacing is declared for. A DICOM's PixelSpacing may be calibrated to
the patient; ImagerPixelSpacing is that of the detector and is divided by the declared magnification only where one is
declared. Without it, and in any other format, structures are magnified by the distance between patient and detector
(by some 5 to 20 % in chest films, the heart more than the thorax in AP films): compare films of one protocol only.
Ratios within a film don't depend on the spacing.

The cardiothoracic ratio is that of Danzer (Am J Med Sci 1919; 157:513-521), the heart's greatest transverse extent over
the inner width of the thorax, as measured in the manual masks of Dong et al. 2018
(https://github.com/eveningdong/cardiothoracic_ratio_estimation_dataset): both from the rightmost to the leftmost point,
in whatever rows these are; the thorax's points are those of the lungs. Where a film has lung fields, they are taken,
else the whole lungs, whose lateral edges are the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from cxw_monai.io.structures import describe_structure, split_side

from .chest_geometry import describe_geometry, measure_geometry

__all__ = ["describe_columns", "diameter_lines", "measure", "measurement_columns"]

Value = float | int | None

_LUNGS = ("lung_field", "lung")  # the thorax's width is that of the first that is there
_RATIOS = {
    "cardiothoracic_ratio": "heart_diameter_px over thorax_diameter_px",
    **{
        f"{name}_diameter_{unit}": f"from {name}_first_column to {name}_last_column, {words}"
        for name in ("heart", "thorax")
        for unit, words in (("px", "both included"), ("mm", "in mm at the plane of the declared spacing"))
    },
    "heart_first_column": "the heart's first column from the image's left, whatever its row; counted from 0",
    "heart_last_column": "the heart's last column, whatever its row",
    "thorax_first_column": "the first column of the lungs (lung fields, where there are any), whatever its row",
    "thorax_last_column": "the last column of the lungs (lung fields, where there are any), whatever its row",
    **{f"{name}_left_right_area_ratio": f"area of {name}_left over that of {name}_right" for name in _LUNGS},
}


def measurement_columns(structures: Sequence[str]) -> list[str]:
    """Names of what :func:`measure` gives: two areas per structure, the ratios and what they are made of, and what
    :mod:`~cxw_monai.inference.chest_geometry` makes of the structures."""
    return list(describe_columns(structures))


def describe_columns(structures: Sequence[str]) -> dict[str, str]:
    """What each of :func:`measurement_columns` is, with the definition of the structure whose area it is."""
    units = {"px": "pixels of the film", "mm2": "mm2 at the plane of the declared spacing"}
    areas = {
        f"area_{unit}_{name}": " ".join(filter(None, (f"Area in {words}.", describe_structure(name).definition)))
        for name in structures
        for unit, words in units.items()
    }
    return areas | _RATIOS | describe_geometry(structures, ())


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
        mm are not known. Columns count from 0; first and last ones belong to the structure.

    Raises:
        ValueError: masks of another form.
    """
    if masks.ndim != 3 or masks.dtype != bool or len(masks) != len(structures):
        raise ValueError(f"masks must be bool [{len(structures)}, H, W], got {masks.dtype} of shape {masks.shape}")
    found: dict[str, Value] = dict.fromkeys(measurement_columns(structures))
    by_name = _found(masks, structures)
    for name, mask in zip(structures, masks, strict=True):
        pixels = int(np.count_nonzero(mask))
        found[f"area_px_{name}"] = pixels
        found[f"area_mm2_{name}"] = pixels * spacing_mm[0] * spacing_mm[1] if spacing_mm else None
    for name in _LUNGS:
        left, right = by_name.get((name, "left")), by_name.get((name, "right"))
        if left is not None and right is not None:
            found[f"{name}_left_right_area_ratio"] = np.count_nonzero(left) / np.count_nonzero(right)
    for name, mask in _measured(by_name).items():
        found |= _diameter(name, *_ends(mask), spacing_mm)
    across, inner = found["heart_diameter_px"], found["thorax_diameter_px"]
    if across is not None and inner is not None:
        found["cardiothoracic_ratio"] = across / inner
    return found | measure_geometry(dict(zip(structures, masks, strict=True)), spacing_mm=spacing_mm)


def diameter_lines(masks: np.ndarray, structures: Sequence[str]) -> dict[str, np.ndarray]:
    """The lines along which :func:`measure` takes its diameters.

    A line is horizontal, from the outer edge of the first column to the outer edge of the last one, and lies halfway
    between the middles of these two columns' pixels.

    Args:
        masks: bool ``[S, H, W]``, rows downwards.
        structures: S names.

    Returns:
        float64 ``[2, 2]``, two points (row, column) in continuous px (the first pixel covers 0 to 1), of ``heart`` and
        ``thorax``; without those that aren't there.
    """
    lines = {}
    for name, mask in _measured(_found(masks, structures)).items():
        first, last = _ends(mask)
        row = np.mean([np.flatnonzero(mask[:, column]).mean() for column in (first, last)]) + 0.5
        lines[name] = np.array([[row, first], [row, last + 1]])
    return lines


def _found(masks: np.ndarray, structures: Sequence[str]) -> dict[tuple[str, str | None], np.ndarray]:
    """The masks that have pixels, by structure and side; the first of a name."""
    by_name: dict[tuple[str, str | None], np.ndarray] = {}
    for name, mask in zip(structures, masks, strict=True):
        if mask.any():
            by_name.setdefault(split_side(name), mask)
    return by_name


def _measured(by_name: dict[tuple[str, str | None], np.ndarray]) -> dict[str, np.ndarray]:
    """The masks ``[H, W]`` whose diameters are taken, those of ``heart`` and ``thorax`` that are there."""
    heart, thorax = by_name.get(("heart", None)), _thorax(by_name)
    found = {"heart": None if heart is None else _largest_parts(heart, 1), "thorax": thorax}
    return {name: mask for name, mask in found.items() if mask is not None}


def _ends(mask: np.ndarray) -> tuple[int, int]:
    """First and last column of a mask ``[H, W]`` that has pixels."""
    columns = np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(columns[-1])


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


def _thorax(masks: dict[tuple[str, str | None], np.ndarray]) -> np.ndarray | None:
    """Both lungs ``[H, W]``; None where one is missing, or where they share no row."""
    for name in _LUNGS:
        left, right = masks.get((name, "left")), masks.get((name, "right"))
        both = masks.get((f"{name}s", None), masks.get((name, None)))
        if left is not None and right is not None:
            left, right = _largest_parts(left, 1), _largest_parts(right, 1)
            if not (left.any(axis=1) & right.any(axis=1)).any():
                continue
            both = left | right
        elif both is not None:
            both = _largest_parts(both, 2)
        else:
            continue
        return both
    return None
