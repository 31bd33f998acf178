"""Trachea, rotation and costophrenic angles of a frontal chest film, from its masks or its landmarks.

What a reader looks for first: is the patient rotated (the medial ends of the clavicles stand at different distances
from the spine), is the trachea off the midline, are the costophrenic angles sharp. Each is taken from masks where these
are there, else from landmarks. Definitions: `describe_geometry`. They are geometry, not diagnoses, and weren't compared
with readers' measurements.

The patient's right is on the image's left; signs are positive towards the patient's left.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np
from scipy import ndimage

from cxw_monai.io.structures import split_side

__all__ = ["costophrenic_angle", "describe_geometry", "measure_geometry"]

Point = tuple[float, float]
"""Column and row in px of the upright film; the first pixel's centre is 0, 0."""

ARM = 0.15
"""Length of the angle's arms, as a share of the lung's height."""

_LUNGS = ("lung_field", "lung")  # the first that is there
_SIDES = ("left", "right")
_SPINES = ("spine", "vertebrae")  # masks
_TRACHEA, _SPINE = ("carina", "trachea"), ("spinous_process", "spine")  # landmarks that may stand for masks
_END = "clavicle_medial"
_PLANE = "in mm at the plane of the declared spacing"


def describe_geometry(structures: Collection[str], points: Collection[str]) -> dict[str, str]:
    """What `measure_geometry` can give of these masks and landmarks, each with its definition and unit."""
    names, found = {split_side(name) for name in structures}, {}
    spine = any((name, None) in names for name in _SPINES) or any(name in points for name in _SPINE)
    clavicles = all(("clavicle", side) in names or f"{_END}_{side}" in points for side in _SIDES)
    if (("trachea", None) in names or any(name in points for name in _TRACHEA)) and (spine or clavicles):
        where = (
            "from the trachea's centre (of its mask, else the carina) to the midline at its height: the spine's "
            "middle, or where that isn't there halfway between the medial ends of the clavicles; above 0 to the "
            "patient's left"
        )
        found = {
            "trachea_deviation_px": f"horizontal distance {where}",
            "trachea_deviation_mm": f"the same, {_PLANE}",
        }
    if spine and clavicles:
        found["clavicle_rotation"] = (
            "(l - r) / (l + r) of the horizontal distances l and r of the left and right clavicle's medial end from "
            "the spine's middle at their height; 0 for a patient who isn't rotated, above 0 where the left is "
            "further away"
        )
    for side in _SIDES:
        if any((lung, side) in names for lung in _LUNGS):
            found[f"costophrenic_angle_{side}_deg"] = (
                "angle in degrees at the lung's lowest lateral corner, between its lateral edge and its lower edge, "
                f"each as far as {ARM:.0%} of the lung's height away from the corner"
            )
    return found


def measure_geometry(
    masks: Mapping[str, np.ndarray],
    points: Mapping[str, Point] | None = None,
    spacing_mm: tuple[float, float] | None = None,
) -> dict[str, float | None]:
    """Measurements of one frontal chest film, by the names of `describe_geometry`.

    Args:
        masks: bool ``[H, W]`` by structure, the film upright.
        points: landmarks that are on the film.
        spacing_mm: row and column spacing; None where it isn't known, when pixels count as square.

    Returns:
        None where something that a measurement needs isn't there, or mm aren't known.
    """
    points = points or {}
    found: dict[str, float | None] = dict.fromkeys(describe_geometry(list(masks), list(points)))
    by_name = {split_side(name): mask for name, mask in masks.items() if mask.any()}
    ends = {side: _medial_end(by_name, points, side) for side in _SIDES}
    left, right = ends["left"], ends["right"]
    level = None if left is None or right is None else (left[1] + right[1]) / 2
    if "trachea_deviation_px" in found and (trachea := _trachea(by_name, points)) is not None:
        middle = _midline(by_name, points, trachea[1])
        if middle is None and left is not None and right is not None:
            middle = (left[0] + right[0]) / 2
        if middle is not None:
            off = trachea[0] - middle
            found["trachea_deviation_px"] = off
            found["trachea_deviation_mm"] = off * spacing_mm[1] if spacing_mm else None
    if "clavicle_rotation" in found and left is not None and right is not None and level is not None:
        middle = _midline(by_name, points, level)
        apart = left[0] - right[0]
        if middle is not None and apart > 0:
            found["clavicle_rotation"] = (left[0] - middle - (middle - right[0])) / apart
    for side in _SIDES:
        lung = next((by_name[name, side] for name in _LUNGS if (name, side) in by_name), None)
        if lung is not None:
            found[f"costophrenic_angle_{side}_deg"] = costophrenic_angle(lung, side, spacing_mm)
    return found


def costophrenic_angle(lung: np.ndarray, side: str, spacing_mm: tuple[float, float] | None = None) -> float | None:
    """Angle at a lung's lateral lower corner.

    The corner is the lung's largest part's outermost pixel in the direction lateral and down (45 degrees); one arm goes
    to the lateral edge `ARM` of the lung's height above it, the other to the lower edge as far to the middle.

    Args:
        lung: bool ``[H, W]``, rows downwards.
        side: the patient's, `left` (at image right) or `right`.
        spacing_mm: row and column spacing; None takes square pixels.

    Returns:
        Degrees in (0, 180); None where the mask is empty, or ends before an arm does.
    """
    parts, count = ndimage.label(lung, structure=np.ones((3, 3)))
    if not count:
        return None
    mask = parts == 1 + np.bincount(parts.ravel())[1:].argmax()
    down, across = spacing_mm or (1.0, 1.0)
    if side == "right":  # as if it were the left one
        mask = mask[:, ::-1]
    rows, columns = np.nonzero(mask)
    at = int(np.argmax(rows * down + columns * across))
    row, column = int(rows[at]), int(columns[at])
    arm = ARM * (rows.max() - rows.min() + 1) * down
    above, inwards = row - round(arm / down), column - round(arm / across)
    if above < 0 or inwards < 0 or not mask[above].any() or not mask[:, inwards].any():
        return None
    wall = (above - row) * down, (np.flatnonzero(mask[above])[-1] - column) * across
    floor = (np.flatnonzero(mask[:, inwards])[-1] - row) * down, (inwards - column) * across
    cosine = (wall[0] * floor[0] + wall[1] * floor[1]) / (math.hypot(*wall) * math.hypot(*floor))
    return math.degrees(math.acos(max(-1.0, min(1.0, cosine))))


Masks = Mapping[tuple[str, str | None], np.ndarray]


def _trachea(masks: Masks, points: Mapping[str, Point]) -> Point | None:
    """The middle of its mask, else its landmark."""
    if (mask := masks.get(("trachea", None))) is not None:
        row, column = ndimage.center_of_mass(mask)
        return float(column), float(row)
    return next((points[name] for name in _TRACHEA if name in points), None)


def _midline(masks: Masks, points: Mapping[str, Point], row: float) -> float | None:
    """Column of the spine's middle at a height: of its mask's nearest row, else its landmark."""
    mask = next((masks[name, None] for name in _SPINES if (name, None) in masks), None)
    if mask is not None:
        there = np.flatnonzero(mask.any(axis=1))
        nearest = there[np.abs(there - row).argmin()]
        return float(np.flatnonzero(mask[nearest]).mean())
    return next((points[name][0] for name in _SPINE if name in points), None)


def _medial_end(masks: Masks, points: Mapping[str, Point], side: str) -> Point | None:
    """A clavicle's end at the middle of the chest: of its mask, else the landmark."""
    if (mask := masks.get(("clavicle", side))) is not None:
        columns = np.flatnonzero(mask.any(axis=0))
        column = columns[0] if side == "left" else columns[-1]
        return float(column), float(np.flatnonzero(mask[:, column]).mean())
    return points.get(f"{_END}_{side}")
