"""Structures as a reader outlines them on a frontal film, from the projected organs.

A projected lung continues behind and before the diaphragm, below its dome, and before and behind heart and spine almost
to the other lung. Readers end it at the dome and at the edge of the spine, those of most public data sets (JSRT/SCR,
Montgomery, COVID) at the edge of heart and great vessels, which they draw as one silhouette. The names are those that
:mod:`cxw_monai.io.structures` defines.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import ndimage

__all__ = ["SILHOUETTES", "silhouettes"]

SILHOUETTES = ("lung_left", "lung_right", "heart", "mediastinum", "lung_field_left", "lung_field_right")
"""Masks that :func:`silhouettes` can make."""

_DEEP_MM = 45.0  # depth of lung at its medial border; leaves 0.14 of the chest's width between the lungs, as readers do
_EVEN_MM = 8.0  # standard deviation of the smoothing of the medial border
_BAY_MM = 14.0  # bays between arch, pulmonary trunk and heart that the outline passes over
_VESSEL_MM = 14.0  # half the width of hilar vessels that the outline cuts off
_PIECE_MM = 4.0  # half the width of what is left of a lung below the dome


def silhouettes(
    masks: Mapping[str, np.ndarray], depths: Mapping[str, np.ndarray], pixel_mm: float
) -> dict[str, np.ndarray]:
    """Outlines of lungs, heart and mediastinum on a frontal film.

    - ``lung_<side>``: the projected lung above the abdomen's upper edge, column by column, and not further medially
      than where it is :data:`_DEEP_MM` deep; its largest part. It goes on behind the heart.
    - ``heart``: the heart with hilar vessels cut off.
    - ``mediastinum``: heart, and above the heart's lowest row aorta and superior vena cava, with bays filled and hilar
      vessels cut off.
    - ``lung_field_<side>``: ``lung_<side>`` without heart and mediastinum, its largest part; only if there is a heart.

    Args:
        masks: projected structures, bool ``[H, W]`` each: ``lung_left``, ``lung_right``, ``abdomen``, ``heart``,
            ``aorta``, ``superior_vena_cava``; what is missing counts as empty. The patient's left is at the right.
        depths: path lengths in mm through ``lung_left`` and ``lung_right``, float ``[H, W]``.
        pixel_mm: size of a pixel in the plane of the chest.

    Returns:
        The outlines that the given structures allow, bool ``[H, W]``.
    """
    found: dict[str, np.ndarray] = {}
    if not masks:
        return found
    empty = np.zeros_like(next(iter(masks.values())))
    below = np.logical_or.accumulate(masks.get("abdomen", empty), axis=0)
    for side in ("left", "right"):
        if f"lung_{side}" in masks:
            lung = _largest_part(masks[f"lung_{side}"], pixel_mm)
            lateral = _lateral(lung & (depths[f"lung_{side}"] > _DEEP_MM), side, pixel_mm)
            found[f"lung_{side}"] = _largest_part(lung & lateral & ~below, pixel_mm)
    if "heart" in masks:
        heart = masks["heart"]
        found["heart"] = _largest_part(_opening(heart, _VESSEL_MM / pixel_mm), pixel_mm)
        vessels = masks.get("aorta", empty) | masks.get("superior_vena_cava", empty)
        rows = np.flatnonzero(heart.any(axis=1))
        if len(rows):
            vessels = vessels & (np.arange(len(heart)) <= rows[-1])[:, None]
        closed = _closing(heart | vessels, _BAY_MM / pixel_mm)
        found["mediastinum"] = _largest_part(_opening(closed, _VESSEL_MM / pixel_mm), pixel_mm)
        for side in ("left", "right"):
            if f"lung_{side}" in found:
                visible = found[f"lung_{side}"] & ~(found["heart"] | found["mediastinum"])
                found[f"lung_field_{side}"] = _largest_part(visible, pixel_mm)
    return found


def _lateral(deep: np.ndarray, side: str, pixel_mm: float) -> np.ndarray:
    """Pixels on the lateral side of the medial border of what is deep, the border evened out."""
    width = deep.shape[1]
    if side == "right":  # the patient's right lung is at the left of the film
        return _lateral(deep[:, ::-1], "left", pixel_mm)[:, ::-1]
    rows = np.flatnonzero(deep.any(axis=1))
    if len(rows) == 0:
        return np.ones_like(deep)
    border = np.interp(np.arange(len(deep)), rows, deep[rows].argmax(axis=1))
    border = ndimage.gaussian_filter1d(border, _EVEN_MM / pixel_mm, mode="nearest")
    return np.arange(width) >= np.round(border)[:, None]


def _disc(radius: float) -> np.ndarray:
    reach = max(int(radius), 1)
    offsets = np.arange(-reach, reach + 1)
    return offsets[:, None] ** 2 + offsets**2 <= max(radius, 1.0) ** 2


def _closing(mask: np.ndarray, radius: float) -> np.ndarray:
    reach = int(radius) + 2
    padded = np.pad(mask, reach)  # the closing needs room beyond the picture's edge
    return ndimage.binary_closing(padded, _disc(radius))[reach:-reach, reach:-reach]


def _opening(mask: np.ndarray, radius: float) -> np.ndarray:
    reach = int(radius) + 2
    padded = np.pad(mask, reach, mode="edge")  # what the picture's edge cuts is not thin
    return ndimage.binary_opening(padded, _disc(radius))[reach:-reach, reach:-reach]


def _largest_part(mask: np.ndarray, pixel_mm: float) -> np.ndarray:
    """The largest connected part, separated from others across bridges up to twice :data:`_PIECE_MM` wide."""
    cores, count = ndimage.label(_opening(mask, _PIECE_MM / pixel_mm))
    if count == 0:
        return mask
    core = cores == 1 + np.bincount(cores.ravel())[1:].argmax()
    return ndimage.binary_dilation(core, iterations=max(1, round(_PIECE_MM / pixel_mm)) + 1) & mask
