"""A small linear model of what an upright frontal chest radiograph looks like.

It tells polarity, orientation, side and "no frontal chest at all" from a thumbnail. One set of weights scores how much
a film looks as it should; all 16 ways to turn, mirror and invert a film are scored with it, and a softmax over the 16
says which was most likely done (a conditional logit). What remains of the film after projection on the first principal
components of calibration films tells how unlike a chest it is. Numbers, thresholds and how they were measured:
:mod:`cxw_monai.quality.calibrate`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from os import PathLike
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.special import logsumexp

__all__ = ["CELLS", "FilmModel", "FilmScores", "default_model", "features", "turned", "way"]

CELLS = 16
"""Rows and columns of cells that a film is averaged to."""
_PIXELS = 8  # a cell's rows and columns of the thumbnail

_FILE = Path(__file__).with_name("film_model.npz")


def features(image: np.ndarray) -> np.ndarray:
    """Standardised brightness and roughness of a film in 16x16 cells.

    Args:
        image: ``[H, W]`` in [0, 1], without borders; stretched to a square.

    Returns:
        float32 ``[2, 16, 16]``, each of mean 0 and deviation 1: the brightness of the cells (its sign follows the
        film's polarity) and the logarithm of the deviation within them (which doesn't).
    """
    side = CELLS * _PIXELS
    shrunk = Image.fromarray(np.ascontiguousarray(image, dtype=np.float32)).resize((side, side), Image.Resampling.BOX)
    film = np.asarray(shrunk, dtype=np.float64)
    film = (film - film.mean()) / (film.std() + 1e-3)
    cells = film.reshape(CELLS, _PIXELS, CELLS, _PIXELS)
    bright = np.clip(cells, -2.5, 2.5).mean(axis=(1, 3))
    rough = np.log(cells.std(axis=(1, 3)) + 0.02)
    both = np.stack([bright, rough])  # [2, 16, 16]
    both -= both.mean(axis=(1, 2), keepdims=True)
    return (both / (both.std(axis=(1, 2), keepdims=True) + 1e-3)).astype(np.float32)


def way(index: int) -> tuple[bool, bool, int]:
    """``(invert, mirror, quarter turns)`` of one of the 16 ways, in the order of :func:`turned`.

    A film is inverted, then mirrored left to right, then turned by so many quarters counter-clockwise.
    """
    return index >= 8, index % 8 >= 4, index % 4


def turned(values: np.ndarray) -> np.ndarray:
    """Features of a film treated in each of the 16 ways.

    Args:
        values: ``[..., 2, n, n]`` from :func:`features`.

    Returns:
        ``[16, ..., 2, n, n]``; the first is the film as it is.
    """
    sign = np.array([-1, 1], dtype=values.dtype)[:, None, None]
    ways = []
    for index in range(16):
        invert, mirror, quarters = way(index)
        treated = values * sign if invert else values
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
        unlike: share of its features, in [0, 1], that calibration films don't explain.
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


@dataclass(frozen=True)
class FilmModel:
    """Weights and thresholds.

    Attributes:
        weights: ``[2, 16, 16]``, scores a film's features.
        mean: ``[2, 16, 16]``, mean features of calibration films.
        components: ``[K, 2, 16, 16]``, orthonormal principal components.
        thresholds: a film is flagged where a score of that name (:class:`FilmScores`) lies above.
    """

    weights: np.ndarray
    mean: np.ndarray
    components: np.ndarray
    thresholds: dict[str, float]

    def scores(self, values: np.ndarray) -> FilmScores:
        """Judge one film by its features ``[2, 16, 16]``."""
        ways = turned(values)
        logits = np.tensordot(ways, self.weights, axes=3).astype(np.float64)  # [16]
        best = int(logits.argmax())
        invert, mirror, quarters = way(best)
        straight = -quarters % 4 if mirror else quarters  # mirroring reverses the sense of a turn
        pair = 8 * invert + straight, 8 * invert + 4 + (-straight % 4)
        upright = [index for index in range(16) if way(index)[2] == 0]
        other = [index for index in range(16) if way(index)[2] != 0]
        return FilmScores(
            inverted=float(logsumexp(logits[8:]) - logsumexp(logits[:8])),
            rotated=float(logsumexp(logits[other]) - logsumexp(logits[upright])),
            mirrored=float(logits[pair[1]] - logits[pair[0]]),
            unlike=self.unexplained(ways[best]),
            invert=invert,
            quarters=straight,
        )

    def unexplained(self, values: np.ndarray) -> float:
        """Share of the features' power about the mean that the components leave over."""
        centred = (values - self.mean).ravel().astype(np.float64)
        explained = self.components.reshape(len(self.components), -1) @ centred
        left = centred @ centred - explained @ explained
        return float(left / (values.ravel() @ values.ravel()))

    def save(self, path: str | PathLike[str]) -> None:
        """Write an npz of half-precision numbers."""
        np.savez_compressed(
            path,
            weights=self.weights.astype(np.float16),
            mean=self.mean.astype(np.float16),
            components=self.components.astype(np.float16),
            names=np.array(list(self.thresholds)),
            limits=np.array(list(self.thresholds.values())),
        )

    @classmethod
    def load(cls, path: str | PathLike[str]) -> FilmModel:
        """Read what :meth:`save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            return cls(
                *(file[name].astype(np.float32) for name in ("weights", "mean", "components")),
                dict(zip(file["names"].tolist(), file["limits"].tolist(), strict=True)),
            )


@cache
def default_model() -> FilmModel:
    """The model inside the package."""
    return FilmModel.load(_FILE)
