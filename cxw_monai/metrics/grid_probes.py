"""Frozen probes of the learning benchmark: what can be read off descriptors that were made without the labels.

All are fitted on the training films; whatever is chosen (a penalty) is chosen by patients held out among those.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from scipy.stats import rankdata
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegressionCV, RidgeCV
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional as F

__all__ = [
    "attentive_scores",
    "averaged",
    "few_shot_dice",
    "grid_pooled",
    "linear_scores",
    "nearest_scores",
    "ridge_predictions",
]

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
PENALTIES = tuple(10.0**k for k in range(-2, 7))
COMPONENTS = 128
NEIGHBOURS = 20
GRID = 5
CELLS = 4  # cells along a token's side that the outline decoder gives
DICE_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)


def grid_pooled(tokens: np.ndarray, grid: int = GRID) -> np.ndarray:
    """Tokens `[N, n * n, C]` of a square, averaged over a `grid x grid` of places: `[N, grid * grid * C]`."""
    side = int(tokens.shape[1] ** 0.5)
    maps = torch.from_numpy(tokens).transpose(1, 2).reshape(len(tokens), -1, side, side)
    return F.adaptive_avg_pool2d(maps.float(), grid).flatten(1).numpy()


def _components(count: int, values: np.ndarray, seed: int) -> PCA:
    """Principal components, no more than can have a variance."""
    return PCA(min(count, len(values) - 1, values.shape[1]), random_state=seed)


def linear_scores(
    values: np.ndarray,
    labels: np.ndarray,
    patients: np.ndarray,
    train: np.ndarray,
    components: int | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Logistic regression on standardised values, or on their first principal components.

    Args:
        values: `[N, D]`.
        labels: bool `[N, L]`.
        patients: `[N]`.
        train: bool `[N]`; the others are scored.
        components: reduce to as many first.

    Returns:
        Decision values `[N of test, L]`.
    """
    found = []
    for label in labels.T:
        folds = StratifiedGroupKFold(3, shuffle=True, random_state=seed)
        splits = list(folds.split(values[train], label[train], patients[train]))
        steps = [StandardScaler()]
        if components is not None:
            steps += [_components(components, values[train], seed), StandardScaler()]
        model = LogisticRegressionCV(
            Cs=STRENGTHS, cv=splits, scoring="neg_log_loss", max_iter=300, l1_ratios=(0.0,), use_legacy_attributes=False
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            fitted = make_pipeline(*steps, model).fit(values[train], label[train])
        found.append(fitted.decision_function(values[~train]))
    return np.stack(found, axis=1)


def nearest_scores(values: np.ndarray, labels: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Share of each label among the 20 most similar training films (cosine, standardised), `[N of test, L]`."""
    scaled = StandardScaler().fit(values[train]).transform(values)
    voters = KNeighborsClassifier(NEIGHBOURS, weights="distance", metric="cosine")
    shares = [voters.fit(scaled[train], label[train]).predict_proba(scaled[~train])[:, 1] for label in labels.T]
    return np.stack(shares, axis=1)


def ridge_predictions(values: np.ndarray, numbers: np.ndarray, train: np.ndarray, components: int) -> np.ndarray:
    """Ridge regression on principal components, its penalty by leave-one-out: a number for each test film."""
    reduce = _components(components, values[train], seed=0)
    model = make_pipeline(StandardScaler(), reduce, StandardScaler(), RidgeCV(PENALTIES))
    return model.fit(values[train], numbers[train]).predict(values[~train])


class _AttentivePool(nn.Module):
    """One learnt query a label, attention over tokens in each of `heads` parts of the channels, one linear map."""

    def __init__(self, channels: int, labels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Parameter(torch.zeros(labels, heads, channels // heads))
        self.weight = nn.Parameter(torch.zeros(labels, channels))
        self.bias = nn.Parameter(torch.zeros(labels))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """`[B, n, C]` to logits `[B, L]`."""
        parts = tokens.unflatten(2, (self.heads, -1))  # [B, n, h, C / h]
        attention = torch.einsum("bnhc,lhc->blhn", parts, self.query).softmax(dim=-1)
        pooled = torch.einsum("blhn,bnhc->blhc", attention, parts).flatten(2)  # [B, L, C]
        return (pooled * self.weight).sum(dim=-1) + self.bias


def attentive_scores(
    tokens: np.ndarray, labels: np.ndarray, train: np.ndarray, heads: int = 4, steps: int = 150, seed: int = 0
) -> np.ndarray:
    """Attentive probe: logits `[N of test, L]` of a pooling by learnt queries, all labels side by side.

    A fixed short schedule (AdamW 1e-2, cosine, weight decay 0.1, batches of 128), the same for all descriptors.
    """
    generator = torch.Generator().manual_seed(seed)
    mean, std = tokens[train].mean(axis=(0, 1)), tokens[train].std(axis=(0, 1))
    scaled = torch.from_numpy((tokens - mean) / (std + 1e-6)).float()
    scaled = F.pad(scaled, (0, -scaled.shape[-1] % heads))
    known, wanted = scaled[train], torch.from_numpy(labels[train]).float()
    model = _AttentivePool(scaled.shape[-1], labels.shape[1], heads)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        chosen = torch.randint(len(known), (128,), generator=generator)
        loss = F.binary_cross_entropy_with_logits(model(known[chosen]), wanted[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return model(scaled[~train]).numpy()


def averaged(scores: Sequence[np.ndarray]) -> np.ndarray:
    """One score of several, each `[N, L]`: the mean of a film's ranks, so that probes of other scales count alike."""
    return np.mean([rankdata(one, axis=0) for one in scores], axis=0)


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
