"""A data set whose random numbers are a pure function of (seed, epoch, item).

They depend neither on the number of loader workers nor on what was drawn before: a run that is resumed in the middle of
an epoch draws exactly what the uninterrupted run would have drawn. :class:`cxw_monai.data.samplers.EpochSampler` gives
the keys.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from monai.transforms import Randomizable
from torch.utils.data import Dataset

__all__ = ["SeededDataset"]

Item = dict[str, Any]


class SeededDataset(Dataset[Item]):
    """Applies a random transform to items, seeded per (epoch, item). Subclasses give the items.

    Args:
        transform: takes an item and returns a dictionary. A MONAI ``Randomizable`` (a ``Compose`` is one) is given its
            random state before every call; random numbers from anywhere else aren't reproducible.
        seed: the run's seed, 0 or more.

    Raises:
        ValueError: ``seed`` is negative.
    """

    BIT_GENERATOR: ClassVar[type[np.random.BitGenerator]] = np.random.PCG64  # quick to seed

    def __init__(self, transform: Callable[[Item], Item], seed: int = 0) -> None:
        if seed < 0:
            raise ValueError(f"seed must be 0 or more, got {seed}")
        self.transform = transform
        self.seed = seed
        self._local = threading.local()

    def __len__(self) -> int:
        raise NotImplementedError

    def item(self, index: int) -> Item:
        """What the transform is given, with ``index``."""
        raise NotImplementedError

    def __getitem__(self, key: tuple[int, int] | int) -> Item:
        """The transformed item of ``(epoch, index)``; a bare index means epoch 0.

        Raises:
            IndexError: no such item. (Indices from the end aren't offered: the random numbers depend on the index.)
        """
        epoch, index = (int(part) for part in (key if isinstance(key, tuple) else (0, key)))
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is outside 0..{len(self) - 1}")
        transform = self._own_transform()
        if isinstance(transform, Randomizable):
            sequence = np.random.SeedSequence([self.seed, epoch, index])
            transform.set_random_state(state=np.random.RandomState(self.BIT_GENERATOR(sequence)))
        return transform(self.item(index))

    def _own_transform(self) -> Callable[[Item], Item]:
        """This thread's copy of the transform: its random state must not be shared between threads."""
        if not hasattr(self._local, "transform"):
            self._local.transform = copy.deepcopy(self.transform)
        return self._local.transform

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_local"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._local = threading.local()
