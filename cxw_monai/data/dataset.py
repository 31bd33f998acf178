"""A data set whose random numbers are a pure function of (seed, epoch, item), and the sampler of its keys.

They depend neither on the number of loader workers nor on what was drawn before: a run that is resumed in the middle of
an epoch draws exactly what the uninterrupted run would have drawn.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from monai.transforms import Randomizable
from torch.utils.data import Dataset, Sampler

__all__ = ["EpochSampler", "SeededDataset", "source_mix"]

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


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields the ``(epoch, index)`` keys of one rank's share of an epoch.

    The order is a pure function of (seed, epoch). Every rank gets equally many keys and no two ranks share one, except
    for the padding: with ``drop_last`` up to ``world_size - 1`` images are left out (others in each epoch when
    shuffled), without it as many keys are given twice.

    ``len()`` is the full share of an epoch whatever ``start`` is, so that an engine's epoch length doesn't change when
    a run is resumed. ``set_epoch`` has to be called before each epoch.

    Args:
        length: number of images.
        seed: the run's seed, 0 or more.
        shuffle: permute the images in every epoch; else take them in order.
        rank: this process, in 0..world_size-1.
        world_size: number of processes.
        drop_last: leave the remainder out (training) rather than pad it (every image is seen).
        mix: numbers of the images that an epoch takes from each group, in the place of every image once; see
            :func:`source_mix`.

    Raises:
        ValueError: an argument is out of its range, or fewer images than processes are left.
    """

    def __init__(
        self,
        length: int,
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = True,
        mix: Sequence[tuple[np.ndarray, int]] | None = None,
    ) -> None:
        length = sum(count for _, count in mix) if mix else length
        if seed < 0:
            raise ValueError(f"seed must be 0 or more, got {seed}")
        if world_size < 1 or not 0 <= rank < world_size:
            raise ValueError(f"rank must lie in 0..world_size-1, got rank={rank}, world_size={world_size}")
        if length < (world_size if drop_last else 1):
            raise ValueError(f"{length} images for {world_size} processes; give more images or use fewer processes")
        self.length = length
        self.seed = seed
        self.shuffle = shuffle
        self.rank = rank
        self.world_size = world_size
        self.drop_last = drop_last
        self.mix = mix
        self.epoch = 0
        self.start = 0

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the epoch to iterate over next.

        Args:
            epoch: 0 or more.
            start: how many keys of this rank were already used in it (a resumed run), in 0..len(self).

        Raises:
            ValueError: an argument is out of its range.
        """
        if epoch < 0:
            raise ValueError(f"epoch must be 0 or more, got {epoch}")
        if not 0 <= start <= len(self):
            raise ValueError(f"start must lie in 0..{len(self)}, got {start}")
        self.epoch = epoch
        self.start = start

    def __len__(self) -> int:
        return self.length // self.world_size if self.drop_last else -(-self.length // self.world_size)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        keys = (
            self._mixed_keys() if self.mix else np.array([np.full(self.length, self.epoch), np.arange(self.length)]).T
        )
        if self.shuffle:
            keys = keys[np.random.default_rng([self.seed, self.epoch]).permutation(self.length)]
        total = len(self) * self.world_size
        share = keys[np.resize(np.arange(self.length), total)]  # cut, or repeated from its beginning
        return iter([(int(epoch), int(index)) for epoch, index in share[self.rank :: self.world_size][self.start :]])

    def _mixed_keys(self) -> np.ndarray:
        """This epoch's part of each group's endless row of passes, each pass in an order of its own: `[length, 2]`.

        The pass stands in the place of the epoch: an image that comes twice in an epoch then comes as two samples.
        """
        parts = []
        for number, (members, count) in enumerate(self.mix or ()):
            passes, places = np.divmod(np.arange(self.epoch * count, (self.epoch + 1) * count), len(members))
            for one in np.unique(passes):
                order = np.random.default_rng([self.seed, number, int(one)]).permutation(members)
                indices = order[places[passes == one]]
                parts.append(np.array([np.full(len(indices), one), indices]).T)
        return np.concatenate(parts)


def source_mix(
    sources: Sequence[str], shares: Mapping[str, float], epoch_images: int | None = None
) -> list[tuple[np.ndarray, int]]:
    """What an epoch takes from each source, for :class:`EpochSampler`.

    A source of few images is repeated and one of many is taken in parts, epoch after epoch; within a source every image
    comes equally often.

    Args:
        sources: the source of each image.
        shares: each source's share of an epoch, above 0; they are divided by their sum.
        epoch_images: images of an epoch; by default as many as there are.

    Returns:
        For each source the numbers of its images, and how many of them an epoch takes (at least one).

    Raises:
        ValueError: a source without a share, a share without a source or not above 0, or too few images an epoch.
    """
    found = sorted(set(sources))
    if set(found) != set(shares):
        raise ValueError(f"source_shares must name each source of the films: {found}, got {sorted(shares)}.")
    if min(shares.values()) <= 0:
        raise ValueError(f"source_shares must be above 0, got {dict(shares)}: leave a source out of the manifest.")
    total = len(sources) if epoch_images is None else epoch_images
    if total < len(found):
        raise ValueError(f"epoch_films must be at least the number of sources, {len(found)}, got {total}.")
    named, whole = np.asarray(sources), sum(shares.values())
    return [(np.flatnonzero(named == name), max(1, round(total * shares[name] / whole))) for name in found]
