"""Anatomical correspondence: a point in one image, its nearest patch in another (CheXWorld, arXiv 2504.13820, 5.1).

A point's vector is the token map interpolated there; the match is the place of least L2 distance on a grid four times
as fine as the tokens. The paper shows maps; here the error is measured, on landmarks of a manifest, and without any on
crops of the film itself under another exposure, where the true place is known.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cxw_monai.data.schema import LANDMARK
from cxw_monai.transforms import perturb

from .films import WorldFilms, crops, random_actions, random_boxes
from .scores import WorldScore, others
from .worlds import World

__all__ = [
    "MovedFilms",
    "correspondence_scores",
    "landmark_scores",
    "match_errors",
    "match_points",
    "moved_films",
    "pixel_neighbourhoods",
]

FINE = 4  # places along a token's side that a match can have
POINTS = 16  # of a film, where there are no landmarks
SIDES = (0.6, 0.9)
Describe = Callable[[Tensor], Tensor]
"""Images `[N, 1, H, W]` to a vector for each place of a grid, `[N, n, D]`."""


def _map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    return tokens.transpose(1, 2).unflatten(2, grid)  # [N, D, rows, columns]


def match_points(known: Tensor, points: Tensor, searched: Tensor, grid: tuple[int, int]) -> Tensor:
    """Where points of one image are in another.

    Args:
        known: tokens `[N, n, D]` of the images with the points.
        points: `[N, K, 2]` row and column as shares of the image.
        searched: tokens `[N, n, D]` of the other images.
        grid: rows and columns of tokens.

    Returns:
        `[N, K, 2]`, shares of the other image.
    """
    place = (2 * points - 1).flip(-1)[:, :, None].float()  # x, y in [-1, 1]
    vectors = F.grid_sample(_map(known, grid), place, padding_mode="border", align_corners=False)[..., 0].transpose(
        1, 2
    )
    rows, columns = FINE * grid[0], FINE * grid[1]
    field = F.interpolate(_map(searched, grid), (rows, columns), mode="bilinear").flatten(2).transpose(1, 2)
    nearest = torch.cdist(vectors, field).argmin(dim=2)  # [N, K]
    row, column = nearest // columns, nearest % columns
    return torch.stack([(row + 0.5) / rows, (column + 0.5) / columns], dim=-1)


def pixel_neighbourhoods(images: Tensor, grid: tuple[int, int]) -> Tensor:
    """Grey values around each patch, which tokens should beat: 12 x 12 cells of a quarter patch, less their mean.

    Args:
        images: `[N, 1, H, W]`.
        grid: rows and columns of patches.

    Returns:
        `[N, n, 144]`.
    """
    cells = F.interpolate(images, (4 * grid[0], 4 * grid[1]), mode="area")
    windows = F.unfold(F.pad(cells, (4, 4, 4, 4), mode="replicate"), 12, stride=4).transpose(1, 2)  # [N, n, 144]
    return windows - windows.mean(dim=2, keepdim=True)


class MovedFilms(NamedTuple):
    """Films, each beside a perturbed crop of it.

    Attributes:
        points: `[N, K, 2]` row and column of places that the crop shows, as shares of the film.
        boxes: `[N, 4]` of the crops, as shares of the film.
        images: the crops, `[N, 1, H, W]`.
    """

    points: np.ndarray
    boxes: np.ndarray
    images: Tensor


def moved_films(films: WorldFilms, size: tuple[int, int], seed: int = 0) -> MovedFilms:
    """Crops of 0.6 to 0.9 of the films' sides, under another exposure, at a network's size."""
    rng = np.random.default_rng(seed)
    boxes = random_boxes(len(films), rng, SIDES)
    points = boxes[:, None, :2] + rng.uniform(0.1, 0.9, (len(films), POINTS, 2)) * boxes[:, None, 2:]
    action = random_actions(len(films), seed)
    return MovedFilms(points, boxes, perturb(crops(films.pixels, boxes, size), action))


def match_errors(describe: Describe, films: WorldFilms, moved: MovedFilms, grid: tuple[int, int]) -> np.ndarray:
    """Error of finding points of a film in its crop, `[N]`, as a share of the film's side.

    Args:
        describe: images to tokens of `grid`.
        films: what is looked at.
        moved: of these films.
        grid: rows and columns of tokens.
    """
    points = torch.from_numpy(moved.points)
    found = match_points(describe(films.whole()), points, describe(moved.images), grid).numpy()
    return _misses(found, moved)


def _misses(found: np.ndarray, moved: MovedFilms) -> np.ndarray:
    """Mean distance `[N]` of places in the crops `[N, K, 2]` from the points."""
    places = moved.boxes[:, None, :2] + found * moved.boxes[:, None, 2:]
    return np.linalg.norm(places - moved.points, axis=-1).mean(axis=1)


def correspondence_scores(world: World, films: WorldFilms, seed: int = 0) -> list[WorldScore]:
    """Points of a film found in a perturbed crop of it, and landmarks of one patient in another where there are some.

    Controls: grey values around the patch instead of its token; the same place of the image; a place at random
    (chance).
    """
    moved = moved_films(films, world.size, seed)
    local = (moved.points - moved.boxes[:, None, :2]) / moved.boxes[:, None, 2:]
    chance = float(_mean_distance(local, moved.boxes[:, None, 2:]).mean())
    errors = {
        name: match_errors(describe, films, moved, world.grid) for name, describe in _describers(world).items()
    } | {"the same place of the image": _misses(moved.points, moved)}
    test, measure = "correspondence, same film", "error, share of the film"
    own = [WorldScore(test, measure, name, values, chance, False) for name, values in errors.items()]
    return [*own, *landmark_scores(world, films, seed)]


def _describers(world: World) -> dict[str, Describe]:
    return {
        "token": world.tokens,
        "grey values around the patch": lambda images: pixel_neighbourhoods(images, world.grid),
    }


def _mean_distance(points: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Mean distance of points `[N, K, 2]` to all places of the image, in units of `scale`, `[N]`; NaN where unknown."""
    steps = (np.arange(20) + 0.5) / 20
    places = np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1).reshape(-1, 2)
    gaps = np.linalg.norm((points[:, :, None] - places) * scale[:, :, None], axis=-1)  # [N, K, 400]
    return _mean_known(gaps.mean(axis=2))


def _mean_known(values: np.ndarray) -> np.ndarray:
    """Mean over `[N, K]` of what is known; NaN where nothing is."""
    known = np.isfinite(values)
    total, count = np.where(known, values, 0).sum(axis=1), known.sum(axis=1)
    return np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)


def _landmarks(films: WorldFilms) -> np.ndarray:
    """Landmarks of each film, `[N, K, 2]` row and column as shares of it; NaN where unknown or outside."""
    names = sorted({name for row in films.rows for name in row if str(name).startswith(LANDMARK)})
    points = np.full((len(films), len(names), 2), np.nan)
    for place, (row, shape) in enumerate(zip(films.rows, films.shapes, strict=True)):
        for column, name in enumerate(names):
            if row.get(name) is not None:
                x, y = row[name]
                points[place, column] = (y + 0.5) / shape[0], (x + 0.5) / shape[1]
    points[((points < 0) | (points > 1)).any(axis=2)] = np.nan
    return points


def _inside(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A crop for each film that holds its known points `[N, K, 2]` where it can, `[N, 4]`; the film without any."""
    known = np.isfinite(points)
    side = rng.uniform(*SIDES, size=(len(points), 1))
    low = np.clip(np.where(known, points, -np.inf).max(axis=1) - side, 0, 1 - side)
    high = np.clip(np.where(known, points, np.inf).min(axis=1), low, 1 - side)
    corner = low + rng.uniform(size=low.shape) * (high - low)
    boxes = np.column_stack([corner, side, side])
    boxes[~known.any(axis=(1, 2))] = [0, 0, 1, 1]
    return boxes


def landmark_scores(world: World, films: WorldFilms, seed: int = 0) -> list[WorldScore]:
    """Landmarks of one patient found in another one's film, whole and as a crop: error in px, and in mm where known."""
    points = _landmarks(films)
    if not np.isfinite(points).any():
        return []
    rng = np.random.default_rng(seed)
    source = others(films.patients, rng)
    known = torch.from_numpy(np.nan_to_num(points[source], nan=0.5))
    both = np.where(np.isfinite(points[source]), points, np.nan)
    views = {"whole film": np.tile([0.0, 0.0, 1.0, 1.0], (len(films), 1)), "crop": _inside(both, rng)}
    pixels = np.array(films.shapes, dtype=float)  # [N, 2]
    mm = pixels * np.array([s or (np.nan, np.nan) for s in films.spacing_mm])
    describers, whole = _describers(world), films.whole()
    shown = {name: describe(whole)[source] for name, describe in describers.items()}
    scores = []
    for view, boxes in views.items():
        images = crops(films.pixels, boxes, world.size)
        guesses = {
            name: match_points(shown[name], known, describe(images), world.grid).numpy()
            for name, describe in describers.items()
        } | {"the same place of the image": known.numpy()}
        inside = np.where(_within(both, boxes)[..., None], both, np.nan)
        local = (inside - boxes[:, None, :2]) / boxes[:, None, 2:]
        for unit, scale in (("px", pixels), ("mm", mm)):
            by_chance = _mean_distance(local, (boxes[:, 2:] * scale)[:, None])
            if not np.isfinite(by_chance).any():
                continue
            chance = float(by_chance[np.isfinite(by_chance)].mean())
            for name, guess in guesses.items():
                gap = (boxes[:, None, :2] + guess * boxes[:, None, 2:] - inside) * scale[:, None]
                errors = _mean_known(np.linalg.norm(gap, axis=-1))
                scores.append(WorldScore(f"landmarks, {view}", f"error, {unit}", name, errors, chance, False))
    return scores


def _within(points: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Which points `[N, K, 2]` lie in boxes `[N, 4]`."""
    local = (points - boxes[:, None, :2]) / boxes[:, None, 2:]
    return ((local >= 0) & (local <= 1)).all(axis=2)
