"""Neighbours of a part of a film: the best matching part of each other film, by the tokens that lie in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from cxw_monai.io.pixel_map import PixelMap

from .index import FilmIndex
from .search import Search

__all__ = ["CANDIDATES", "Box", "Region", "film_box", "region_neighbours", "stored_box", "token_window"]

CANDIDATES = 200
"""Films, the most similar ones as a whole, whose parts are compared."""

_AT_ONCE = 64  # films whose tokens are compared at once

Box = tuple[float, float, float, float]
"""x, y, width and height; x to the right and y down, from the upper left corner."""


class Region(NamedTuple):
    """The part of a film that is most like the query's.

    Attributes:
        similarity: in [-1, 1].
        place: of the film in the index.
        box: in fractions of the film.
    """

    similarity: float
    place: int
    box: Box


def film_box(box: Box, pixel_map: PixelMap) -> Box:
    """A box in px of the stored image, as a manifest has it, in fractions of the upright film.

    Raises:
        ValueError: it has no size, or lies more than a pixel outside of the film.
    """
    x, y, width, height = box
    if not (width > 0 and height > 0 and np.isfinite(box).all()):
        raise ValueError(f"a box must be x, y, width, height in px, the last two above 0; got {box}")
    edges = np.array([[y, x], [y + height, x + width]])
    rows, columns = pixel_map.shape
    corners = pixel_map.from_source(edges) / (rows, columns)
    (top, left), (bottom, right) = corners.min(axis=0).clip(0, 1), corners.max(axis=0).clip(0, 1)
    source_rows, source_columns = pixel_map.source_shape
    if (
        bottom <= top
        or right <= left
        or min(x, y) < -1
        or x + width > source_columns + 1
        or y + height > source_rows + 1
    ):
        raise ValueError(f"the box {box} lies outside of the film, which has {source_columns} x {source_rows} px")
    return float(left), float(top), float(right - left), float(bottom - top)


def stored_box(box: Box, pixel_map: PixelMap) -> Box:
    """A box in fractions of the upright film, in px of the stored image."""
    x, y, width, height = box
    rows, columns = pixel_map.shape
    edges = np.array([[y, x], [y + height, x + width]]) * (rows, columns)
    corners = pixel_map.to_source(edges)
    (top, left), (bottom, right) = corners.min(axis=0), corners.max(axis=0)
    return float(left), float(top), float(right - left), float(bottom - top)


def token_window(box: Box, grid: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of the tokens of which at least half lies within a box in fractions, along each axis; at least
    the one at its centre."""
    x, y, width, height = box
    return _span(y, height, grid[0]), _span(x, width, grid[1])


def _span(start: float, length: float, cells: int) -> slice:
    first, last = round(start * cells), round((start + length) * cells)
    if last > first:
        return slice(first, last)
    middle = min(int((start + length / 2) * cells), cells - 1)
    return slice(middle, middle + 1)


def region_neighbours(
    search: Search,
    tokens: np.ndarray,
    box: Box,
    count: int,
    read: Callable[[str], np.ndarray],
    candidates: int = CANDIDATES,
    allowed: np.ndarray | None = None,
    left_out: np.ndarray | None = None,
) -> list[Region]:
    """The parts of other films that are most like a part of a film.

    The part is described by the mean of its tokens, and compared with every window of as many tokens. A token knows of
    the film around it, and of its place.

    Args:
        search: finds the films whose parts are compared, by their similarity as a whole.
        tokens: `[T, D]` of the query's film.
        box: its part, in fractions.
        count: films to find at most.
        read: tokens `[T, D]` of a film's file, for an index without tokens.
        candidates: films that are compared.
        allowed, left_out: see `Search.search`.

    Returns:
        Best first.

    Raises:
        ValueError: a number below 1.
        RadiographError: a film can't be read.
    """
    index, grid = search.index, search.index.settings.grid
    if count < 1 or candidates < 1:
        raise ValueError(f"count and candidates must be at least 1, got {count} and {candidates}")
    rows, columns = token_window(box, grid)
    own = index.standardised(tokens).reshape(*grid, -1)[rows, columns].mean(axis=(0, 1))
    query = torch.from_numpy(own / max(float(np.linalg.norm(own)), 1e-12))
    found = search.search(tokens.mean(axis=0)[None], candidates, allowed, None if left_out is None else [left_out])
    places = [int(place) for place in found.place[0] if place >= 0]
    regions = []
    for start in range(0, len(places), _AT_ONCE):
        part = places[start : start + _AT_ONCE]
        regions += _best_windows(index, part, read, query, (rows.stop - rows.start, columns.stop - columns.start))
    return sorted(regions, key=lambda region: (-region.similarity, region.place))[:count]


def _best_windows(
    index: FilmIndex,
    places: Sequence[int],
    read: Callable[[str], np.ndarray],
    query: torch.Tensor,
    size: tuple[int, int],
) -> list[Region]:
    """The best window of `size` tokens of each film."""
    grid = index.settings.grid
    tokens = np.stack([_tokens(index, place, read) for place in places])  # [n, T, D]
    maps = torch.from_numpy(index.standardised(tokens)).transpose(1, 2).reshape(len(places), -1, *grid)
    means = F.normalize(F.avg_pool2d(maps, size, stride=1), dim=1)  # [n, D, r, c]
    similarity = torch.einsum("ndrc,d->nrc", means, query)
    regions = []
    for place, own in zip(places, similarity, strict=True):
        row, column = divmod(int(own.argmax()), own.shape[1])
        box = column / grid[1], row / grid[0], size[1] / grid[1], size[0] / grid[0]
        regions.append(Region(float(own.max()), place, box))
    return regions


def _tokens(index: FilmIndex, place: int, read: Callable[[str], np.ndarray]) -> np.ndarray:
    if not index.tokens:
        return read(index.path(place))
    shard, row = index.place(place)
    return np.asarray(index.tokens[shard][row], np.float32)
