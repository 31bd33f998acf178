"""Radiographs with their labels, decoded once, for a seeded transform; or encoded once, for a frozen encoder."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from cxw_monai.data.dataset import SeededDataset
from cxw_monai.data.store import RadiographCache
from cxw_monai.metrics.subgroups import age_band
from cxw_monai.tasks.films import ManifestFilms

__all__ = ["ClassificationDataset", "EncodedDataset", "LabelledFilms"]

Item = dict[str, Any]


class LabelledFilms(ManifestFilms):
    """Cached radiographs with labels.

    Args:
        cache: films whose items have `labels`; None for no films.
        classes: L names, in the order of the labels.
        target: `multi_label` or `multi_class`.
    """

    def __init__(self, cache: RadiographCache | None, classes: Sequence[str], target: str = "multi_label") -> None:
        super().__init__(cache)
        self.classes, self.target = tuple(classes), target

    def label(self, index: int) -> Tensor:
        """float32 `[L]` of 1, 0 and NaN (unknown); of a `multi_class` target the class's number, int64 of no axis."""
        labels = self.items[index]["labels"]
        if self.target == "multi_class":
            return torch.tensor(labels.index(1.0))
        return torch.tensor([math.nan if value is None else value for value in labels], dtype=torch.float32)

    def labels(self) -> np.ndarray:
        """float64 `[N, L]` of 1, 0 and NaN (unknown)."""
        rows = [[math.nan if value is None else value for value in item["labels"]] for item in self.items]
        return np.array(rows, dtype=np.float64).reshape(len(self), len(self.classes))

    def variables(self, indices: Sequence[int]) -> dict[str, list[str | None]]:
        """Sex, age band, view and source of films, as far as the manifest knows one of them; None where unknown."""
        items = [self.items[index] for index in indices]
        found: dict[str, list[str | None]] = {
            name: [str(item[name]) if item.get(name) not in (None, "") else None for item in items]
            for name in ("sex", "view", "source")
        }
        ages = [item.get("age") for item in items]
        found["age"] = [age_band(None if age in (None, "") else float(age)) for age in ages]
        return {name: values for name, values in found.items() if any(value is not None for value in values)}


class ClassificationDataset(SeededDataset):
    """Films and labels through a transform, seeded per (epoch, film).

    Args:
        films: the films.
        transform: takes `image` (uint8 or uint16 `[1, h, w]`) and `index` and returns a dictionary with `image` as a
            float tensor `[1, H, W]`; seeded as `SeededDataset` says.
        seed: the run's seed, 0 or more.
    """

    KEYS = ("image", "label", "index")
    BIT_GENERATOR = np.random.MT19937

    def __init__(self, films: LabelledFilms, transform: Callable[[Item], Item], seed: int = 0) -> None:
        super().__init__(transform, seed)
        self.films = films

    def __len__(self) -> int:
        return len(self.films)

    def item(self, index: int) -> Item:
        """One film with its label."""
        return {"image": self.films.image(index), "label": self.films.label(index), "index": index}

    def __getitem__(self, key: tuple[int, int] | int) -> Item:
        """`KEYS` of the transformed film of `(epoch, index)`; a bare index means epoch 0.

        Raises:
            IndexError: no such film.
        """
        sample = super().__getitem__(key)
        return {name: sample[name] for name in self.KEYS}


class EncodedDataset(Dataset[Item]):
    """Films that a frozen encoder has seen, with their labels.

    Args:
        films: the films.
        tokens: float16 `[N, K, T, D]` of them.
    """

    def __init__(self, films: LabelledFilms, tokens: np.ndarray) -> None:
        self.films, self.encoded = films, tokens

    def __len__(self) -> int:
        return len(self.films)

    def __getitem__(self, key: tuple[int, int] | int) -> Item:
        """`tokens` (float32 `[K, T, D]`), `label` and `index` of a film, the same in every epoch.

        Raises:
            IndexError: no such film.
        """
        index = int(key[1] if isinstance(key, tuple) else key)
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is outside 0..{len(self) - 1}")
        tokens = torch.from_numpy(self.encoded[index].astype(np.float32))
        return {"tokens": tokens, "label": self.films.label(index), "index": index}
