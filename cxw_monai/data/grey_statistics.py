"""Mean and spread of the grey values of a data set, for the normalisation that a network holds."""

from __future__ import annotations

import math

import numpy as np

from .store import RadiographCache

__all__ = ["grey_statistics"]

_MOST_FILMS = 2000  # evenly spaced among all: the mean of their means is then good to a hundredth of its spread or so


def grey_statistics(cache: RadiographCache, most: int = _MOST_FILMS) -> tuple[float, float]:
    """Mean and standard deviation of all pixels, each film counting alike.

    Args:
        cache: decoded films.
        most: of how many films at most, evenly spaced in the order of their paths.

    Returns:
        Both of grey values in [0, 1].

    Raises:
        ValueError: all pixels are alike.
    """
    count = min(len(cache), most)
    moments = []
    for number in range(count):
        pixels = cache.image(number * len(cache) // count)
        values = np.asarray(pixels, dtype=np.float64) / np.iinfo(pixels.dtype).max
        moments.append((values.mean(), np.square(values).mean()))
    mean, square = np.mean(moments, axis=0)
    deviation = math.sqrt(max(square - mean**2, 0))
    if deviation == 0:
        raise ValueError(f"{cache.folder}: all pixels have the grey value {mean:.3f}; look at the films.")
    return float(mean), deviation
