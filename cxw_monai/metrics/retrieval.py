"""Scores of neighbours: precision at k, mean average precision, and a label's probability by its neighbours' vote."""

from __future__ import annotations

import numpy as np

__all__ = ["TEMPERATURE", "average_precision", "neighbour_vote", "precision_at"]

TEMPERATURE = 0.1
"""Of the votes, in units of similarity."""


def precision_at(count: int, similarity: np.ndarray, relevant: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Share of each query's `count` most similar films that are relevant.

    Args:
        count: k, at least 1.
        similarity: `[Q, N]`.
        relevant: bool `[Q, N]`.
        allowed: bool `[Q, N]`, films that are among the neighbours at all: not the query itself, say.

    Returns:
        float64 `[Q]` in [0, 1], of fewer films where fewer are allowed; NaN where no film that is allowed is
        relevant.

    Raises:
        ValueError: `count` is below 1.
    """
    if count < 1:
        raise ValueError(f"k must be at least 1, got {count}.")
    ranked, there = _ranked(similarity, relevant, allowed)
    found = (ranked & there)[:, :count].sum(axis=1).astype(np.float64)
    found /= np.maximum(there[:, :count].sum(axis=1), 1)
    return np.where((ranked & there).any(axis=1), found, np.nan)


def average_precision(similarity: np.ndarray, relevant: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Mean, over a query's relevant films, of the precision at the place where each is found.

    Its mean over queries is the mAP of retrieval. Arguments as for `precision_at`.

    Returns:
        float64 `[Q]` in [0, 1]; NaN where no film that is allowed is relevant.
    """
    ranked, there = _ranked(similarity, relevant, allowed)
    hits = ranked & there
    precision = hits.cumsum(axis=1) / np.arange(1, hits.shape[1] + 1)
    total = hits.sum(axis=1)
    found = (precision * hits).sum(axis=1) / np.maximum(total, 1)
    return np.where(total > 0, found, np.nan)


def _ranked(similarity: np.ndarray, relevant: np.ndarray, allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`relevant` and `allowed` in the order of falling similarity, films that are not allowed last."""
    order = np.argsort(np.where(allowed, -np.asarray(similarity, np.float64), np.inf), axis=1, kind="stable")
    return np.take_along_axis(relevant, order, 1), np.take_along_axis(allowed, order, 1)


def neighbour_vote(similarity: np.ndarray, label: np.ndarray, temperature: float = TEMPERATURE) -> np.ndarray:
    """Probability of a label by the vote of neighbours, each weighted by the softmax of its similarity.

    Args:
        similarity: `[Q, k]`; -inf for a neighbour that is missing.
        label: `[Q, k]`, 1 and 0, NaN for unknown, which has no vote.
        temperature: of the softmax; above 0. The lower it is, the more the nearest count.

    Returns:
        float64 `[Q]` in [0, 1]; NaN where no neighbour votes.

    Raises:
        ValueError: a temperature that isn't positive, or shapes that differ.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}.")
    if np.shape(similarity) != np.shape(label):
        raise ValueError(f"similarity and label differ in shape: {np.shape(similarity)} and {np.shape(label)}.")
    votes = np.isfinite(similarity) & ~np.isnan(label)
    scaled = np.where(votes, np.asarray(similarity, np.float64), -np.inf) / temperature
    most = np.max(scaled, axis=1, keepdims=True, initial=-1e300)
    weight = np.where(votes, np.exp(np.where(votes, scaled - most, 0)), 0)
    total = weight.sum(axis=1)
    found = (weight * np.nan_to_num(label)).sum(axis=1) / np.where(total > 0, total, 1)
    return np.where(total > 0, found, np.nan)
