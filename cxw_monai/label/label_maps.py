"""One map of numbers for structures that may overlap, and back.

Annotation tools show and save one number a pixel, but a heart lies on the mediastinum and a clavicle on a lung. In a
map, structure ``i`` of the model's list has the number ``i + 1``; which one lies on top is that of
:func:`~cxw_monai.io.structures.drawing_order`: parts on what they are parts of, else later ones on earlier ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cxw_monai.io.structures import drawing_order, fronts_of, parts_of

__all__ = ["annotated_masks", "hidden_pixels", "paint", "structure_values"]


def paint(masks: np.ndarray, structures: Sequence[str]) -> np.ndarray:
    """The map of masks.

    Args:
        masks: bool ``[S, H, W]``, at most 255 structures.
        structures: S names.

    Returns:
        uint8 ``[H, W]``: 0 where no mask is, else the number of the one on top, from 1.
    """
    found = np.zeros(masks.shape[1:], dtype=np.uint8)
    for place in drawing_order(structures):
        found[masks[place]] = place + 1
    return found


def hidden_pixels(masks: np.ndarray, structures: Sequence[str]) -> list[int]:
    """For each of bool ``[S, H, W]``, how many of its pixels others lie on in the map."""
    shown = paint(masks, structures)
    return [int(np.count_nonzero(mask & (shown != number))) for number, mask in enumerate(masks, start=1)]


def structure_values(structures: Sequence[str], label_info: Sequence[Mapping[str, object]] | None) -> dict[str, int]:
    """Which number each structure has in a map that a client saved.

    Args:
        structures: the model's names.
        label_info: what 3D Slicer and OHIF send with a map, ``[{"name": ..., "idx": ...}, ...]``; without ``idx`` an
            entry's number is its place, from 1. None where nothing was sent: then the numbers are those of `paint`.

    Returns:
        Structure to number; structures that the client doesn't name are left out. Other names are ignored.

    Raises:
        ValueError: two structures with one number, or entries of another form.
    """
    if not label_info:
        return {name: number for number, name in enumerate(structures, start=1)}
    try:
        given = {str(one["name"]): int(str(one.get("idx", at))) for at, one in enumerate(label_info, start=1)}
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ValueError("label_info must be a list of {'name': text, 'idx': number}") from None
    values = {name: given[name] for name in structures if name in given}
    if len(set(values.values())) < len(values) or min(values.values(), default=1) < 1:
        raise ValueError(f"label_info must give each structure a number of its own from 1, got {values}")
    return values


def annotated_masks(
    label_map: np.ndarray, values: Mapping[str, int], shown: np.ndarray, structures: Sequence[str]
) -> dict[str, np.ndarray]:
    """Masks that a person's map stands for.

    Where the map is still what the model's masks look like, it says nothing about what lies beneath, so the masks stay
    as they were shown. Where it was changed, a pixel belongs to what was painted there, to what that is a part of (a
    lung field's pixel to the lung), and to nothing else; but what is drawn behind heart and mediastinum by its
    definition stays behind them.

    Args:
        label_map: integers ``[H, W]``.
        values: number of each structure in the map.
        shown: the model's masks, bool ``[S, H, W]``, in the order of `structures`.
        structures: S names.

    Returns:
        bool ``[H, W]`` for each structure that has a pixel in the map. One that has none wasn't drawn: it is unknown;
        but for one that had none before either, since others hid it, and of which the map still covers all that was
        hidden by more than its parts.
    """
    ours = np.zeros(label_map.shape, dtype=np.uint8)
    for number, name in enumerate(structures, start=1):
        if name in values:
            ours[label_map == values[name]] = number
    before = paint(shown, structures)
    numbers = {name: number for number, name in enumerate(structures, start=1)}
    found = {}
    for name, number in numbers.items():
        parts = [numbers[one] for one in parts_of(name, structures)]
        fronts = [numbers[one] for one in fronts_of(name, structures)]
        mask = shown[number - 1]
        behind = mask & ~np.isin(before, [number, *parts])
        covered = np.isin(ours, [*parts, *fronts])
        hidden = mask.any() and not (before == number).any() and covered.any() and covered[behind].all()
        if hidden or (ours == number).any():
            kept = (ours == before) | np.isin(ours, fronts)
            found[name] = np.where(kept, mask, np.isin(ours, [number, *parts]))
    return found
