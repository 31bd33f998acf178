"""Tests of a predictor: the unperturbed film, another crop, a masked block. Each is a retrieval among candidates.

Protocols: CheXWorld (arXiv 2504.13820), section 5.1 and Table 4, for `domain_scores`; recall over shifted crops and
masked blocks with their controls are this package's own. A distance is the mean squared difference over all tokens.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import qmc
from torch import Tensor

from cxw_monai.transforms import ActionSampler, perturb
from cxw_monai.transforms.geometry import CropBox, relative_geometry

from .films import WorldFilms, crops
from .scores import WorldScore, others, retrieval_scores, true_places
from .worlds import World

__all__ = ["CANDIDATES", "candidate_actions", "domain_scores", "layout_boxes", "layout_scores", "local_scores"]

CANDIDATES = 64
"""Perturbations that a domain query chooses from (the paper's)."""
MOST_FILMS = 50  # of `domain` and `layout`, as in the paper; the first ones, whose order is random
QUERIES = 8  # of the candidates, a film
STEPS = 5  # places of a crop along a side of the film
CROP = 0.55  # of the film's sides: the smallest square crop of pretraining
LAYOUT_QUERIES = 8  # a film
OVERLAPS = (0.0, 0.25, 0.5, 1.0)
FILMS = 16  # films that a query of another patient's crops or blocks chooses from


def _distances(predicted: Tensor, targets: Tensor) -> np.ndarray:
    """Mean squared differences of `[Q, K, T]` to `[n, K, T]`: `[Q, n]`."""
    p, t = predicted.flatten(1).double(), targets.flatten(1).double()
    gap = p.square().sum(dim=1)[:, None] + t.square().sum(dim=1)[None] - 2 * p @ t.T
    return (gap / p.shape[1]).numpy()


def _near_ties(distances: np.ndarray) -> np.ndarray:
    """Distances without their last digits, so that equal candidates are equal in spite of rounding."""
    scale = max(float(distances.max()), 1e-12)
    return np.round(distances / scale, 9)


class _Retrieval:
    """Collects the places of true candidates by condition."""

    def __init__(self, test: str, candidates: int) -> None:
        self.test, self.candidates = test, candidates
        self.found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}

    def add(self, condition: str, distances: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A film's queries: their distances `[Q, n]`, or `[1, n]` where they have the same; returns `true_places`."""
        distances = np.broadcast_to(_near_ties(distances), (len(true), distances.shape[1]))
        places = true_places(distances, true)
        self.found.setdefault(condition, []).append(places)
        return places

    def scores(self) -> list[WorldScore]:
        scores = []
        for condition, places in self.found.items():
            nearer, equal = (np.stack(part) for part in zip(*places, strict=True))
            scores += retrieval_scores(self.test, condition, nearer, equal, self.candidates)
        return scores


def candidate_actions(count: int = CANDIDATES, seed: int = 0) -> Tensor:
    """Perturbations spread evenly over the released recipe's ranges by a scrambled Sobol sequence, `[count, 5]`."""
    points = qmc.Sobol(4, seed=seed).random(count)
    low, high = [0.6, 0.6, np.log(0.5), 0.0], [1.4, 1.4, np.log(2.0), 2.0]
    values = qmc.scale(points, low, high)
    values[:, 2] = np.exp(values[:, 2])
    return torch.from_numpy(np.column_stack([values, np.zeros(count)])).float()


def domain_scores(world: World, films: WorldFilms, seed: int = 0) -> list[WorldScore]:
    """Which of 64 exposures of a film is the one whose perturbed copy the network saw?

    The candidates are the film under 64 perturbations; a query is one of them perturbed once more, and the action is
    that second perturbation. Conditions: action given, withheld (the identity instead), shuffled (another query's), and
    the perturbed copy's own tokens without any prediction.
    """
    rng, sampler = np.random.RandomState(seed), ActionSampler(jitter_prob=1.0, blur_prob=0.5)
    settings, found = candidate_actions(seed=seed), _Retrieval("domain", CANDIDATES)
    films = films.first(MOST_FILMS)
    for place in range(len(films)):
        candidates = perturb(films.whole([place]).expand(CANDIDATES, -1, -1, -1), settings)
        true = rng.choice(CANDIDATES, QUERIES, replace=False)
        action = torch.from_numpy(np.stack([sampler(rng) for _ in true])).float()
        seen, targets = perturb(candidates[true], action), world.targets(candidates)
        if "domain" in world.predicts:
            for condition, given in (
                ("action given", action),
                ("action withheld", None),
                ("action shuffled", action.roll(1, 0)),
            ):
                found.add(condition, _distances(world.predict(seen, given), targets), true)
        found.add("no prediction", _distances(world.targets(seen), targets), true)
    return found.scores()


def layout_boxes(height: int, width: int) -> list[CropBox]:
    """25 crops of 0.55 of a film's sides, at 5 x 5 places.

    Args:
        height, width: of the film, px.
    """
    tall, wide = round(CROP * height), round(CROP * width)
    tops, lefts = np.linspace(0, height - tall, STEPS), np.linspace(0, width - wide, STEPS)
    return [CropBox(round(top), round(left), tall, wide) for top in tops for left in lefts]


def _overlap(first: CropBox, second: CropBox) -> float:
    """Common share of two crops of one size."""
    rows, columns = abs(first.top - second.top) / first.height, abs(first.left - second.left) / first.width
    return max(0.0, 1 - rows) * max(0.0, 1 - columns)


def _with_others(films: WorldFilms, place: int, rng: np.random.Generator) -> np.ndarray | None:
    """A film and 15 of other patients; None where there aren't as many."""
    elsewhere = np.flatnonzero(films.patients != films.patients[place])
    if len(elsewhere) < FILMS - 1:
        return None
    return np.concatenate([[place], rng.choice(elsewhere, FILMS - 1, replace=False)])


def layout_scores(world: World, films: WorldFilms, seed: int = 0, controls: bool = True) -> list[WorldScore]:
    """Which of 24 other crops of the film lies where the network was asked to predict?

    Crops of 0.55 of the film's sides at 5 x 5 places; one is the context. Conditions: geometry given, none (the
    context's own place), shuffled (another query's), and the context's own tokens without any prediction; with the
    geometry given also by overlap of context and target, and against the same place in 15 films of other patients
    (`context shuffled`: predicted from another patient's context). Without `controls`, at less than half of the
    cost: the geometry given alone.
    """
    rng, films = np.random.default_rng(seed), films.first(MOST_FILMS)
    height, width = films.pixels.shape[2:]
    boxes = layout_boxes(height, width)
    shares = np.array([(b.top / height, b.left / width, b.height / height, b.width / width) for b in boxes])
    found, across = _Retrieval("layout", len(boxes) - 1), _Retrieval("layout, other patients", FILMS)
    predicts, by_overlap = "global" in world.predicts, np.full((len(films), len(OVERLAPS) - 1), np.nan)
    pool = others(films.patients, rng)
    for place in range(len(films)):
        views = crops(films.pixels[[place] * len(boxes)], shares, world.size)
        targets = world.targets(views)
        context = int(rng.integers(len(boxes)))
        rest = np.delete(np.arange(len(boxes)), context)
        true = rng.choice(len(rest), LAYOUT_QUERIES, replace=False)
        found.add("no prediction", _distances(targets[[context]], targets[rest]), true)
        if not predicts:
            continue
        asked = [boxes[n] for n in rest[true]]
        rel = torch.tensor([relative_geometry(boxes[context], box, width) for box in asked])
        seen = views[[context]]
        many = seen.expand(LAYOUT_QUERIES, -1, -1, -1)
        nearer, equal = found.add("geometry given", _distances(world.predict(many, rel=rel), targets[rest]), true)
        share = np.array([_overlap(boxes[context], box) for box in asked])
        by_overlap[place] = _by_bin(np.clip((1 - nearer) / equal, 0, 1), share)
        if not controls:
            continue
        nothing = world.predict(seen, rel=torch.zeros(1, 4))
        found.add("no geometry", _distances(nothing, targets[rest]), true)
        shuffled = world.predict(many, rel=rel.roll(1, 0))
        found.add("geometry shuffled", _distances(shuffled, targets[rest]), true)
        if (chosen := _with_others(films, place, rng)) is not None:
            there = crops(films.pixels[chosen], np.tile(shares[rest[true[0]]], (FILMS, 1)), world.size)
            elsewhere = crops(films.pixels[[int(pool[place])]], shares[[context]], world.size)
            predicted = world.predict(torch.cat([seen, elsewhere]), rel=rel[[0, 0]])
            distances = _distances(predicted, world.targets(there))
            for n, condition in enumerate(("geometry given", "context shuffled")):
                across.add(condition, distances[[n]], np.zeros(1, dtype=int))
    scores = [*found.scores(), *across.scores()]
    for column, (low, high) in enumerate(zip(OVERLAPS, OVERLAPS[1:], strict=False) if predicts else ()):
        condition = f"geometry given, overlap {low:g} to {high:g}"
        scores.append(WorldScore("layout", "recall@1", condition, by_overlap[:, column], 1 / (len(boxes) - 1)))
    return scores


def _by_bin(hits: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Mean of the hits whose overlap is in each part of `OVERLAPS`; NaN for none."""
    bins = np.digitize(share, OVERLAPS[1:-1])
    return np.array([hits[bins == b].mean() if (bins == b).any() else np.nan for b in range(len(OVERLAPS) - 1)])


def local_scores(world: World, films: WorldFilms, seed: int = 0) -> list[WorldScore]:
    """What is in the hidden block? Candidates: the same place in 15 films of other patients; other places of the film.

    The block has a third of the film's sides. Controls: the prediction from another patient's film, and the mean token
    of each place over the other films.
    """
    if "local" not in world.predicts:
        return []
    rng, (rows, columns) = np.random.default_rng(seed), world.grid
    height, width = max(1, rows // 3), max(1, columns // 3)
    corners = [(r, c) for r in range(rows - height + 1) for c in range(columns - width + 1)]
    index = np.arange(rows * columns).reshape(rows, columns)
    blocks = torch.from_numpy(np.stack([index[r : r + height, c : c + width].ravel() for r, c in corners]))
    images = films.whole()
    targets = world.targets(images)  # [N, n, T]
    total, pool = targets.sum(dim=0), others(films.patients, rng)
    across, within = _Retrieval("local, other patients", FILMS), _Retrieval("local, other places", len(corners))
    for place in range(len(films)):
        true = int(rng.integers(len(corners)))
        wanted = blocks[[true]]  # [1, K]
        visible = torch.from_numpy(np.setdiff1d(index, wanted.numpy()))[None]
        chosen, other = _with_others(films, place, rng), int(pool[place])
        mean = (total - targets[place]) / (len(films) - 1)
        predictions = {
            "film given": world.predict(images[[place]], visible=visible, wanted=wanted),
            "another film": world.predict(images[[other]], visible=visible, wanted=wanted),
            "mean of the place": mean[wanted],
        }
        for condition, predicted in predictions.items():
            if chosen is not None:
                across.add(condition, _distances(predicted, targets[chosen][:, wanted[0]]), np.zeros(1, dtype=int))
            within.add(condition, _distances(predicted, targets[place][blocks]), np.array([true]))
    return [*across.scores(), *within.scores()]
