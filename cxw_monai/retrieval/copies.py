"""Whether two films are one: the same picture after another size, compression, brightness or crop.

The fine structure of one film (ribs' edges, vessels, wires) is laid over that of the other, and compared. All chests
are alike in the large, and so are their embeddings and hashes; fine structure agrees for copies only, not for two films
of one patient.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional as F

from cxw_monai.quality.film_model import averaged

__all__ = ["AGREEMENT", "SIDE", "Copy", "compare", "descriptors", "fine_structure", "variants"]

SIDE = 128
"""Rows and columns that films are averaged to."""

AGREEMENT = 0.78
"""From which on two films are one: of 750 films no pair reaches it, of 95 % crops and re-encoded copies all do."""

_BAND = 0.8, 2.5  # deviations in px of the two Gaussians whose difference is the fine structure
_LOCAL = 6.0  # of the Gaussian over which contrast is made even, so that outlines don't outweigh all else
_LEVELS = 32  # stored levels per unit
_SCALES = tuple(float(scale) for scale in 1.03 ** np.arange(-6, 7))  # of crops, either way
_STEPS = 12
_COARSE, _SMALL = 64, 16
_PROMISING = 0.4  # agreement from which on the fit is refined
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
    """Fine structure of a film `[H, W]` in [0, 1], stretched to a square: int8 `[128, 128]`.

    A band of scales, divided by its deviation nearby, in steps of 1/32.
    """
    grey = averaged(image, SIDE)
    fine = gaussian_filter(grey, _BAND[0]) - gaussian_filter(grey, _BAND[1])
    local = np.sqrt(gaussian_filter(np.square(fine), _LOCAL))
    even = fine / (local + 0.1 * local.mean() + 1e-6)
    return np.clip(np.rint(_LEVELS * even), -127, 127).astype(np.int8)


def descriptors(fine: np.ndarray, scale: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """A vector of each film, whose dot products find films that may be copies.

    Args:
        fine: int8 `[n, 128, 128]`, as `fine_structure` gives it.
        scale: of the part that is described, 1 for the whole film.
        shift: (rows, columns), of the part's centre in sizes of the film.

    Returns:
        float32 `[n, 256]` of length 1: the part, averaged to 16 x 16.
    """
    films = torch.from_numpy(np.asarray(fine)).float()[:, None]
    if scale != 1:
        place = torch.tensor([[2 * shift[1], scale, 2 * shift[0], scale]])
        films = _warped(films, place.expand(len(films), -1))
    small = F.interpolate(films, (_SMALL, _SMALL), mode="area").flatten(1)
    return F.normalize(small - small.mean(dim=1, keepdim=True), dim=1).numpy()


def variants() -> list[tuple[float, tuple[float, float]]]:
    """Parts of a film that a crop may show, as arguments of `descriptors`: the whole, 95 % of each side at nine places,
    and 90 and 85 % in the middle."""
    edge = (1 - 0.95) / 2
    shifted = [(0.95, (down, right)) for down in (-edge, 0.0, edge) for right in (-edge, 0.0, edge)]
    return [(1.0, (0.0, 0.0)), *shifted, (0.9, (0.0, 0.0)), (0.85, (0.0, 0.0))]


def compare(first: np.ndarray, second: np.ndarray) -> Copy:
    """Lay one film over another, shifted, and stretched along each axis, and compare their fine structure.

    Args:
        first, second: int8 `[128, 128]`, as `fine_structure` gives them.
    """
    one, two = (torch.from_numpy(np.asarray(film)).float()[None, None] for film in (first, second))
    place = _coarse_place(one, two)
    agreement = _agreement(one, two, place)
    if agreement >= _PROMISING:
        agreement, place = _refined(one, two, place, agreement)
    (shift_x, scale_x, shift_y, scale_y) = place.tolist()
    return Copy(agreement, (scale_y, scale_x), (shift_y / 2, shift_x / 2))


def _coarse_place(one: Tensor, two: Tensor) -> Tensor:
    """The shift and common scale of the highest cross-correlation: (shift x, scale x, shift y, scale y) from the first
    film's coordinates in [-1, 1] to the second's."""
    places = torch.tensor([[0, scale, 0, scale] for scale in _SCALES])
    one, two = (F.interpolate(film, (_COARSE, _COARSE), mode="area") for film in (one, two))
    warped = _warped(two.expand(len(places), -1, -1, -1), places)
    size = (2 * _COARSE, 2 * _COARSE)
    product = torch.fft.rfft2(one, size).conj() * torch.fft.rfft2(warped, size)
    found = torch.fft.irfft2(product, size)[:, 0] / warped.flatten(1).norm(dim=1).clamp(min=1e-9)[:, None, None]
    number, rest = divmod(int(found.argmax()), found[0].numel())
    down, right = ((at + _COARSE) % (2 * _COARSE) - _COARSE for at in divmod(rest, found.shape[2]))
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
