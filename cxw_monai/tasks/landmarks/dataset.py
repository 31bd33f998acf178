"""Radiographs with their landmarks, decoded once, for a seeded transform."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from cxw_monai.data.cache import RadiographCache
from cxw_monai.data.dataset import SeededDataset
from cxw_monai.data.schema import LANDMARK, SLACK, stored_spacing
from cxw_monai.io.pixel_map import PixelMap
from cxw_monai.tasks.films import ManifestFilms

__all__ = ["LandmarkDataset", "LandmarkFilms"]

Item = dict[str, Any]


class LandmarkFilms(ManifestFilms):
    """Cached radiographs with landmarks.

    Args:
        cache: films whose items have `points`; None for no films.
        points: P names, in the order of the items' points.

    Raises:
        ValueError: a landmark that isn't on its film, or a pixel spacing that is none.
    """

    def __init__(self, cache: RadiographCache | None, points: Sequence[str]) -> None:
        super().__init__(cache)
        self.points = tuple(points)
        for index, item in enumerate(self.items):
            stored_spacing(item)
            self._check(index, item)

    def _check(self, index: int, item: Item) -> None:
        height, width = self._map(index).source_shape
        for name, pair in zip(self.points, item["points"], strict=True):
            if pair is None:
                continue
            x, y = pair
            if not (-SLACK <= x <= width - 1 + SLACK and -SLACK <= y <= height - 1 + SLACK):
                raise ValueError(
                    f"{item['image']}: {LANDMARK}{name} [{x:g}, {y:g}] lies outside of the film's {width} x {height} "
                    "px. Correct it, or leave the cell empty where the landmark isn't on the film."
                )

    def _map(self, index: int) -> PixelMap:
        """From the stored film to the cached one."""
        return PixelMap.from_dict(self._stored.meta[index]["pixel_map"])

    def known(self, index: int) -> np.ndarray:
        """Which landmarks were annotated on a film: bool `[P]`."""
        return np.array([pair is not None for pair in self.items[index]["points"]], dtype=bool)

    def stored_points(self, index: int) -> np.ndarray:
        """Landmarks of a film, float64 `[P, 2]`: row and column in continuous px of the stored film (the first pixel
        covers 0 to 1); NaN where unknown."""
        pairs = [(np.nan, np.nan) if pair is None else (pair[1], pair[0]) for pair in self.items[index]["points"]]
        return np.array(pairs, dtype=np.float64).reshape(len(self.points), 2) + 0.5

    def shares(self, index: int) -> np.ndarray:
        """Landmarks of a film, float64 `[P, 2]`: x and y as shares of the cached film's width and height (0 and 1 are
        its outer edges); NaN where unknown."""
        pixel_map = self._map(index)
        return (pixel_map.from_source(self.stored_points(index)) / np.array(pixel_map.shape))[:, ::-1]

    def label(self, index: int) -> np.ndarray:
        """Landmarks of a film, float32 `[P, 2]`: row and column in continuous px of the cached film, 0 if unknown."""
        pixels = self.shares(index)[:, ::-1] * np.array(self._map(index).shape)
        return np.nan_to_num(pixels).astype(np.float32)

    def to_stored(self, index: int, shares: np.ndarray) -> np.ndarray:
        """Points `[P, 2]` (x, y as shares of the film's width and height) as `stored_points` has them."""
        pixel_map = self._map(index)
        return pixel_map.to_source(shares[:, ::-1] * np.array(pixel_map.shape))

    def stored_shape(self, index: int) -> tuple[int, int]:
        """Rows and columns of the stored film."""
        return self._map(index).source_shape

    def spacing_mm(self, index: int) -> tuple[float, float] | None:
        """Row and column spacing of the stored film: the manifest's, else the file's own; None where neither has it."""
        if (spacing := stored_spacing(self.items[index])) is not None:
            return spacing
        cached, pixel_map = self._stored.meta[index]["spacing_mm"], self._map(index)
        if cached is None:
            return None
        corners = pixel_map.to_source(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
        down, across = np.abs(corners[1:] - corners[0])  # stored px of a step down, and of one across
        per_px = np.array([cached[0], cached[1]]) / np.array([down.max(), across.max()])
        turned = down.argmax() == 1  # a step down the cached film is one across the stored
        return (float(per_px[1]), float(per_px[0])) if turned else (float(per_px[0]), float(per_px[1]))


class LandmarkDataset(SeededDataset):
    """Films and landmarks through a transform, seeded per (epoch, film).

    Args:
        films: the films.
        transform: takes `image` (uint8 or uint16 `[1, h, w]`), `points` (float32 `[P, 2]`, row and column in continuous
            px), `known` (bool `[P]`) and `index`, and returns a dictionary with at least these, `image` as a float
            tensor and `points` in px of it; seeded as `SeededDataset` says.
        seed: the run's seed, 0 or more.

    Raises:
        ValueError: `seed` is negative.
    """

    KEYS = ("image", "points", "known", "index")
    BIT_GENERATOR = np.random.MT19937

    def __init__(self, films: LandmarkFilms, transform: Callable[[Item], Item], seed: int = 0) -> None:
        super().__init__(transform, seed)
        self.films = films

    def __len__(self) -> int:
        return len(self.films)

    def item(self, index: int) -> Item:
        """One film with its landmarks."""
        points, known = (torch.from_numpy(one(index)) for one in (self.films.label, self.films.known))
        return {"image": self.films.image(index), "points": points, "known": known, "index": index}

    def __getitem__(self, key: tuple[int, int] | int) -> Item:
        """`KEYS` of the transformed film of `(epoch, index)`; a bare index means epoch 0.

        Raises:
            IndexError: no such film.
        """
        sample = super().__getitem__(key)
        return {name: sample[name] for name in self.KEYS}
