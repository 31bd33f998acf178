"""Tests of an encoder: places, parts and wholes, between and beyond, spread. They need no predictor and no labels.

Part-whole, interpolation and extrapolation are Adam-v2's (arXiv 2404.15672), with centred embeddings and controls: a
collapsed embedding, or one that its mean dominates, scores high on the plain cosine. E(crop) is the mean token.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, silhouette_samples
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor
from torch.nn import functional as F

from cxw_monai.metrics.probes import grouped_auroc
from cxw_monai.networks.positions import sincos_table

from .films import WorldFilms, crops, random_boxes
from .ridge import folds_of, held_out_predictions
from .scores import WorldScore, others
from .spread import embedding_statistics
from .worlds import World

__all__ = [
    "composition_scores",
    "localizability_scores",
    "place_errors",
    "position_scores",
    "spread_scores",
    "token_rank",
]

CROPS, TOKENS = 4, 24  # crops of a film, tokens of a crop that the position probe looks at
SIDES = (0.4, 0.8)
SHARES = (0.25, 0.5, 0.75)
PLACES, NEIGHBOURS = 3, 10


def _embedded(world: World, films: WorldFilms, boxes: np.ndarray) -> np.ndarray:
    """Mean tokens of one crop a film, `[N, D]`, for boxes `[N, 4]`."""
    return world.tokens(crops(films.pixels, boxes, world.size)).mean(dim=1).numpy()


def position_scores(world: World, films: WorldFilms, seed: int = 0) -> list[WorldScore]:
    """Where in the film is a token of a crop? Ridge regression to its row and column, patients held out.

    Crops have any place and 0.4 to 0.8 of the film's sides, so that a token's place in the crop, which every encoder is
    given, says little; `place in the crop alone` is that control. R2 of 0 is chance.
    """
    rng, (rows, columns) = np.random.default_rng(seed), world.grid
    table = sincos_table(world.grid, 64)[0].numpy()
    centres = np.stack(np.meshgrid((np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns, indexing="ij"))
    centres = centres.reshape(2, -1).T  # [n, 2]
    tokens, places, known = [], [], []
    for _ in range(CROPS):
        boxes = random_boxes(len(films), rng, SIDES)
        chosen = np.stack([rng.choice(len(centres), min(TOKENS, len(centres)), replace=False) for _ in boxes])
        found = world.tokens(crops(films.pixels, boxes, world.size)).numpy()  # [N, n, D]
        tokens.append(np.take_along_axis(found, chosen[..., None], axis=1))
        known.append(table[chosen])
        places.append(boxes[:, None, :2] + centres[chosen] * boxes[:, None, 2:])
    true = np.concatenate(places, axis=1)  # [N, m, 2]
    scores = []
    for condition, values in (("token", tokens), ("place in the crop alone", known)):
        predicted = held_out_predictions(np.concatenate(values, axis=1), true, films.patients)
        errors, spread = np.square(predicted - true).mean(axis=1), true.reshape(-1, 2).var(axis=0)
        for axis, name in enumerate(("row", "column")):
            explained = 1 - errors[:, axis] / spread[axis]
            scores.append(WorldScore("position", f"R2 of the {name}", condition, explained, 0.0))
        together, once = np.zeros(true.shape[1], int), np.ones((1, true.shape[1]))
        sides = np.array(
            [grouped_auroc(p[:, 1], t[:, 1] > 0.5, together, once)[0] for p, t in zip(predicted, true, strict=True)]
        )
        scores.append(WorldScore("position", "AUROC of left or right", condition, sides, 0.5))
    return scores


def place_errors(
    describe: Callable[[Tensor], np.ndarray], films: WorldFilms, size: tuple[int, int], seed: int = 0
) -> np.ndarray:
    """How far off is the centre of a crop that is guessed from its descriptor? `[N]`, as a share of the film.

    Args:
        describe: crops `[N, 1, H, W]` to `[N, D]`.
        films: of at least four patients.
        size: of a crop, px.
        seed: of the crops.
    """
    rng, described, places = np.random.default_rng(seed), [], []
    for _ in range(CROPS):
        boxes = random_boxes(len(films), rng, (0.3, 0.5))
        described.append(describe(crops(films.pixels, boxes, size)))
        places.append(boxes[:, :2] + boxes[:, 2:] / 2)
    true = np.stack(places, axis=1)  # [N, CROPS, 2]
    predicted = held_out_predictions(np.stack(described, axis=1), true, films.patients)
    return np.linalg.norm(predicted - true, axis=-1).mean(axis=1)


def composition_scores(world: World, films: WorldFilms, seed: int = 0) -> list[WorldScore]:
    """Is a crop the mean of its parts, and does its embedding move straight as the crop moves?

    Cosines of centred embeddings (less the mean over films), their controls with another patient's crop at the same
    place, and how often the right film is nearer than that one (chance one half).
    """
    rng = np.random.default_rng(seed)
    other, scores = others(films.patients, rng), []
    whole = random_boxes(len(films), rng, (0.4, 0.7))
    target = _embedded(world, films, whole)
    for rows, columns in ((1, 2), (2, 2)):
        parts = []
        for r in range(rows):
            for c in range(columns):
                step = whole[:, 2:] / [rows, columns]
                parts.append(_embedded(world, films, np.column_stack([whole[:, :2] + step * [r, c], step])))
        scores += _likeness(f"{rows * columns} parts and whole", np.mean(parts, axis=0), target, other)
    side = 0.35
    start = np.column_stack([rng.uniform(0, 0.25, (len(films), 2)), np.full((len(films), 2), side)])
    way = rng.uniform(0.15, 0.2, (len(films), 2))
    ends = [_embedded(world, films, _moved(start, share * way)) for share in (0.0, 1.0)]
    for share in SHARES:
        between = _embedded(world, films, _moved(start, share * way))
        scores += _likeness(f"interpolation at {share:g}", (1 - share) * ends[0] + share * ends[1], between, other)
        beyond = _embedded(world, films, _moved(start, (1 + share) * way))
        scores += _likeness(f"extrapolation by {share:g}", ends[1] + share * (ends[1] - ends[0]), beyond, other)
    return scores


def _moved(boxes: np.ndarray, shift: np.ndarray) -> np.ndarray:
    return np.column_stack([boxes[:, :2] + shift, boxes[:, 2:]])


def _likeness(test: str, made: np.ndarray, target: np.ndarray, other: np.ndarray) -> list[WorldScore]:
    """Cosine of `made` and `target` `[N, D]`, plain and centred, and of another film's `made`."""
    centred, true = made - made.mean(axis=0), target - target.mean(axis=0)
    own, foreign = _cosine(centred, true), _cosine(centred[other], true)
    nearer = np.where(np.isclose(own, foreign, atol=1e-9), 0.5, own > foreign)
    return [
        WorldScore(test, "centred cosine", "same film", own, 0.0),
        WorldScore(test, "centred cosine", "another film", foreign, 0.0),
        WorldScore(test, "same film is nearer", "same film", nearer.astype(float), 0.5),
        WorldScore(test, "plain cosine", "same film", _cosine(made, target)),
        WorldScore(test, "plain cosine", "another film", _cosine(made[other], target)),
    ]


def _cosine(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return np.divide((first * second).sum(axis=1), length, out=np.zeros(len(first)), where=length > 1e-12)


def localizability_scores(world: World, films: WorldFilms, seed: int = 0) -> list[WorldScore]:
    """Do crops of one place in different patients look alike? Nine places, a third of the film's sides each.

    Accuracy of 10 nearest neighbours among other patients' crops, silhouette of the places, and the adjusted Rand index
    of nine clusters; `16 x 16 pixels` describes a crop by its grey values instead.
    """
    rng, side = np.random.default_rng(seed), 1 / PLACES
    described: dict[str, list[np.ndarray]] = {"embedding": [], "16 x 16 pixels": []}
    for row in range(PLACES):
        for column in range(PLACES):
            corner = np.array([row, column]) * side + rng.uniform(-0.04, 0.04, (len(films), 2))
            corner = np.clip(corner, 0, 1 - side)
            views = crops(films.pixels, np.column_stack([corner, np.full((len(films), 2), side)]), world.size)
            described["embedding"].append(world.tokens(views).mean(dim=1).numpy())
            described["16 x 16 pixels"].append(F.interpolate(views, (16, 16), mode="area").flatten(1).numpy())
    names = np.repeat(np.arange(PLACES**2), len(films))
    patients, scores = np.tile(films.patients, PLACES**2), []
    for condition, parts in described.items():
        values = np.concatenate(parts)
        values = (values - values.mean(axis=0)) / (values.std(axis=0) + 1e-6)
        right = np.zeros(len(values))
        for held in folds_of(patients):
            voters = KNeighborsClassifier(min(NEIGHBOURS, int((~held).sum()))).fit(values[~held], names[~held])
            right[held] = voters.predict(values[held]) == names[held]
        clusters = KMeans(PLACES**2, n_init=3, random_state=seed).fit_predict(values)
        rand = adjusted_rand_score(names, clusters)
        for measure, found, chance in (
            ("accuracy of the place", right, 1 / PLACES**2),
            ("silhouette of the places", silhouette_samples(values, names), 0.0),
        ):
            by_film = found.reshape(PLACES**2, -1).mean(axis=0)
            scores.append(WorldScore("localizability", measure, condition, by_film, chance))
        of_all = np.full(len(films), rand)
        scores.append(WorldScore("localizability", "adjusted Rand index of nine clusters", condition, of_all, 0.0))
    return scores


def token_rank(world: World, films: WorldFilms) -> float:
    """Effective rank of the films' tokens, from 1 (collapsed) to their channels."""
    return embedding_statistics(world.tokens(films.whole()))["rank"]


def spread_scores(world: World, films: WorldFilms, seed: int = 0) -> list[WorldScore]:
    """Effective rank (RankMe, arXiv 2210.02885) and uniformity (arXiv 2005.10242) of tokens and of mean tokens.

    Uniformity is `log E exp(-2 |x - y|^2)` of unit vectors: 0 for a collapse, -4 at best.
    """
    tokens, scores = world.tokens(films.whole()), []
    for condition, values in (("tokens", tokens.flatten(0, 1)), ("mean tokens", tokens.mean(dim=1))):
        if len(values) > 2048:
            chosen = torch.randperm(len(values), generator=torch.Generator().manual_seed(seed))[:2048]
            values = values[chosen]
        rank = embedding_statistics(values)["rank"]
        apart = torch.pdist(F.normalize(values.double(), dim=1)).square()
        uniformity = float(torch.logsumexp(-2 * apart, 0) - np.log(len(apart))) if len(apart) else float("nan")
        for measure, value, higher in (("effective rank", rank, True), ("uniformity", uniformity, False)):
            scores.append(WorldScore("spread", measure, condition, np.full(len(films), value), None, higher))
    return scores
