"""A small network that says how much a picture looks like an upright frontal chest radiograph.

It sees a thumbnail and gives one number, the log odds against "no frontal chest film in any position". All 16 ways to
turn, mirror and invert a film are scored with it; a softmax over the 16 and "none of them" says which was most likely
done, or that there is none that makes a frontal chest of it. Four convolutions of stride 2 and a linear map, in NumPy,
since films are judged in forked processes. Numbers, thresholds and how they were measured:
:mod:`benchmarks.quality.calibrate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image
from scipy.special import logsumexp

__all__ = ["SIDE", "FilmModel", "FilmScores", "averaged", "default_model", "thumbnail", "turned", "way"]

SIDE = 48
"""Rows and columns of the thumbnail that a film is averaged to."""

_FILE = Path(__file__).with_name("film_model.npz")


def averaged(image: np.ndarray, side: int) -> np.ndarray:
    """A film ``[H, W]`` averaged to float64 ``[side, side]``."""
    film = Image.fromarray(np.ascontiguousarray(image, dtype=np.float32))
    return np.asarray(film.resize((side, side), Image.Resampling.BOX), dtype=np.float64)


def thumbnail(image: np.ndarray) -> np.ndarray:
    """A film without its borders, averaged to 48 x 48 and standardised.

    Args:
        image: ``[H, W]`` in [0, 1], without borders; stretched to a square.

    Returns:
        float32 ``[48, 48]`` of mean 0 and deviation 1 (0 for a constant film); an inverted film gives the negative.
    """
    values = averaged(image, SIDE)
    return ((values - values.mean()) / (values.std() + 1e-3)).astype(np.float32)


def way(index: int) -> tuple[bool, bool, int]:
    """``(invert, mirror, quarter turns)`` of one of the 16 ways, in the order of :func:`turned`.

    A film is inverted, then mirrored left to right, then turned by so many quarters counter-clockwise.
    """
    return index >= 8, index % 8 >= 4, index % 4


def turned(values: np.ndarray) -> np.ndarray:
    """Thumbnails of a film treated in each of the 16 ways.

    Args:
        values: ``[..., n, n]`` from :func:`thumbnail`.

    Returns:
        ``[16, ..., n, n]``; the first is the film as it is.
    """
    ways = []
    for index in range(16):
        invert, mirror, quarters = way(index)
        treated = -values if invert else values
        treated = treated[..., ::-1] if mirror else treated
        ways.append(np.rot90(treated, quarters, axes=(-2, -1)))
    return np.stack(ways)


@dataclass(frozen=True)
class FilmScores:
    """What the model says of a film.

    Attributes:
        inverted: log odds that the polarity is inverted.
        rotated: log odds that the film lies on a side or stands on its head.
        mirrored: log odds that it is mirrored, given the likeliest polarity and turn.
        unlike: log odds that it is no frontal chest film in any of the 16 ways.
        invert: the likeliest polarity needs inverting.
        quarters: quarter turns counter-clockwise that would most likely put it right, were it not mirrored.
    """

    inverted: float
    rotated: float
    mirrored: float
    unlike: float
    invert: bool
    quarters: int

    def treatment(self, mirror: bool) -> tuple[bool, bool, int]:
        """``(invert, mirror, quarter turns)`` as in :func:`way` that would put the film right.

        Args:
            mirror: whether it is taken to be mirrored. Mirroring reverses the sense of a turn.
        """
        return self.invert, mirror, -self.quarters % 4 if mirror else self.quarters


Layer = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class FilmModel:
    """Weights and thresholds.

    Attributes:
        layers: weights ``[C_out, C_in, k, k]`` (k odd) and biases ``[C_out]`` of convolutions of stride 2, a rectifier
            after each.
        weights: ``[C, n, n]``, of the linear map of what they give.
        bias: of the linear map.
        thresholds: a film is flagged where a score of that name (:class:`FilmScores`) lies above.
    """

    layers: Sequence[Layer]
    weights: np.ndarray
    bias: float
    thresholds: dict[str, float]

    def logits(self, values: np.ndarray) -> np.ndarray:
        """How much thumbnails ``[N, n, n]`` look like an upright frontal chest film: log odds ``[N]``."""
        maps = values[:, None]  # [N, 1, n, n]
        for weights, bias in self.layers:
            maps = np.maximum(_convolved(maps, weights) + bias[:, None, None], 0)  # [N, C, n / 2, n / 2]
        return np.tensordot(maps, self.weights, axes=3).astype(np.float64) + self.bias

    def scores(self, values: np.ndarray) -> FilmScores:
        """Judge one film by its thumbnail ``[n, n]``."""
        logits = self.logits(turned(values))  # [16]
        invert, mirror, quarters = way(int(logits.argmax()))
        straight = -quarters % 4 if mirror else quarters  # mirroring reverses the sense of a turn
        pair = 8 * invert + straight, 8 * invert + 4 + (-straight % 4)
        upright = [index for index in range(16) if way(index)[2] == 0]
        other = [index for index in range(16) if way(index)[2] != 0]
        return FilmScores(
            inverted=float(logsumexp(logits[8:]) - logsumexp(logits[:8])),
            rotated=float(logsumexp(logits[other]) - logsumexp(logits[upright])),
            mirrored=float(logits[pair[1]] - logits[pair[0]]),
            unlike=float(-logsumexp(logits)),
            invert=invert,
            quarters=straight,
        )

    @classmethod
    def load(cls, path: str | PathLike[str]) -> FilmModel:
        """Read the npz that `benchmarks.quality.calibrate` writes."""
        with np.load(path, allow_pickle=False) as file:
            count = sum(name.startswith("weights") for name in file.files) - 1
            numbers = {name: file[name].astype(np.float32) for name in file.files if name != "names"}
            limits = dict(zip(file["names"].tolist(), file["limits"].tolist(), strict=True))
        layers = [(numbers[f"weights{i}"], numbers[f"bias{i}"]) for i in range(count)]
        return cls(layers, numbers["weights"], float(numbers["bias"]), limits)


def _convolved(maps: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Convolution of stride 2 with zeros around: ``[N, C, n, n]`` to ``[N, C_out, n / 2, n / 2]``."""
    size = weights.shape[-1]
    padded = np.pad(maps, ((0, 0), (0, 0), (size // 2,) * 2, (size // 2,) * 2))
    windows = sliding_window_view(padded, (size, size), axis=(2, 3))[:, :, ::2, ::2]  # [N, C, n / 2, n / 2, k, k]
    return np.moveaxis(np.tensordot(windows, weights, axes=((1, 4, 5), (1, 2, 3))), -1, 1)


@cache
def default_model() -> FilmModel:
    """The model inside the package."""
    return FilmModel.load(_FILE)
