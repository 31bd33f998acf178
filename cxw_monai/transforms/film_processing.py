"""What a vendor's processing does to a film, drawn at random: dynamic range compression."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from torch import Tensor
from torch.nn import functional as F

from .warp import unit_float

__all__ = ["RandRangeCompressiond", "compress_range"]


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
        self._drawn = {name: self.R.uniform(*limits) for name, limits in self.ranges.items()}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        sample = dict(data)
        self.randomize()
        cells, shading, detail, grey = self._drawn.values()
        for key in self.key_iterator(sample):
            image = unit_float(sample[key])
            sample[key] = compress_range(image, round(cells), shading, detail, grey) if self._do_transform else image
        return sample
