"""Masks from boxes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from cxw_monai.data.schema import Box

__all__ = ["fill_boxes"]


def fill_boxes(boxes: Iterable[Box], height: int, width: int) -> np.ndarray:
    """The union of some boxes.

    A pixel is set if its centre is inside a box; the box ``0, 0, width, height`` is the whole image.

    Args:
        boxes: in pixels of the image; what lies outside is cut off.
        height: of the image.
        width: of the image.

    Returns:
        bool ``[height, width]``.
    """
    mask = np.zeros((height, width), dtype=bool)
    for box in boxes:
        left, top, right, bottom = (
            max(int(np.ceil(edge - 0.5)), 0) for edge in (box.x, box.y, box.x + box.width, box.y + box.height)
        )
        mask[top:bottom, left:right] = True
    return mask
