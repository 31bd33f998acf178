"""Whether two films are one: the same picture after another size, compression, brightness or crop.

The fine structure of one film (ribs' edges, vessels, wires) is laid over that of the other, and compared. All chests are
alike in the large, and so are their embeddings and hashes; fine structure agrees for copies only, not for two films of
one patient.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional as F

from cxw_monai.quality.film_model import averaged

__all__ = ["SIDE", "Copy", "compare", "fine_structure"]

SIDE = 128
"""Rows and columns that films are averaged to."""

_BAND = 0.8, 2.5  # deviations in px of the two Gaussians whose difference is the fine structure
_LOCAL = 6.0  # of the Gaussian over which contrast is made even, so that outlines don't outweigh all else
_COARSE = 64
_SCALES = tuple(float(scale) for scale in 1.02 ** np.arange(-8, 9))  # crops of up to 15 % either way
_STEPS = 12
_PROMISING = 0.3  # agreement from which on the fit is refined
_LEAST_OVERLAP = 0.6  # of either film's area


class Copy(NamedTuple):
    """How far two films agree where they are laid over each other.

    Attributes:
        agreement: correlation of their fine structure, in [-1, 1].
        scale: (rows, columns), size of the part of the second film that the first shows, in sizes of the second: below
            1 where the first is a crop.
        shift: (rows, columns) of the centre of this part from the second's centre, in sizes of the second.
    """

    agreement: float
    scale: tuple[float, float]
    shift: tuple[float, float]


def fine_structure(image: np.ndarray) -> np.ndarray:
    """Fine structure of a film `[H, W]` in [0, 1], stretched to a square: float32 `[128, 128]` of mean 0."""
    grey = averaged(image, SIDE)
    fine = gaussian_filter(grey, _BAND[0]) - gaussian_filter(grey, _BAND[1])
    local = np.sqrt(gaussian_filter(np.square(fine), _LOCAL))
    return (fine / (local + 0.1 * local.mean() + 1e-6)).astype(np.float32)


def compare(first: np.ndarray, second: np.ndarray) -> Copy:
    """Lay one film over another, shifted, and stretched along each axis, and compare their fine structure.

    Args:
        first, second: as `fine_structure` gives them.
    """
    one, two = torch.from_numpy(first)[None, None], torch.from_numpy(second)[None, None]
    place = _coarse_place(one, two)
    agreement = _agreement(one, two, place)
    if agreement >= _PROMISING:
        agreement, place = _refined(one, two, place, agreement)
    (shift_x, scale_x, shift_y, scale_y) = place.tolist()
    return Copy(agreement, (scale_y, scale_x), (shift_y / 2, shift_x / 2))


def _coarse_place(one: Tensor, two: Tensor) -> Tensor:
    """The shift and common scale of the highest cross-correlation: (shift x, scale x, shift y, scale y) from the first
    film's coordinates in [-1, 1] to the second's."""
    first, second = (F.interpolate(film, (_COARSE, _COARSE), mode="area") for film in (one, two))
    places = torch.tensor([[0, scale, 0, scale] for scale in _SCALES])
    warped = _warped(second.expand(len(places), -1, -1, -1), places)
    size = (2 * _COARSE, 2 * _COARSE)
    product = torch.fft.rfft2(first, size).conj() * torch.fft.rfft2(warped, size)
    found = torch.fft.irfft2(product, size)[:, 0] / warped.flatten(1).norm(dim=1).clamp(min=1e-9)[:, None, None]
    best = int(found.argmax())
    number, rest = divmod(best, found[0].numel())
    row, column = divmod(rest, found.shape[2])
    down, right = ((at + _COARSE) % (2 * _COARSE) - _COARSE for at in (row, column))
    scale = _SCALES[number]
    return torch.tensor([2 * right / _COARSE * scale, scale, 2 * down / _COARSE * scale, scale])


def _grid(place: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Centres of pixels, `[side]` in [-1, 1], and where they lie in the second film, `[n, side, side, 2]`."""
    at = (2 * torch.arange(side) + 1) / side - 1
    x = place[:, 0, None] + place[:, 1, None] * at
    y = place[:, 2, None] + place[:, 3, None] * at
    grid = torch.stack([x[:, None, :].expand(-1, side, -1), y[:, :, None].expand(-1, -1, side)], dim=-1)
    return at, grid, (grid.abs() <= 1).all(dim=-1)


def _warped(films: Tensor, places: Tensor) -> Tensor:
    """Films `[n, C, s, s]` as the first film's pixels see them; 0 outside."""
    return F.grid_sample(films, _grid(places, films.shape[-1])[1], align_corners=False)


def _agreement(one: Tensor, two: Tensor, place: Tensor) -> float:
    """Correlation in the overlap; -1 where the films hardly overlap."""
    inside = _grid(place[None], SIDE)[2][0]
    shared = float(inside.float().mean())
    if min(shared, shared * float(place[1] * place[3])) < _LEAST_OVERLAP:
        return -1.0
    a, b = one[0, 0][inside], _warped(two, place[None])[0, 0][inside]
    a, b = a - a.mean(), b - b.mean()
    return float((a @ b) / (a.norm() * b.norm()).clamp(min=1e-12))


def _refined(one: Tensor, two: Tensor, place: Tensor, agreement: float) -> tuple[float, Tensor]:
    """The place of the best agreement near one, by Gauss and Newton's method on shift, scale, contrast and offset."""
    slopes = torch.gradient(two[0, 0], spacing=2 / SIDE)
    films = torch.stack([two[0, 0], slopes[1], slopes[0]])[None]  # value, along x, along y
    best = agreement, place
    for _ in range(_STEPS):
        at, _, inside = _grid(place[None], SIDE)
        value, along_x, along_y = _warped(films, place[None])[0]
        columns = [value, torch.ones_like(value), along_x, along_x * at, along_y, along_y * at[:, None]]
        design = torch.stack(columns, dim=-1)[inside[0]]  # [P, 6]
        solved = torch.linalg.lstsq(design.T @ design, design.T @ one[0, 0][inside[0]][:, None]).solution[:, 0]
        if not solved.isfinite().all() or solved[0].abs() < 1e-6:
            break
        place = place + (solved[2:] / solved[0]).clamp(-0.05, 0.05)
        found = _agreement(one, two, place)
        if found > best[0]:
            best = found, place
        if found < _PROMISING:
            break
    return best
