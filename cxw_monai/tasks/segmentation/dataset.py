"""Radiographs with the masks of some structures, decoded once, for a seeded transform."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
import torch

from cxw_monai.data.cache import RadiographCache, build_cache
from cxw_monai.data.dataset import SeededDataset
from cxw_monai.data.mask_store import MaskStore, build_masks, packed_type
from cxw_monai.tasks.films import ManifestFilms

__all__ = ["AnnotatedFilms", "SegmentationDataset", "annotated_films"]

Item = dict[str, Any]


class AnnotatedFilms(ManifestFilms):
    """Cached radiographs with the masks of some structures.

    Images and masks are compared with their checksums when they are first used: that may raise a CacheError.

    Args:
        cache: the radiographs; None for no films.
        structures: names of the masks.
        masks: of these structures on these films.

    Attributes:
        structures: names of the S structures.
    """

    def __init__(
        self, cache: RadiographCache | None, structures: Sequence[str], masks: MaskStore | None = None
    ) -> None:
        super().__init__(cache)
        self.structures, self.masks = tuple(structures), masks

    @property
    def _masks(self) -> MaskStore:
        if self.masks is None:
            raise IndexError("there are no films")
        return self.masks

    def known(self, index: int) -> np.ndarray:
        """Which structures were annotated on a film: bool `[S]`."""
        return self._masks.known(index, self.structures)

    def label(self, index: int) -> np.ndarray:
        """Masks of a film: uint8 `[S, h, w]` of 0 and 1, 0 where the structure is unknown."""
        return self._masks.label(index, len(self.structures))

    def spacing_mm(self, index: int) -> tuple[float, float] | None:
        """Row and column spacing of the cached image; None where the file declares none."""
        spacing = self._stored.meta[index]["spacing_mm"]
        return None if spacing is None else (float(spacing[0]), float(spacing[1]))


def annotated_films(
    items: Sequence[Item],
    structures: Sequence[str],
    cache_dir: str | PathLike[str],
    size: int = 256,
    on_error: str = "raise",
    min_size: int = 16,
    report: str | PathLike[str] | None = None,
    workers: int = 0,
    progress: bool = True,
    reader: Mapping[str, Any] | None = None,
) -> AnnotatedFilms:
    """Decode films and masks once, or open what was decoded before.

    A mask's pixel at the cached size is 1 where at least half of its area is. Bad films are treated as `build_cache`
    treats them; a bad mask always stops with an error, for without it the film would teach something else.

    Args:
        items: films with `masks`, as `annotated_items` gives them.
        structures: names of the masks, in the order of the channels.
        cache_dir, size, on_error, min_size, report, workers, progress, reader: see `build_cache`.

    Returns:
        The films in the order of their paths; none for no items.

    Raises:
        RadiographError: a bad mask, or a bad film with `on_error="raise"`.
        CacheError: what `build_cache` or `build_masks` refuses.
        ValueError: no structures or more than 32, or what `build_cache` refuses.
    """
    packed_type(len(structures))  # refuses too many before a film is decoded
    if not items:
        return AnnotatedFilms(None, structures)
    cache = build_cache(items, cache_dir, size, on_error, min_size, report, workers, progress, reader=reader)
    return AnnotatedFilms(cache, structures, build_masks(cache, structures, workers, progress))


class SegmentationDataset(SeededDataset):
    """Films and masks through a transform, seeded per (epoch, film).

    Args:
        films: the films.
        transform: takes `image` (uint8 or uint16 `[1, h, w]`), `label` (uint8 `[S, h, w]`), `known` (bool `[S]`) and
            `index`, and returns a dictionary with at least these, `image` and `label` as float tensors of one size;
            seeded as `SeededDataset` says.
        seed: the run's seed, 0 or more.

    Raises:
        ValueError: `seed` is negative.
    """

    KEYS = ("image", "label", "known", "index")
    BIT_GENERATOR = np.random.MT19937

    def __init__(self, films: AnnotatedFilms, transform: Callable[[Item], Item], seed: int = 0) -> None:
        super().__init__(transform, seed)
        self.films = films

    def __len__(self) -> int:
        return len(self.films)

    def item(self, index: int) -> Item:
        """One film with its masks."""
        films = self.films
        known = torch.from_numpy(films.known(index))
        return {"image": films.image(index), "label": films.label(index), "known": known, "index": index}

    def __getitem__(self, key: tuple[int, int] | int) -> Item:
        """`KEYS` of the transformed film of `(epoch, index)`; a bare index means epoch 0.

        Raises:
            IndexError: no such film.
        """
        sample = super().__getitem__(key)
        return {name: sample[name] for name in self.KEYS}
