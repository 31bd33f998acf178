"""Anatomical correspondence: a point in one image, its nearest patch in another (CheXWorld, arXiv 2504.13820, 5.1).

A point's vector is the token map interpolated there; the match is the place of least L2 distance on a grid four times
as fine as the tokens. The paper shows maps; here the error is measured, on landmarks of a manifest, and without any on
crops of the film itself under another exposure, where the true place is known.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cxw_monai.data.schema import LANDMARK
from cxw_monai.transforms import ActionSampler, perturb

from .films import WorldFilms, crops
from .scores import WorldScore, others
from .worlds import World

__all__ = ["correspondence_scores", "landmark_scores", "match_points", "pixel_neighbourhoods", "self_match_errors"]

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


def _inside(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A crop for each film that holds its points `[N, K, 2]` where it can, `[N, 4]`."""
    side = rng.uniform(*SIDES, size=(len(points), 1))
    with np.errstate(invalid="ignore"):
        low = np.clip(np.nanmax(points, axis=1) - side, 0, 1 - side)
        high = np.clip(np.nanmin(points, axis=1), low, 1 - side)
    corner = low + rng.uniform(size=low.shape) * (high - low)
    return np.column_stack([corner, side, side])


def self_match_errors(
    describe: Describe, films: WorldFilms, size: tuple[int, int], grid: tuple[int, int], seed: int = 0
) -> np.ndarray:
    """Error of finding points of a film in a perturbed crop of it, `[N]`, as a share of the film's side.

    Args:
        describe: images to tokens of `grid`.
        films: what is looked at.
        size, grid: of the images, in px and in tokens.
        seed: of points, crops and perturbations.
    """
    points, boxes, images = _moved_films(films, size, seed)
    found = match_points(describe(films.whole()), torch.from_numpy(points), describe(images), grid).numpy()
    return np.linalg.norm(boxes[:, None, :2] + found * boxes[:, None, 2:] - points, axis=-1).mean(axis=1)


def _moved_films(films: WorldFilms, size: tuple[int, int], seed: int) -> tuple[np.ndarray, np.ndarray, Tensor]:
    """Points `[N, K, 2]` of each film, a crop around them `[N, 4]`, and its perturbed image `[N, 1, H, W]`."""
    rng, sampler = np.random.default_rng(seed), ActionSampler(jitter_prob=1.0)
    side = rng.uniform(*SIDES, size=(len(films), 1))
    boxes = np.column_stack([rng.uniform(size=(len(films), 2)) * (1 - side), side, side])
    points = boxes[:, None, :2] + rng.uniform(0.1, 0.9, (len(films), POINTS, 2)) * side[:, None]
    random = np.random.RandomState(seed)
    action = torch.from_numpy(np.stack([sampler(random) for _ in range(len(films))])).float()
    return points, boxes, perturb(crops(films.pixels, boxes, size), action)


def correspondence_scores(world: World, films: WorldFilms, seed: int = 0) -> list[WorldScore]:
    """Points of a film found in a perturbed crop of it, and landmarks of one patient in another where there are some.

    Controls: grey values around the patch instead of its token; the same place of the image; a place at random
    (chance).
    """
    points, boxes, _ = _moved_films(films, world.size, seed)
    measure, test = "error, share of the film", "correspondence, same film"
    of_film = np.linalg.norm(boxes[:, None, :2] + points * boxes[:, None, 2:] - points, axis=-1).mean(axis=1)
    centre = _mean_distance((points - boxes[:, None, :2]) / boxes[:, None, 2:], boxes[:, None, 2:])
    chance = float(centre.mean())
    pixels = self_match_errors(lambda x: pixel_neighbourhoods(x, world.grid), films, world.size, world.grid, seed)
    own = self_match_errors(world.tokens, films, world.size, world.grid, seed)
    return [
        WorldScore(test, measure, "token", own, chance, False),
        WorldScore(test, measure, "grey values around the patch", pixels, chance, False),
        WorldScore(test, measure, "the same place of the image", of_film, chance, False),
        *landmark_scores(world, films, seed),
    ]


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


def landmark_scores(world: World, films: WorldFilms, seed: int = 0) -> list[WorldScore]:
    """Landmarks of one patient found in another one's film, whole and as a crop: error in px, and in mm where known."""
    points = _landmarks(films)
    if not np.isfinite(points).any():
        return []
    rng = np.random.default_rng(seed)
    source = others(films.patients, rng)
    known = torch.from_numpy(np.nan_to_num(points[source], nan=0.5))
    both = np.where(np.isfinite(points[source]), points, np.nan)
    boxes = _inside(np.where(np.isfinite(both), both, np.nan), rng)
    boxes[~np.isfinite(both).any(axis=(1, 2))] = [0, 0, 1, 1]
    views = {"whole film": np.tile([0.0, 0.0, 1.0, 1.0], (len(films), 1)), "crop": boxes}
    pixels = np.array(films.shapes, dtype=float)  # [N, 2]
    mm = pixels * np.array([s or (np.nan, np.nan) for s in films.spacing_mm])
    describers = {
        "token": world.tokens,
        "grey values around the patch": lambda x: pixel_neighbourhoods(x, world.grid),
    }
    scores = []
    for view, crop in views.items():
        images = crops(films.pixels, crop, world.size)
        guesses = {
            name: match_points(describe(films.whole())[source], known, describe(images), world.grid).numpy()
            for name, describe in describers.items()
        }
        guesses["the same place of the image"] = known.numpy()
        inside = np.where(_within(both, crop)[..., None], both, np.nan)
        for unit, scale in (("px", pixels), ("mm", mm)):
            if not np.isfinite(scale).any():
                continue
            local = (inside - crop[:, None, :2]) / crop[:, None, 2:]
            chance = float(np.nanmean(_mean_distance(local, (crop[:, 2:] * scale)[:, None])))
            for name, guess in guesses.items():
                gap = (crop[:, None, :2] + guess * crop[:, None, 2:] - inside) * scale[:, None]
                errors = _mean_known(np.linalg.norm(gap, axis=-1))
                scores.append(WorldScore(f"landmarks, {view}", f"error, {unit}", name, errors, chance, False))
    return scores


def _within(points: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Which points `[N, K, 2]` lie in boxes `[N, 4]`."""
    local = (points - boxes[:, None, :2]) / boxes[:, None, 2:]
    return ((local >= 0) & (local <= 1)).all(axis=2)
