"""Samplers that give the keys of :class:`cxw_monai.data.dataset.SeededDataset`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

__all__ = ["EpochSampler"]

Key = tuple[int, int]


class EpochSampler(Sampler[Key]):
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
    ) -> None:
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

    def __iter__(self) -> Iterator[Key]:
        order = np.arange(self.length)
        if self.shuffle:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(self.length)
        total = len(self) * self.world_size
        share = np.resize(order, total)[self.rank :: self.world_size]  # cut, or repeated from its beginning
        epoch = self.epoch
        return iter([(epoch, int(index)) for index in share[self.start :]])
