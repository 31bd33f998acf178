"""Whether masks can be those of a frontal chest film: areas, sides, places and shapes of lungs, heart and clavicles.

A segmenter draws lungs and a heart into whatever it is shown. This looks at the masks alone; what the picture looks
like is asked of :mod:`~cxw_monai.quality.film_model`. Left and right are the patient's: the right lung lies at image
left. Lungs have two definitions, ``lung_left`` (behind the heart too) and ``lung_field_left`` (as far as it is
visible). Whichever is there is judged; where both are, each by its limits, and one against the other. Other structures
are not judged, and a value that needs a missing one isn't there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from cxw_monai.io.structures import split_side

__all__ = ["BEHIND_HEART", "FIELD_OUTSIDE", "LIMITS", "VISIBLE", "Limit", "plausibility", "shape_values"]

_SIDE = 320  # px of the longer side that masks are thinned out to
_SUBJECTS = ("left lung", "right lung", "lungs", "heart", "thorax", "left clavicle", "right clavicle")
_JUDGED = {
    ("heart", None): "heart",
    ("clavicle", "left"): "left clavicle",
    ("clavicle", "right"): "right clavicle",
}


@dataclass(frozen=True)
class Limit:
    """Where a value of :func:`shape_values` may lie.

    Attributes:
        low, high: of the range; on it is still plausible.
        what: the value in words, for the reason.
    """

    low: float
    high: float
    what: str


_LUNG = {
    "area": Limit(0.02, 0.33, "area over the film's"),
    "height over width": Limit(0.6, 3.6, "height over width"),
    "solidity": Limit(0.70, 1.0, "area over its convex hull's"),
    "stray": Limit(0.0, 0.10, "share of stray parts"),
}
LIMITS: dict[str, Limit] = {
    **{f"{side} lung {name}": limit for side in ("left", "right") for name, limit in _LUNG.items()},
    "lungs ratio": Limit(0.4, 2.3, "left lung's area over the right's"),
    "lungs apart": Limit(0.43, 0.66, "way from the right lung's centre to the left's, of both lungs' width"),
    "lungs level": Limit(0.0, 0.29, "difference in height of the lungs' centres, of both lungs' height"),
    "lungs overlap": Limit(0.0, 0.05, "overlap of the lungs"),
    "thorax height over width": Limit(0.38, 1.6, "height over width"),
    "heart area": Limit(0.028, 0.25, "area over the film's"),
    "heart area over lungs": Limit(0.10, 1.12, "area over the lungs'"),
    "heart height over width": Limit(0.33, 2.05, "height over width"),
    "heart solidity": Limit(0.75, 1.0, "area over its convex hull's"),
    "heart stray": Limit(0.0, 0.10, "share of stray parts"),
    "heart side": Limit(0.45, 1.0, "place of the centre from the right lung's (0) to the left's (1)"),
    "heart row": Limit(0.50, 0.90, "place of the centre from the lungs' top (0) to their bottom (1)"),
    "heart apex": Limit(0.085, 0.57, "reach to the left from the middle between the lungs, of both lungs' width"),
    "heart in right lung": Limit(0.0, 0.25, "share inside the right lung"),
    "cardiothoracic ratio": Limit(0.25, 0.87, "cardiothoracic ratio"),
    **{
        f"{side} clavicle row": Limit(-0.2, 0.3, "place of the centre from the lungs' top (0) to their bottom (1)")
        for side in ("left", "right")
    },
    "left clavicle side": Limit(0.25, 1.4, "place of the centre from the right lung's (0) to the left's (1)"),
    "right clavicle side": Limit(-0.6, 0.6, "place of the centre from the right lung's (0) to the left's (1)"),
}
"""Limits by the name of the value.

They are the 0.5 % to 99.5 % ranges of manual masks (155 adults of the training part of Dong 2018, "wingspan" half, MIT;
1,143 children of the training part of Kermany 2018 with lungs by V7 and CloudFactory, CC BY 4.0) and of the shipped
model's masks on the former and on 499 films of NIH ChestX-ray14 (Wang 2017), united, widened by 15 % of their span on
each side (heights over widths a little more, for narrow films), and made the same for both lungs. Where the heart lies
is stricter, by the manual masks: among the model's own there are hearts on the wrong side, which are what is looked
for. No manual heart has over 3 % of itself in a right lung that ends at its edge; where the lung is drawn behind the
heart, right films have up to 13 %. Hearts may be larger, for children (99.5 %: 0.22).
Clavicles: about three times the range of 60 rendered films.
"""
BEHIND_HEART: dict[str, Limit] = {
    "lungs apart": Limit(0.38, 0.66, LIMITS["lungs apart"].what),
    "heart in right lung": Limit(0.0, 0.45, LIMITS["heart in right lung"].what),
}
"""Limits of whole lungs, beside lung fields: of 60 rendered films, right by construction, 0.18 to 0.32 of the heart lie
in front of the right lung (0.06 to 0.16 in its visible field), and their lungs are from 0.426 apart."""
VISIBLE: dict[str, Limit] = {
    **{f"{side} lung solidity": Limit(0.45, 1.0, _LUNG["solidity"].what) for side in ("left", "right")},
    "lungs ratio": Limit(0.3, 2.3, LIMITS["lungs ratio"].what),
}
"""Limits of lung fields: a child's large heart leaves a narrow, hollow left field. Of 229 children of the training part
of Kermany 2018 the shipped model's left fields have 0.51 to 0.91 of their convex hull's area and 0.37 to 1.6 of the
right one's (0.5 % to 99.5 %), V7's lungs without that model's heart 0.35 to 0.90, and 0.44 to 1.3."""
FIELD_OUTSIDE = 0.2
"""Largest share of a lung field that may lie outside the lung of its side; by their definitions it is 0."""


def plausibility(masks: Mapping[str, np.ndarray], spacing_mm: tuple[float, float] | None = None) -> list[str]:
    """What speaks against masks of a frontal chest film.

    Args:
        masks: bool ``[H, W]`` by structure (``lung_left``, ``lung_field_left``, ``heart``, ...), the film upright.
        spacing_mm: (row, column) spacing of the pixels; None takes them for square.

    Returns:
        Reasons in words, none where everything that is known lies inside :data:`LIMITS`, :data:`VISIBLE` for lung
            fields, :data:`BEHIND_HEART` for lungs beside these, and :data:`FIELD_OUTSIDE`.
    """
    bases = {split_side(name)[0] for name in masks}
    reasons = []
    if "lung_field" in bases:
        found = _reasons(shape_values(masks, spacing_mm, "lung_field"), LIMITS | VISIBLE)
        reasons += [re.sub(r"\blung(s?)\b", r"lung field\1", one) for one in found]
    if "lung" in bases or "lung_field" not in bases:
        limits = LIMITS | BEHIND_HEART if "lung_field" in bases else LIMITS
        reasons += _reasons(shape_values(masks, spacing_mm), limits)
    return list(dict.fromkeys(reasons + _fields_outside(masks)))


def _reasons(values: Mapping[str, float], limits: Mapping[str, Limit]) -> list[str]:
    """What speaks against values of :func:`shape_values`."""
    reasons = [
        f"no {name.removesuffix(' area')} was found" for name, value in values.items() if _is_absent(name, value)
    ]
    if values.get("lungs apart", 1.0) < 0:
        reasons.append("left and right lung lie on exchanged sides")
    for name, limit in limits.items():
        value = values.get(name)
        if value is None or _is_absent(name, value) or limit.low <= value <= limit.high:
            continue
        subject = next((f"{start}: " for start in _SUBJECTS if name.startswith(start)), "")
        reasons.append(f"{subject}{limit.what} {_outside(value, limit)}, expected {limit.low:g} to {limit.high:g}")
    return reasons


def _fields_outside(masks: Mapping[str, np.ndarray]) -> list[str]:
    """Lung fields that aren't inside the lung of their side."""
    named = {split_side(name): np.asarray(mask, dtype=bool) for name, mask in masks.items()}
    reasons = []
    for side in ("left", "right"):
        field, lung = named.get(("lung_field", side)), named.get(("lung", side))
        if field is None or lung is None or not (field.any() and lung.any()):
            continue
        share = np.count_nonzero(field & ~lung) / np.count_nonzero(field)
        if share > FIELD_OUTSIDE:
            reasons.append(
                f"{side} lung field: share outside the {side} lung {share:.3f}, expected 0 to {FIELD_OUTSIDE}"
            )
    return reasons


def _outside(value: float, limit: Limit) -> str:
    """A value beyond its limit, of as many digits as it takes to see that: two and more."""
    texts = (f"{value:.{digits}f}" for digits in range(2, 18))
    return next((text for text in texts if not limit.low <= float(text) <= limit.high), repr(float(value)))


def _is_absent(name: str, value: float) -> bool:
    return value == 0 and name in ("left lung area", "right lung area", "heart area")


def shape_values(
    masks: Mapping[str, np.ndarray], spacing_mm: tuple[float, float] | None = None, lungs: str = "lung"
) -> dict[str, float]:
    """Values that :data:`LIMITS` are for, of those structures that are there.

    Areas are fractions of the film; places and widths are of the largest part of each.

    Args:
        masks, spacing_mm: as for :func:`plausibility`.
        lungs: which masks are the lungs, ``lung`` or ``lung_field``.
    """
    judged = _JUDGED | {(lungs, side): f"{side} lung" for side in ("left", "right")}
    named: dict[str, np.ndarray] = {}
    for name, mask in masks.items():
        if (key := split_side(name)) in judged:
            step = -(-max(mask.shape) // _SIDE)
            named.setdefault(judged[key], np.asarray(mask[::step, ::step], dtype=bool))
    stretch = spacing_mm[0] / spacing_mm[1] if spacing_mm else 1.0  # a pixel's height over its width
    values: dict[str, float] = {}
    places: dict[str, _Place] = {}
    for name, mask in named.items():
        values[f"{name} area"] = float(mask.mean())
        if mask.any():
            parts, count = ndimage.label(mask, structure=np.ones((3, 3)))
            sizes = np.bincount(parts.ravel())[1:]
            largest = mask if count == 1 else parts == 1 + sizes.argmax()
            place = places[name] = _place(largest)
            values[f"{name} height over width"] = stretch * place.height / place.width
            values[f"{name} solidity"] = _solidity(largest)
            values[f"{name} stray"] = float(1 - sizes.max() / sizes.sum())
    if "left lung" in places and "right lung" in places:
        values |= _of_lungs(named, places, values, stretch)
        if "heart" in places:
            values |= _of_heart(named, places, values)
        values |= _of_clavicles(places)
    return {name: value for name, value in values.items() if name in LIMITS}


@dataclass(frozen=True)
class _Place:
    """Centre and box of a mask, px; last row and column are inside."""

    row: float
    column: float
    top: int
    bottom: int
    first: int
    last: int

    @property
    def height(self) -> int:
        return self.bottom - self.top + 1

    @property
    def width(self) -> int:
        return self.last - self.first + 1


def _place(mask: np.ndarray) -> _Place:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    row, column = ndimage.center_of_mass(mask)
    return _Place(float(row), float(column), int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1]))


def _solidity(mask: np.ndarray) -> float:
    """Area over that of the convex hull of the pixels' corners."""
    rim = np.argwhere(mask & ~ndimage.binary_erosion(mask))
    corners = np.concatenate([rim + offset for offset in ((0, 0), (0, 1), (1, 0), (1, 1))])
    try:
        return float(np.count_nonzero(mask) / ConvexHull(corners).volume)
    except QhullError:
        return 1.0


def _thorax(places: Mapping[str, _Place]) -> _Place:
    left, right = places["left lung"], places["right lung"]
    middle = (left.row + right.row) / 2, (left.column + right.column) / 2
    box = (
        min(left.top, right.top),
        max(left.bottom, right.bottom),
        min(left.first, right.first),
        max(left.last, right.last),
    )
    return _Place(*middle, *box)


def _of_lungs(
    named: Mapping[str, np.ndarray], places: Mapping[str, _Place], values: Mapping[str, float], stretch: float
) -> dict[str, float]:
    left, right, thorax = places["left lung"], places["right lung"], _thorax(places)
    both = np.count_nonzero(named["left lung"] & named["right lung"])
    return {
        "lungs ratio": values["left lung area"] / values["right lung area"],
        "lungs apart": (left.column - right.column) / thorax.width,
        "lungs level": abs(left.row - right.row) / thorax.height,
        "lungs overlap": both / min(np.count_nonzero(named["left lung"]), np.count_nonzero(named["right lung"])),
        "thorax height over width": stretch * thorax.height / thorax.width,
    }


def _of_heart(
    named: Mapping[str, np.ndarray], places: Mapping[str, _Place], values: Mapping[str, float]
) -> dict[str, float]:
    left, right, heart, thorax = places["left lung"], places["right lung"], places["heart"], _thorax(places)
    lungs = values["left lung area"] + values["right lung area"]
    inside = np.count_nonzero(named["heart"] & named["right lung"]) / np.count_nonzero(named["heart"])
    found = {
        "heart area over lungs": values["heart area"] / lungs,
        "heart row": (heart.row - thorax.top) / thorax.height,
        "heart in right lung": inside,
        "cardiothoracic ratio": heart.width / thorax.width,
    }
    if left.column > right.column:  # else the sides are exchanged, and nothing lies on the way
        found["heart side"] = (heart.column - right.column) / (left.column - right.column)
        found["heart apex"] = (heart.last - thorax.column) / thorax.width
    return found


def _of_clavicles(places: Mapping[str, _Place]) -> dict[str, float]:
    left, right, thorax = places["left lung"], places["right lung"], _thorax(places)
    found = {}
    for name in ("left clavicle", "right clavicle"):
        if name in places:
            found[f"{name} row"] = (places[name].row - thorax.top) / thorax.height
            if left.column > right.column:
                found[f"{name} side"] = (places[name].column - right.column) / (left.column - right.column)
    return found
