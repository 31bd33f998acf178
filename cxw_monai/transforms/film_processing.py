"""What films of people have and rendered ones lack, drawn at random: a vendor's processing, air above the shoulders."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from torch import Tensor
from torch.nn import functional as F

from .whole_film import unit_float

__all__ = ["RandRangeCompressiond", "RandShoulderAird", "compress_range", "corner_air"]

_MARGIN = 0.04  # of the film's width, that stays between the air and the structures


def compress_range(image: Tensor, cells: int, shading: float, detail: float, grey: float) -> Tensor:
    """Weakens a film's slow shading and strengthens its detail.

    Raw line integrals span far more than a screen shows, so vendors compress the shading and lift the detail: lungs
    turn grey, and ribs and vessels stand out. Source: unsharp-mask dynamic range compression, Vuylsteke and Schoeters,
    SPIE 2167 (1994) do it at several scales.

    Args:
        image: floating `[C, H, W]` in [0, 1].
        cells: cells across the film that hold the shading; the more, the less is detail. At least 2.
        shading: gain of the shading around `grey`, at least 0; 1 leaves it.
        detail: gain of the rest, at least 0; 1 leaves it.
        grey: the grey that the shading is compressed towards, in [0, 1].

    Returns:
        `[C, H, W]` in [0, 1]; `image` itself for gains of 1.
    """
    small = F.interpolate(image[None], size=(cells, cells), mode="bilinear", antialias=True)
    slow = F.interpolate(small, size=image.shape[1:], mode="bicubic", align_corners=False)[0]
    return (grey + shading * (slow - grey) + detail * (image - slow)).clamp(0, 1)


class RandRangeCompressiond(RandomizableTransform, MapTransform):
    """Dynamic range compression of random strength.

    Args:
        keys: image `[1, H, W]` (uint8, uint16, or floating in [0, 1]); becomes float32 in [0, 1].
        cells, shading, detail, grey: ranges for :func:`compress_range`, least and largest.
        prob: how often.

    Raises:
        ValueError: for a range that is out of place.
    """

    def __init__(
        self,
        keys: KeysCollection = ("image",),
        cells: Sequence[int] = (5, 14),
        shading: Sequence[float] = (0.3, 1.0),
        detail: Sequence[float] = (1.0, 2.5),
        grey: Sequence[float] = (0.4, 0.6),
        prob: float = 0.8,
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        self.ranges = {"cells": cells, "shading": shading, "detail": detail, "grey": grey}
        for name, (least, largest) in self.ranges.items():
            lowest, highest = (2, float("inf")) if name == "cells" else (0, 1 if name == "grey" else float("inf"))
            if not lowest <= least <= largest <= highest:
                raise ValueError(f"{name} must be a range within [{lowest}, {highest}], got {[least, largest]}.")
        self._drawn: dict[str, float] = {}

    def randomize(self, data: Any = None) -> None:
        super().randomize(None)
        self._drawn = {name: self.R.uniform(limits[0], limits[1]) for name, limits in self.ranges.items()}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        sample = dict(data)
        self.randomize()
        cells, shading, detail, grey = self._drawn.values()
        for key in self.key_iterator(sample):
            image = unit_float(sample[key])
            sample[key] = compress_range(image, round(cells), shading, detail, grey) if self._do_transform else image
        return sample


def corner_air(size: Sequence[int], width: float, height: float, power: float, left: bool) -> Tensor:
    """Where an upper corner of a film is air: under a superellipse around the corner.

    Args:
        size: rows and columns of the film.
        width, height: reach along the upper edge and down the side, in shares of the film; above 0.
        power: shape of the shoulder: 1 is straight, 2 an ellipse that falls steeply at the side, below 1 hollow.
        left: the film's left corner, or its right.

    Returns:
        Bool `[rows, columns]`.
    """
    rows, columns = size
    down = (torch.arange(rows) + 0.5) / rows / height
    across = (torch.arange(columns) + 0.5) / columns / width
    inside = down[:, None] ** power + across**power < 1
    return inside if left else inside.flip(1)


class RandShoulderAird(RandomizableTransform, MapTransform):
    """Air above the shoulders. Chest CTs are taken with raised arms, so that films rendered from them have none.

    Args:
        keys: image float32 `[1, H, W]` in [0, 1], and masks `[S, H, W]` whose surroundings stay as they are.
        width, height, power: ranges for :func:`corner_air`, drawn for each corner.
        prob: how often a corner gets air.

    Raises:
        ValueError: for a range that isn't positive and ascending.
    """

    def __init__(
        self,
        keys: KeysCollection = ("image", "label"),
        width: Sequence[float] = (0.15, 0.5),
        height: Sequence[float] = (0.08, 0.45),
        power: Sequence[float] = (0.7, 2.0),
        prob: float = 0.5,
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, 1.0)
        self.ranges, self.corner_prob = {"width": width, "height": height, "power": power}, prob
        for name, (least, largest) in self.ranges.items():
            if not 0 < least <= largest:
                raise ValueError(f"{name} must be a range above 0, got {[least, largest]}.")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        sample = dict(data)
        image_key, label_key = self.keys
        image = unit_float(sample[image_key])
        reach = 2 * max(1, round(_MARGIN * image.shape[2])) + 1
        near = torch.as_tensor(sample[label_key]).amax(dim=0, keepdim=True).float()
        near = F.max_pool2d(near[None], reach, stride=1, padding=reach // 2)[0] > 0  # [1, H, W]
        for left in (True, False):
            drawn = {name: self.R.uniform(limits[0], limits[1]) for name, limits in self.ranges.items()}
            grey, there = self.R.uniform(0.0, 0.1), self.R.random() < self.corner_prob
            if there:
                image[corner_air(image.shape[1:], left=left, **drawn) & ~near] = grey
        sample[image_key] = image
        return sample
