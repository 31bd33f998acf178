"""Whole radiographs at a network's size."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import Dataset

from cxw_monai.data.cache import RadiographCache

__all__ = ["RadiographDataset"]


class RadiographDataset(Dataset):
    """Cached radiographs, each resized whole to one size.

    The film is stretched to the size (no crop, no padding): nothing of it is lost, and the world model has seen
    aspect ratios from 3:4 to 4:3 in training.

    Args:
        cache: the radiographs.
        size: height and width in px, or one number for both.
    """

    def __init__(self, cache: RadiographCache, size: int | tuple[int, int]) -> None:
        self.cache = cache
        self.size = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))

    def __len__(self) -> int:
        return len(self.cache)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """`image`: float32 `[1, H, W]` in [0, 1], bone bright; `index`: its place in the cache."""
        pixels = self.cache.image(index)
        image = torch.from_numpy(pixels.astype(np.float32) / np.iinfo(pixels.dtype).max)
        if image.shape[1:] != self.size:
            image = F.interpolate(image[None], self.size, mode="bicubic", antialias=True)[0].clamp(0, 1)
        return {"image": image, "index": index}
