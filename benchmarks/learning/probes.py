"""What the learning benchmark reads off frozen descriptors besides labels: neighbours, age, and outlines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn import functional as F

__all__ = ["few_shot_dice", "nearest_scores", "ridge_predictions"]

PENALTIES = tuple(10.0**k for k in range(-2, 7))
NEIGHBOURS = 20
CELLS = 4  # cells along a token's side that the outline decoder gives
DICE_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)


def nearest_scores(values: np.ndarray, labels: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Share of each label among the 20 most similar training films (cosine, standardised), `[N of test, L]`."""
    scaled = StandardScaler().fit(values[train]).transform(values)
    voters = KNeighborsClassifier(NEIGHBOURS, weights="distance", metric="cosine")
    shares = [voters.fit(scaled[train], label[train]).predict_proba(scaled[~train])[:, 1] for label in labels.T]
    return np.stack(shares, axis=1)


def ridge_predictions(values: np.ndarray, numbers: np.ndarray, train: np.ndarray, components: int) -> np.ndarray:
    """Ridge regression on principal components, its penalty by leave-one-out: a number for each test film."""
    reduce = PCA(min(components, int(train.sum()) - 1, values.shape[1]), random_state=0)
    model = make_pipeline(StandardScaler(), reduce, StandardScaler(), RidgeCV(PENALTIES))
    return model.fit(values[train], numbers[train]).predict(values[~train])


def few_shot_dice(
    tokens: np.ndarray, masks: np.ndarray, patients: np.ndarray, shots: int, repeats: int = 5
) -> np.ndarray:
    """Outlines by one linear map a token, fitted in closed form to a few films: the encoder stays as it is.

    Each token gives 4 x 4 cells of each structure (ridge regression on their share of the outline, its penalty by
    films held out among the few), which are enlarged to the film and cut at one half.

    Args:
        tokens: `[N, n * n, C]`.
        masks: bool `[N, S, H, W]`.
        patients: `[N]`; the training films are of as many patients, and these are not tested on.
        shots: training films.
        repeats: draws of the training films, the same for all descriptors.

    Returns:
        Mean Dice `[repeats, S]` over the test films.

    Raises:
        ValueError: when there are not more patients than shots.
    """
    names = np.unique(patients)
    if len(names) <= shots:
        raise ValueError(f"{shots} shots need more patients than {len(names)}.")
    side = int(tokens.shape[1] ** 0.5)
    cells = F.adaptive_avg_pool2d(torch.from_numpy(masks).float(), side * CELLS)
    wanted = F.pixel_unshuffle(cells, CELLS).flatten(2).transpose(1, 2).numpy()  # [N, n * n, S * 16]
    found = []
    for repeat in range(repeats):
        order = np.random.default_rng([repeat, shots]).permutation(len(names))
        chosen = [int(np.flatnonzero(patients == names[place])[0]) for place in order[:shots]]
        test = ~np.isin(patients, names[order[:shots]])
        predicted = _decoded(tokens[chosen], wanted[chosen], tokens[test])
        found.append(_dice(predicted, masks[test], side))
    return np.stack(found)


def _decoded(known: np.ndarray, wanted: np.ndarray, unknown: np.ndarray) -> np.ndarray:
    scaler = StandardScaler().fit(known.reshape(-1, known.shape[-1]))
    x = np.stack([scaler.transform(film) for film in known])
    held = np.arange(len(x)) % 4 == 0
    errors = {}
    for penalty in DICE_PENALTIES:
        weights = _ridge(x[~held], wanted[~held], penalty)
        errors[penalty] = np.square(_apply(x[held], weights) - wanted[held]).mean()
    weights = _ridge(x, wanted, min(errors, key=errors.__getitem__))
    return _apply(np.stack([scaler.transform(film) for film in unknown]), weights)


def _ridge(x: np.ndarray, y: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    x, y = x.reshape(-1, x.shape[-1]).astype(np.float64), y.reshape(-1, y.shape[-1])
    mean, level = x.mean(axis=0), y.mean(axis=0)
    gram = (x - mean).T @ (x - mean) / len(x) + penalty * np.eye(x.shape[1])
    weights = np.linalg.solve(gram, (x - mean).T @ (y - level) / len(x))
    return weights, level - mean @ weights


def _apply(x: np.ndarray, weights: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return x @ weights[0] + weights[1]


def _dice(predicted: np.ndarray, masks: np.ndarray, side: int) -> Sequence[float]:
    cells = torch.from_numpy(predicted).float().transpose(1, 2).unflatten(2, (side, side))
    maps = F.interpolate(F.pixel_shuffle(cells, CELLS), size=masks.shape[2:], mode="bilinear", align_corners=False)
    drawn = maps.numpy() >= 0.5
    both, total = (drawn & masks).sum(axis=(2, 3)), drawn.sum(axis=(2, 3)) + masks.sum(axis=(2, 3))
    return (2 * both / np.maximum(total, 1)).mean(axis=0)
