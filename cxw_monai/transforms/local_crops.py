"""Small crops of a radiograph, seen beside the two views of a world view pair.

Source: multi-crop of SwAV (arXiv 2006.09882) and DINO (arXiv 2104.14294): small crops cost few tokens, and are asked
for the same embedding as the whole.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from .perturb import ActionSampler
from .seeding import Reseedable
from .view_crops import crop_views
from .views import sample_crop_pair

__all__ = ["RandLocalCropsd"]


class RandLocalCropsd(Reseedable, MapTransform):
    """Adds small crops of a radiograph and the perturbations of each.

    Reads ``image`` ``[1, H, W]``, uint8, uint16 or floating in [0, 1], and leaves it there. Adds:

    - ``local_crops``: float32 ``[L, 1, h, w]`` in [0, 1], without any jitter;
    - ``local_actions``: float32 ``[L, 5]``, what :func:`cxw_monai.transforms.perturb.perturb` makes of each.

    Crops are drawn in pairs of one size, each anywhere in the film.

    Args:
        keys: the one key of the radiograph.
        count: number of crops L, even.
        size: rows and columns of a crop, px; one number for a square.
        scale: range of a crop's share of the film's area, within (0, 1].
        ratio: range of a crop's width over its height.
        sampler: distribution of the perturbations; None for the released recipe.

    Raises:
        ValueError: for a count that is odd or below 2, or a scale out of its range.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        count: int = 4,
        size: int | Sequence[int] = 80,
        scale: Sequence[float] = (0.1, 0.4),
        ratio: Sequence[float] = (0.75, 4 / 3),
        sampler: ActionSampler | None = None,
    ) -> None:
        MapTransform.__init__(self, keys)
        if count < 2 or count % 2:
            raise ValueError(f"count must be an even number of crops from 2, got {count}.")
        if not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError(f"scale must be (low, high) with 0 < low <= high <= 1, got {tuple(scale)}.")
        self.count = count
        self.size = (size, size) if isinstance(size, int) else cast("tuple[int, int]", tuple(size))
        self.scale, self.ratio = cast("tuple[float, float]", tuple(scale)), cast("tuple[float, float]", tuple(ratio))
        self.sampler = ActionSampler() if sampler is None else sampler

    def randomize(self, data: tuple[int, int]) -> None:
        """Draws crops and perturbations for an image of ``data = (H, W)`` px."""
        self._pairs = [sample_crop_pair(self.R, *data, self.scale, self.ratio) for _ in range(self.count // 2)]
        self._actions = np.stack([self.sampler(self.R) for _ in range(self.count)])

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        sample = dict(data)
        for key in self.key_iterator(sample):
            image = np.asarray(sample[key])
            self.randomize(image.shape[1:])
            crops = [view for boxes in self._pairs for view in crop_views(image, boxes, self.size)]
            sample["local_crops"] = torch.stack(crops)
            sample["local_actions"] = torch.from_numpy(self._actions)
        return sample
