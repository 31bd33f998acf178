"""Masks of published polygons and boxes, and published masks put on the image's grid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from cxw_monai.data.schema import Box
from cxw_monai.io.formats.pictures import refuse_unless_file
from cxw_monai.io.radiograph import RadiographError

from .common import decoding

__all__ = ["fill_boxes", "left_and_right", "on_grid", "polygon_mask", "stored_mask"]

_CRUMB = 0.02  # of a mask; a part that is smaller is no lung
_ASPECT = 0.01  # relative difference of the aspect ratio that rounding to whole pixels explains


def polygon_mask(polygons: Iterable[Sequence[Sequence[float]]], width: int, height: int) -> np.ndarray:
    """The union of some polygons.

    Corners are rounded to pixels (the centre of the first is 0, 0); a pixel inside or on the outline is in the mask.
    Polygons of fewer than three corners enclose nothing.

    Args:
        polygons: each of ``(x, y)`` corners in pixels, x to the right.
        width, height: of the image, in pixels.

    Returns:
        bool ``[height, width]``.
    """
    mask = Image.new("L", (width, height))
    draw = ImageDraw.Draw(mask)
    for polygon in polygons:
        if len(polygon) > 2:
            draw.polygon([(round(x), round(y)) for x, y in polygon], fill=1, outline=1)
    return np.asarray(mask) != 0


def fill_boxes(boxes: Iterable[Box], height: int, width: int) -> np.ndarray:
    """The union of some boxes.

    A pixel is set if its centre is inside a box; the box ``0, 0, width, height`` is the whole image.

    Args:
        boxes: in pixels of the image; what lies outside is cut off.
        height, width: of the image, in pixels.

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


def left_and_right(mask: np.ndarray) -> dict[str, np.ndarray]:
    """Both lungs of a frontal film apart, where they are in one mask.

    Args:
        mask: bool ``[H, W]``; the patient's left lies at the right.

    Returns:
        bool ``[H, W]`` for ``left`` and ``right``: the two connected parts; crumbs (under 2 % of the mask) are in none.
        Empty where there are other than two parts, or one lies above the other: then it isn't known which is which.
    """
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    parts = [labels == number for number in 1 + np.flatnonzero(sizes > _CRUMB * sizes.sum())]
    if len(parts) != 2:
        return {}
    one, other = sorted(parts, key=lambda part: np.nonzero(part)[1].mean())
    columns, others = (np.nonzero(part)[1] for part in (one, other))
    beside = columns.mean() < others.min() and columns.max() < others.mean()
    return {"left": other, "right": one} if beside else {}


def on_grid(mask: np.ndarray, width: int, height: int) -> np.ndarray:
    """A mask ``[h, w]`` of the whole image at the image's size: each pixel takes the one below its centre.

    Raises:
        ValueError: the aspect ratios differ by more than 1 %, so that it can't be of the whole image.
    """
    rows, columns = mask.shape
    if (rows, columns) == (height, width):
        return mask
    if abs(columns * height / (rows * width) - 1) > _ASPECT:
        raise ValueError(f"a mask of {columns} x {rows} pixels does not fit an image of {width} x {height}")
    below = [((np.arange(n) + 0.5) * m / n).astype(int) for n, m in ((height, rows), (width, columns))]
    return mask[np.ix_(*below)]


def stored_mask(path: Path, width: int, height: int) -> np.ndarray:
    """A mask image, anything but black being in it, put on the image's grid (:func:`on_grid`).

    Returns:
        bool ``[height, width]``.

    Raises:
        RadiographError: it can't be read, or doesn't fit the image.
    """
    refuse_unless_file(path, "mask")
    with decoding(path, "the mask cannot be read", "copy it again from its source"), Image.open(path) as image:
        mask = np.asarray(image.convert("L")) != 0
    try:
        return on_grid(mask, width, height)
    except ValueError as error:
        raise RadiographError(path, str(error), "give the mask that was published for this image") from error
