"""Points that move with their film: stretched to a network's size, or warped in training."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .warp import RandFilmWarpd
from .whole_film import WholeFilmd

__all__ = ["RandPointWarpd", "WholePointsd"]

_STEPS = 20  # of the fixed-point iteration that inverts a distortion


class WholePointsd(WholeFilmd):
    """Dictionary version of `whole_film`, for a film with points.

    Args:
        size: rows and columns in px, or one number for both.
        keys: image `[1, h, w]`, and points `[P, 2]`, row and column in continuous px of it (the first pixel covers 0
            to 1); they become float32 `[1, H, W]` and `[P, 2]` in px of that. A sample without points is one to locate.
    """

    def __init__(self, size: int | Sequence[int], keys: Sequence[Hashable] = ("image", "points")) -> None:
        super().__init__(size, keys[:1])
        self.points_key = keys[1]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        before = np.shape(data[self.keys[0]])[1:]
        sample = super().__call__(data)
        if self.points_key in sample:
            scale = torch.tensor([new / old for new, old in zip(self.size, before, strict=True)])
            sample[self.points_key] = torch.as_tensor(sample[self.points_key], dtype=torch.float32) * scale
        return sample


class RandPointWarpd(RandFilmWarpd):
    """`RandFilmWarpd` of a film with points, which go where the film's pixels go.

    A point that comes to lie beyond the output is unknown there. On a mirrored film, points named left and right change
    places.

    Args:
        size: rows and columns of the output in px, or one number for both.
        points: names of the P points.
        keys: image `[1, h, w]`; points `[P, 2]`, row and column in continuous px of it; bool `[P]`, which are known.
            They become float32 `[1, H, W]`, float32 `[P, 2]` in px of that, and bool `[P]`.
        warp: further arguments of `RandFilmWarpd`.

    Raises:
        ValueError: a setting out of its range, or flips of a point without the other side's.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        points: Sequence[str],
        keys: Sequence[Hashable] = ("image", "points", "known"),
        **warp: Any,
    ) -> None:
        super().__init__(size, points, keys=keys[:1], **warp)
        self.points_key, self.known_key = keys[1:]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        height, width = np.shape(data[self.keys[0]])[1:]
        sample = super().__call__(data)
        places = torch.as_tensor(sample[self.points_key], dtype=torch.float64) / torch.tensor([height, width])
        found = self._output_places(2 * places.flip(-1) - 1)  # [P, 2], normalised (x, y)
        inside = (found.abs() <= 1).all(dim=1)
        points = (found.flip(-1) + 1) / 2 * torch.tensor(self.size)
        known = torch.as_tensor(sample[self.known_key]) & inside
        if self._flipped:
            points, known = points[self.order], known[self.order]
        return sample | {self.points_key: points.float(), self.known_key: known}

    def _output_places(self, film: Tensor) -> Tensor:
        """Where normalised places `[P, 2]` (x, y) of the film are in the output: the inverse of what `_grid` samples.

        A distortion moves by less than its distance, so that the place is the limit of a fixed-point iteration.
        """
        theta = torch.from_numpy(self._theta)
        output = torch.linalg.solve(theta[:, :2], (film - theta[:, 2]).T).T  # float64 [P, 2]
        if self._points is None:
            return output
        height, width = self._bases
        shifts = (height @ self._points @ width.T).double()  # [1, 2, H, W]
        moved = output
        for _ in range(_STEPS):
            at = F.grid_sample(shifts, moved[None, None], padding_mode="border", align_corners=False)  # [1, 2, 1, P]
            moved = output - at[0, :, 0].T
        return moved
