"""Cached radiographs for the transform that makes world view pairs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cxw_monai.data.dataset import SeededDataset
from cxw_monai.data.store import RadiographCache

__all__ = ["ViewPairDataset"]


class ViewPairDataset(SeededDataset):
    """Applies a random transform to cached radiographs, seeded per (epoch, image).

    Args:
        cache: the radiographs.
        transform: takes ``{"image": array [1, H, W] (uint8 or uint16, read-only), "index": int}`` and returns a
            dictionary; seeded as :class:`~cxw_monai.data.dataset.SeededDataset` says.
        seed: the run's seed, 0 or more.

    Raises:
        ValueError: ``seed`` is negative.
    """

    def __init__(
        self, cache: RadiographCache, transform: Callable[[dict[str, Any]], dict[str, Any]], seed: int = 0
    ) -> None:
        super().__init__(transform, seed)
        self.cache = cache

    def __len__(self) -> int:
        return len(self.cache)

    def item(self, index: int) -> dict[str, Any]:
        """One radiograph."""
        return {"image": self.cache.image(index), "index": index}
