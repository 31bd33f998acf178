"""The one preparation of a whole film for a network: stretched to one size, nothing cropped and nothing padded.

Training of segmentation, bundle, Python API, MONAI Label, pseudo-labels and descriptors all show a film like this. The
world model has seen aspect ratios from 3:4 to 4:3 in pretraining.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor
from torch.nn import functional as F

__all__ = ["WholeFilmd", "pair", "unit_float", "whole_film", "whole_masks"]


def unit_float(pixels: Any) -> Tensor:
    """float32 copy of uint8, uint16 or floating pixels, integers scaled by their range to [0, 1]."""
    pixels = np.asarray(pixels)
    scale = np.float32(1 / np.iinfo(pixels.dtype).max) if pixels.dtype.kind == "u" else np.float32(1)
    return torch.from_numpy(pixels.astype(np.float32)).mul_(float(scale))


def pair(size: int | Sequence[int]) -> tuple[int, int]:
    """(height, width) of one number or two."""
    return (int(size), int(size)) if isinstance(size, (int, float)) else (int(size[0]), int(size[1]))


def whole_film(pixels: Any, size: int | Sequence[int]) -> Tensor:
    """A film at a network's size, by an antialiased bicubic filter.

    Args:
        pixels: `[1, h, w]`, uint8, uint16, or floating in [0, 1].
        size: rows and columns in px, or one number for both.

    Returns:
        float32 `[1, H, W]` in [0, 1], with memory of its own.
    """
    image, size = unit_float(pixels), pair(size)
    if image.shape[1:] == size:
        return image
    return F.interpolate(image[None], size, mode="bicubic", antialias=True)[0].clamp_(0, 1)


def whole_masks(masks: Any, size: int | Sequence[int]) -> Tensor:
    """A film's masks at a network's size: a pixel is inside where at least half of its (antialiased) area is.

    Args:
        masks: `[S, h, w]` of 0 and 1, any real type or bool.
        size: as for `whole_film`.

    Returns:
        float32 `[S, H, W]` of 0 and 1.
    """
    label, size = torch.from_numpy(np.asarray(masks).astype(np.float32)), pair(size)
    if label.shape[1:] == size:
        return label
    return F.interpolate(label[None], size, mode="bilinear", antialias=True)[0].ge_(0.5)


class WholeFilmd(MapTransform):
    """Dictionary version of `whole_film` and `whole_masks`.

    Args:
        size: rows and columns in px, or one number for both.
        keys: image `[1, h, w]` and masks `[S, h, w]`; they become float32 `[1, H, W]` and `[S, H, W]`. A sample without
            masks is one to segment. The image's key alone for films without masks.
    """

    def __init__(self, size: int | Sequence[int], keys: KeysCollection = ("image", "label")) -> None:
        super().__init__(keys)
        self.size = pair(size)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        sample = dict(data)
        image_key, *mask_keys = self.keys
        sample[image_key] = whole_film(sample[image_key], self.size)
        for key in mask_keys:
            if key in sample:
                sample[key] = whole_masks(sample[key], self.size)
        return sample
