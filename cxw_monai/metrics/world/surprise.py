"""Surprise: how much of a film a world model did not expect, by place, against what is usual at that place.

A token is hidden together with three quarters of the film and predicted from the rest, several times with other
tokens in sight; the error is compared with the errors of reference films at the same place. All films are hidden alike,
so that what is left are the films. The test is this package's own; the controls describe a film without any prediction:
by its tokens (as PaDiM, arXiv 2011.08785, with a diagonal covariance), and by grey values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor
from torch.nn import functional as F

from cxw_monai.data.schema import FINDING_MASK
from cxw_monai.io.formats.pictures import read_mask
from cxw_monai.transforms.whole_film import whole_film, whole_masks

from .films import WorldFilms
from .ridge import folds_of
from .scores import WorldScore, others
from .worlds import World

__all__ = [
    "FAULTS",
    "Usual",
    "film_scores",
    "grey_statistics",
    "prediction_errors",
    "surprise_maps",
    "surprise_scores",
    "usual_of",
]

PARTS, ROUNDS = 4, 2  # of a film's tokens one part is in sight; each token is predicted (PARTS - 1) * ROUNDS times
LEAST_SPREAD = 0.05  # of a value's mean spread over the places
FEWEST = 8  # reference films
SHIFT = 0.2  # of the film's sides, by which the collimator is shifted
SIZES = ((0.0, 0.02), (0.02, 0.06), (0.06, 1.0))  # of a finding, as a share of the film
PREDICTED, TOKENS, GREY = "predicted", "tokens, no prediction", "grey statistics"
Describe = Callable[[Tensor], Tensor]
"""Images `[N, 1, H, W]` to one value of each token's place, `[N, n]`, or to several, `[N, n, F]`."""


def _hidden_parts(tokens: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Tokens in sight `[1, k]` and hidden ones `[1, n - k]`; all are hidden equally often."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(ROUNDS):
        parts = torch.randperm(tokens, generator=generator).tensor_split(PARTS)
        for place, seen in enumerate(parts):
            hidden = torch.cat([part for other, part in enumerate(parts) if other != place])
            yield seen.sort().values[None], hidden.sort().values[None]


def prediction_errors(world: World, images: Tensor, seed: int = 0) -> Tensor:
    """Logarithm of the mean squared error of each token's prediction while it is hidden.

    Args:
        world: has learned to predict hidden tokens.
        images: `[N, 1, H, W]` of the network's size.
        seed: of the maskings, which are the same for all images.

    Returns:
        `[N, n]`.

    Raises:
        ValueError: the network predicts no hidden tokens.
    """
    if "local" not in world.predicts:
        raise ValueError("surprise needs a world model that predicts hidden tokens (objective local)")
    targets, count = world.targets(images), len(images)  # [N, n, T]
    total = torch.zeros(targets.shape[:2])
    for seen, hidden in _hidden_parts(targets.shape[1], seed):
        predicted = world.predict(images, visible=seen.expand(count, -1), wanted=hidden.expand(count, -1))
        total[:, hidden[0]] += (predicted - targets[:, hidden[0]]).square().mean(dim=2)
    return (total / (ROUNDS * (PARTS - 1))).clamp_min(1e-12).log()


def grey_statistics(images: Tensor, grid: tuple[int, int]) -> Tensor:
    """Mean, standard deviation (local contrast) and mean gradient of each patch, `[N, n, 3]`: what is plain to see.

    Args:
        images: `[N, 1, H, W]`.
        grid: rows and columns of patches.
    """
    patch = (images.shape[2] // grid[0], images.shape[3] // grid[1])
    mean = F.avg_pool2d(images, patch)
    contrast = (F.avg_pool2d(images.square(), patch) - mean.square()).clamp_min(0).sqrt()
    down, right = (F.pad(images.diff(dim=axis).abs(), pad) for axis, pad in ((2, (0, 0, 0, 1)), (3, (0, 1))))
    gradient = F.avg_pool2d(down + right, patch)
    return torch.cat([mean, contrast, gradient], dim=1).flatten(2).transpose(1, 2)


@dataclass(frozen=True)
class Usual:
    """What is usual at each place, from reference films.

    Attributes:
        mean, spread: `[n]` or `[n, F]` over the films.
        scores: `[M]`, sorted scores of the reference films, each held against the others.
    """

    mean: Tensor
    spread: Tensor
    scores: Tensor

    def share_below(self, scores: Tensor) -> Tensor:
        """Share of the reference films with a lower score than each of `[N]`."""
        return torch.searchsorted(self.scores, scores) / len(self.scores)


def usual_of(values: Tensor) -> Usual:
    """What is usual of values `[M, n]` or `[M, n, F]` of reference films.

    Raises:
        ValueError: there are fewer than eight films.
    """
    if len(values) < FEWEST:
        raise ValueError(f"what is usual needs at least {FEWEST} reference films, got {len(values)}")
    values = values.double()
    count, total, squares = len(values), values.sum(dim=0), values.square().sum(dim=0)
    own = [  # a film against the others
        film_scores(surprise_maps(one[None], _usual(count - 1, total - one, squares - one.square()))) for one in values
    ]
    mean, spread = _usual(count, total, squares)
    return Usual(mean.float(), spread.float(), torch.cat(own).float().sort().values)


def _usual(count: int, total: Tensor, squares: Tensor) -> tuple[Tensor, Tensor]:
    mean = total / count
    spread = ((squares - count * mean.square()) / (count - 1)).clamp_min(0).sqrt()
    return mean, torch.maximum(spread, LEAST_SPREAD * spread.mean(dim=0)).clamp_min(1e-6)


def surprise_maps(values: Tensor, usual: Usual | tuple[Tensor, Tensor]) -> Tensor:
    """How unusual each place of a film is, in standard deviations, `[N, n]`.

    0 is usual. Of one value a place (an error) it is signed; of several it is their root mean square, less 1.

    Args:
        values: `[N, n]` or `[N, n, F]`.
        usual: of the same values; or mean and spread.
    """
    mean, spread = (usual.mean, usual.spread) if isinstance(usual, Usual) else usual
    apart = (values - mean) / spread
    return apart if apart.ndim == 2 else apart.square().mean(dim=2).sqrt() - 1


def film_scores(maps: Tensor) -> Tensor:
    """One number a film: the mean of its map `[N, n]`, `[N]`."""
    return maps.mean(dim=1)


def _rotated(images: Tensor) -> Tensor:
    turned = images.rot90(1, (2, 3))
    return turned if turned.shape == images.shape else F.interpolate(turned, images.shape[2:], mode="area")


def _shifted(images: Tensor) -> Tensor:
    """The collimator's edge comes from the side and from below, and the anatomy moves with it."""
    down, right = (round(SHIFT * side) for side in images.shape[2:])
    return F.pad(images[:, :, :-down, :-right], (right, 0, down, 0))


def _quarter(images: Tensor) -> Tensor:
    """The film's lower left quarter, enlarged: another part of the body where a chest should be."""
    height, width = (side // 2 for side in images.shape[2:])
    return torch.stack([whole_film(image[:, height:, :width].numpy(), images.shape[2:]) for image in images])


FAULTS: dict[str, Callable[[Tensor], Tensor]] = {
    "rotated by 90 degrees": _rotated,
    "upside down": lambda images: images.rot90(2, (2, 3)),
    "mirrored": lambda images: images.flip(3),
    "inverted": lambda images: 1 - images,
    "shifted collimation": _shifted,
    "a quarter of the film": _quarter,
}
"""What is done to images `[N, 1, H, W]`."""


def _describers(world: World, seed: int) -> dict[str, Describe]:
    own: dict[str, Describe] = {}
    if "local" in world.predicts:
        own[PREDICTED] = lambda images: prediction_errors(world, images, seed)
    return own | {TOKENS: world.targets, GREY: lambda images: grey_statistics(images, world.grid)}


def surprise_scores(world: World, films: WorldFilms, seed: int = 0) -> list[WorldScore]:
    """Are put-in faults and findings more surprising than what is right?

    Faults: what is usual is learned from half of the patients; a value is the share of the other half's intact films
    that are less surprising than a film with the fault, so that the mean is an AUROC. Findings, where the manifest has
    their masks (`finding_mask_*`): what is usual is learned from films without any, and a value is the AUROC of the
    pixels of a film's findings against those outside of them; the control is the map of another film with findings.
    Without a predictor only the controls are there.
    """
    describers = _describers(world, seed)
    return [*_fault_scores(describers, films), *_finding_scores(describers, world, films, seed)]


def _fault_scores(describers: dict[str, Describe], films: WorldFilms) -> list[WorldScore]:
    halves = [held for held in folds_of(films.patients, 2) if min(held.sum(), (~held).sum()) >= FEWEST]
    whole, scores = films.whole(), []
    for condition, describe in describers.items():
        intact = describe(whole)
        usual = [usual_of(intact[~held]) for held in halves]
        right = [film_scores(surprise_maps(intact[held], one)).numpy() for held, one in zip(halves, usual, strict=True)]
        for fault, apply in FAULTS.items():
            values = np.full(len(films), np.nan)
            for held, one, known in zip(halves, usual, right, strict=True):
                found = film_scores(surprise_maps(describe(apply(whole[held])), one)).numpy()
                gap = found[:, None] - known[None]
                values[held] = (gap > 0).mean(axis=1) + (gap == 0).mean(axis=1) / 2
            scores.append(WorldScore("surprise, film", f"AUROC, {fault}", condition, values, 0.5))
    return scores


def _finding_scores(describers: dict[str, Describe], world: World, films: WorldFilms, seed: int) -> list[WorldScore]:
    masks = [_finding_masks(row, shape, world.size) for row, shape in zip(films.rows, films.shapes, strict=True)]
    sick = np.array([any(mask.any() for mask in found.values()) for found in masks])
    reference = ~sick & ~np.isin(films.patients, films.patients[sick])
    if reference.sum() < FEWEST or len(np.unique(films.patients[sick])) < 2:
        return []
    places = np.flatnonzero(sick)
    other = others(films.patients[sick], np.random.default_rng(seed))
    whole, scores = films.whole(), []
    for condition, describe in describers.items():
        usual = usual_of(describe(whole[reference]))
        maps = surprise_maps(describe(whole[sick]), usual).unflatten(1, world.grid)[:, None]  # [K, 1, rows, columns]
        large = F.interpolate(maps, world.size, mode="bilinear")[:, 0].numpy()
        for name, order in ((condition, np.arange(len(places))), (f"{condition}, of another film", other)):
            found = [_pixel_aurocs(masks[place], large[own]) for place, own in zip(places, order, strict=True)]
            for low, high in (None, None), *SIZES:
                values = np.full(len(films), np.nan)
                values[places] = [_mean_between(one, low, high) for one in found]
                scores.append(WorldScore("surprise, finding", _measure(low, high), name, values, 0.5))
            for kind in sorted({kind for one in found for kind, _, _ in one}):
                values = np.full(len(films), np.nan)
                values[places] = [_mean([value for k, _, value in one if k == kind]) for one in found]
                scores.append(WorldScore("surprise, finding", f"pixel AUROC, {kind}", name, values, 0.5))
    return scores


def _measure(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return "pixel AUROC"
    limit = f"below {high:.0%}" if low == 0 else f"above {low:.0%}" if high == 1 else f"{low:.0%} to {high:.0%}"
    return f"pixel AUROC, findings {limit} of the film"


def _finding_masks(row: Mapping[str, Any], shape: tuple[int, int], size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Masks of a film's findings at a network's size, bool `[H, W]` by kind."""
    files = {name.removeprefix(FINDING_MASK): path for name, path in row.items() if name.startswith(FINDING_MASK)}
    return {
        kind: whole_masks(read_mask(path, shape)[None], size)[0].numpy() > 0 for kind, path in files.items() if path
    }


def _pixel_aurocs(masks: dict[str, np.ndarray], surprise: np.ndarray) -> list[tuple[str, float, float]]:
    """Kind, share of the film and AUROC of each finding; pixels of other findings are left out."""
    outside = ~np.any(list(masks.values()), axis=0)
    found = []
    for kind, mask in masks.items():
        inside, rest = int(mask.sum()), int(outside.sum())
        if inside and rest:
            ranks = rankdata(np.concatenate([surprise[mask], surprise[outside]]))[:inside]
            found.append((kind, inside / mask.size, float((ranks.mean() - (inside + 1) / 2) / rest)))
    return found


def _mean_between(found: list[tuple[str, float, float]], low: float | None, high: float | None) -> float:
    return _mean([value for _, share, value in found if low is None or high is None or low <= share < high])


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
