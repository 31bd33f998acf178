"""Pixels of a world view pair: two crops of one radiograph, resized, under one base jitter of brightness and contrast.

Nothing but the mean level of the contrast step looks at the whole film, and 8-bit films stay 8-bit through the resize.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .geometry import CropBox

__all__ = ["FULL_SCALE", "BaseJitter", "crop_views"]

FULL_SCALE = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0}
"""What stands for 1 in each integer type of a film."""

_LANES = 4  # channels for which the 8-bit resize reads channels-last memory as it is


@dataclass(frozen=True)
class BaseJitter:
    """Brightness and contrast factors shared by both views.

    Args:
        brightness: factor, >= 0; 1 leaves the image as it is.
        contrast: factor, >= 0, of the distance from the image's mean; 1 leaves the image as it is.
        brightness_first: order of the two steps.
    """

    brightness: float
    contrast: float
    brightness_first: bool


def crop_views(
    image: np.ndarray, boxes: tuple[CropBox, CropBox], size: tuple[int, int], jitter: BaseJitter | None = None
) -> tuple[Tensor, Tensor]:
    """Cuts two crops of equal size out of an image and resizes them (bicubic, antialiased).

    A uint8 image is resized in uint8, as PIL does it, and scaled afterwards. Its columns are resized first, so it
    equals what PIL makes of the transposed image; PIL's own order, rows first, differs by the rounding and clipping
    between the two passes: by one grey level in an eighth of the pixels of radiographs, by more at the edges of what
    is black or white.

    The jitter is a pointwise function whose contrast step needs the mean of the full image, so it is applied to the
    resized crops with that mean: the same as jittering the full image first, but for the overshoot of the bicubic
    kernel where the jitter clips.

    Args:
        image: ``[1, H, W]``, uint8, uint16 or floating in [0, 1].
        boxes: two boxes of the same height and width, each in its own view's frame.
        size: rows and columns of a view, px; may be larger than the crop.
        jitter: base jitter of the radiograph, or None.

    Returns:
        The two views, float32 ``[1, h, w]`` in [0, 1], each with memory of its own.
    """
    upright = [box.mirrored(image.shape[2]) if box.flipped else box for box in boxes]
    crops = [image[0, box.top : box.top + box.height, box.left : box.left + box.width] for box in upright]
    resized = _resize_bytes(crops, size) if image.dtype == np.uint8 else _resize_floats(crops, size)
    adjust = _Adjustment.of(image, jitter)
    views = []
    for pixels, box in zip(resized, boxes, strict=True):
        turned = np.ascontiguousarray(pixels[:, ::-1] if box.flipped else pixels)
        views.append(adjust(torch.from_numpy(turned))[None])
    return views[0], views[1]


def _resize_bytes(crops: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Resizes uint8 crops of equal shape to ``[n, h, w]``: the columns, then, transposed, the rows."""
    count, (height, width), (out_height, out_width) = len(crops), crops[0].shape, size
    stacked = np.empty((count, height, _whole_lanes(width)), dtype=np.uint8)
    for place, crop in zip(stacked, crops, strict=True):
        place[:, :width] = crop
    tall = _resize_columns(stacked, out_height).reshape(count * out_height, -1)  # [n * h, lanes]
    transposed = np.empty((1, width, _whole_lanes(len(tall))), dtype=np.uint8)
    transposed[0, :, : len(tall)] = tall[:, :width].T
    wide = _resize_columns(transposed, out_width)[0, :, : len(tall)]  # [w, n * h]
    return wide.T.reshape(count, out_height, out_width)


def _whole_lanes(length: int) -> int:
    return -(-length // _LANES) * _LANES


def _resize_columns(pixels: np.ndarray, length: int) -> np.ndarray:
    """Resizes uint8 ``[n, rows, columns]`` to ``[n, length, columns]``; columns are a multiple of ``_LANES``.

    Columns do not mix in this pass, so four neighbours can pass for the channels of one pixel. The vectorised kernel
    takes such an image as it is; it spreads one channel over four first, and then computes all four.
    """
    count, rows, columns = pixels.shape
    lanes = torch.from_numpy(pixels).view(count, rows, columns // _LANES, _LANES).permute(0, 3, 1, 2)
    out = F.interpolate(lanes, size=(length, columns // _LANES), mode="bicubic", antialias=True)
    return out.permute(0, 2, 3, 1).reshape(count, length, columns).numpy()


def _resize_floats(crops: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Resizes uint16 or floating crops of equal shape to float32 ``[n, h, w]``, on the scale they have."""
    source = torch.from_numpy(np.stack(crops).astype(np.float32))
    return F.interpolate(source[None], size=size, mode="bicubic", antialias=True)[0].numpy()


@dataclass(frozen=True)
class _Adjustment:
    """From a film's own scale to [0, 1] through the base jitter: ``clip(clip(v, top) * gain + shift) * scale``.

    Args:
        top: what the first clip takes down to it; None where nothing can lie outside.
        gain, shift: of the contrast step, and of a brightness step before it.
        scale: of a brightness step after it.
    """

    top: float | None
    gain: float
    shift: float
    scale: float

    @classmethod
    def of(cls, image: np.ndarray, jitter: BaseJitter | None) -> _Adjustment:
        full = FULL_SCALE.get(image.dtype, 1.0)
        overshoots = image.dtype != np.uint8  # in the resize
        if jitter is None:
            return cls(full if overshoots else None, 1 / full, 0.0, 1.0)
        first, last = (jitter.brightness, 1.0) if jitter.brightness_first else (1.0, jitter.brightness)
        top = full / max(first, 1.0)
        shift = (1 - jitter.contrast) * _mean_below(image, top) * first / full
        gain = jitter.contrast * first / full
        return cls(top if overshoots or top < full else None, gain, shift, last)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Maps pixels of any type to a new float32 tensor."""
        if self.top is not None:
            pixels = pixels.to(torch.float32).clamp_(0, self.top)
        view = torch.add(torch.tensor(self.shift), pixels, alpha=self.gain).clamp_(0, 1)
        return view if self.scale == 1 else view.mul_(self.scale).clamp_(max=1)


def _mean_below(image: np.ndarray, top: float) -> float:
    """Mean of ``min(v, top)`` over a whole film, on its own scale.

    From one whole ``top`` to the next the sum of whole numbers grows by how many lie above the first.
    """
    full = FULL_SCALE.get(image.dtype)
    if full is None:
        return float(torch.from_numpy(np.array(image, dtype=np.float32)).clamp_(max=top).mean())
    if top >= full:
        return _total(image) / image.size
    low = math.floor(top)
    return (_total(image, low) + (top - low) * np.count_nonzero(image > low)) / image.size


def _total(image: np.ndarray, limit: int | None = None) -> int:
    """Sum of ``min(v, limit)`` over an unsigned film ``[1, H, W]``, in integers of twice its width."""
    rows, wide = 2 ** (8 * image.itemsize), np.dtype(f"u{2 * image.itemsize}")  # so many cannot overflow
    total = 0
    for start in range(0, image.shape[1], rows):
        block = image[0, start : start + rows]
        if limit is not None and image.dtype == np.uint8:  # NumPy's minimum is 20 times slower
            block = torch.from_numpy(block.copy()).clamp_(max=limit).numpy()
        elif limit is not None:
            block = np.minimum(block, image.dtype.type(limit))
        total += int(np.add.reduce(block, axis=0, dtype=wide).sum(dtype=np.uint64))
    return total
