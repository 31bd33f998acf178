"""Random numbers of every sample: states that are set anew, and numbers in a range."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from monai.transforms import Randomizable

__all__ = ["Reseedable", "between"]


def between(bounds: Sequence[float], share: float) -> float:
    """The number at a share in [0, 1] of the way from the low to the high bound."""
    return bounds[0] + share * (bounds[1] - bounds[0])


class Reseedable(Randomizable):
    """A ``Randomizable`` for which a new seed is cheap: it seeds the generator that it has instead of making another.

    Making a ``RandomState`` takes fifty times as long as seeding it, and a loader that draws as a function of the
    sample does it for every transform of every sample. The numbers are those of MONAI's ``set_random_state``.
    """

    _own: np.random.RandomState | None = None

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> Any:
        """As MONAI's: a whole number, or a state that is used as it is, or neither for an unforeseeable one.

        Args:
            seed: 0 or more. The generator that an earlier seed made is seeded again, and not replaced.
            state: takes part only without a seed.
        """
        if self._own is None or not isinstance(seed, (int, np.integer)):
            super().set_random_state(seed, state)
            self._own = self.R if seed is not None else self._own
            return self
        self._own.seed(int(seed) % 2**32)
        self.R = self._own
        return self
