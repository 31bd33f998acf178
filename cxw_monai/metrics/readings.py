"""Ways to read labels off frozen descriptors of films: each fits to the training films and scores the others."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional as F

__all__ = ["COMPONENTS", "STRENGTHS", "attentive_scores", "averaged", "grid_pooled", "linear_scores"]

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Values of C, the inverse strength of the L2 penalty on standardised descriptors, that are chosen from."""
COMPONENTS = 128
"""Principal components that wide descriptors are reduced to."""
GRID = 5


def grid_pooled(tokens: np.ndarray, grid: int = GRID) -> np.ndarray:
    """Tokens `[N, n * n, C]` of a square, averaged over a `grid x grid` of places: `[N, grid * grid * C]`."""
    side = int(tokens.shape[1] ** 0.5)
    maps = torch.from_numpy(tokens).transpose(1, 2).reshape(len(tokens), -1, side, side)
    return F.adaptive_avg_pool2d(maps.float(), grid).flatten(1).numpy()


def linear_scores(
    values: np.ndarray,
    positive: np.ndarray,
    patients: np.ndarray,
    train: np.ndarray,
    *,
    components: int | None = None,
    strengths: Sequence[float] = STRENGTHS,
    folds: int = 3,
    seed: int = 0,
) -> tuple[np.ndarray, float]:
    """Logistic regression on standardised values, or on their first principal components.

    C is the one of least log loss on patients held out within the training films; the smallest where none can be held
    out (scikit-learn's ``LogisticRegressionCV`` fails there, and on a fold with one value).

    Args:
        values: ``[N, D]``.
        positive: bool ``[N]``.
        patients: ``[N]``.
        train: bool ``[N]``; the others are scored. Both values are among them.
        components: reduce to as many first, where there are more dimensions.
        strengths: values of C to choose from.
        folds: that choose C; fewer where fewer patients have one of the values.
        seed: of the folds.

    Returns:
        Decision values ``[N of test]`` and the chosen C.
    """
    steps: list[Any] = [StandardScaler()]
    if components is not None and values.shape[1] > components:
        steps += [PCA(min(components, int(train.sum()) - 1), random_state=0), StandardScaler()]
    prepare = make_pipeline(*steps).fit(values[train])
    known, label, groups = prepare.transform(values[train]), positive[train], patients[train]
    model = LogisticRegression(C=min(strengths), max_iter=1000)
    count = min(folds, *(len(np.unique(groups[label == value])) for value in (False, True)))
    if count > 1 and len(strengths) > 1:
        splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
        splits = [split for split in splitter.split(known, label, groups) if len(np.unique(label[split[0]])) == 2]
        if splits:
            model = LogisticRegressionCV(Cs=sorted(strengths), cv=splits, scoring=_log_likelihood, max_iter=300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", FutureWarning)  # of attributes that aren't read
        model.fit(known, label)
    chosen = float(np.ravel(model.C_)[0]) if isinstance(model, LogisticRegressionCV) else model.C
    return model.decision_function(prepare.transform(values[~train])), chosen


def _log_likelihood(model: LogisticRegression, values: np.ndarray, label: np.ndarray) -> float:
    return -log_loss(label, model.predict_proba(values)[:, 1], labels=[False, True])


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
