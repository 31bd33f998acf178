"""Scores of the tests of a world model: one value a film, its mean with an interval over patients, the chance level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cxw_monai.metrics.probes import bootstrap_weights

__all__ = ["QUANTILES", "WorldScore", "others", "resampled_means", "retrieval_scores", "summary", "true_places"]

RECALLS = (1, 3, 5)
QUANTILES = (0.025, 0.975)


@dataclass(frozen=True)
class WorldScore:
    """One number of a test.

    Attributes:
        test: `domain`, `layout`, ...
        measure: what is measured, with its unit.
        condition: what the network was given, or which control this is.
        values: float `[N]`, one a film; NaN where a film has none.
        chance: what guessing reaches; None where there is no such level.
        higher: whether more is better.
    """

    test: str
    measure: str
    condition: str
    values: np.ndarray
    chance: float | None = None
    higher: bool = True


def true_places(distances: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many candidates are nearer than the true one, and how many are as near (itself included).

    Args:
        distances: `[Q, n]`.
        true: int `[Q]`, the true candidate of each query.

    Returns:
        Two int `[Q]`.
    """
    own = distances[np.arange(len(true)), true][:, None]
    return (distances < own).sum(axis=1), (distances == own).sum(axis=1)


def retrieval_scores(
    test: str, condition: str, nearer: np.ndarray, equal: np.ndarray, candidates: int, recalls: Sequence[int] = RECALLS
) -> list[WorldScore]:
    """Recall@k and the mean reciprocal rank; among equally near candidates each order counts alike.

    Args:
        test, condition: of the scores.
        nearer, equal: `[N, Q]` of N films with Q queries each, see `true_places`.
        candidates: n that a query chooses from; chance is k / n and H_n / n.
        recalls: the k; those that are not below n are left out.
    """
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, candidates + 1))])
    found = [
        WorldScore(test, f"recall@{k}", condition, np.clip((k - nearer) / equal, 0, 1).mean(axis=1), k / candidates)
        for k in recalls
        if k < candidates
    ]
    reciprocal = (harmonic[nearer + equal] - harmonic[nearer]) / equal
    chance = harmonic[candidates] / candidates
    return [*found, WorldScore(test, "mean reciprocal rank", condition, reciprocal.mean(axis=1), chance)]


def others(patients: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each film one of another patient, `[N]`, drawn at random.

    Raises:
        ValueError: all films are of one patient.
    """
    if len(np.unique(patients)) < 2:
        raise ValueError("the controls need films of two patients or more, got one patient; add films of others")
    return np.array([rng.choice(np.flatnonzero(patients != patient)) for patient in patients])


def resampled_means(values: np.ndarray, patients: np.ndarray, draws: int = 1000, seed: int = 0) -> np.ndarray:
    """Mean of `[N]` over films, then its means when patients are drawn with replacement: `[1 + draws]`.

    NaN counts for nothing; a draw without any value has the mean NaN.
    """
    weights = bootstrap_weights(patients, draws, seed).astype(np.float64)
    known = np.isfinite(values)
    total, count = weights @ np.where(known, values, 0), weights @ known
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def summary(score: WorldScore, patients: np.ndarray, seed: int = 0) -> Mapping[str, Any]:
    """A score as a row of the table: mean, 95 % percentile interval over resampled patients, chance, films.

    Args:
        score: of the first films, where it isn't of all.
        patients: of all films, `[N]`.
        seed: of the resamplings.

    Returns:
        The row. It has no interval where all films have the same value, as those of a number of all films together.
    """
    patients, known = patients[: len(score.values)], score.values[np.isfinite(score.values)]
    row: dict[str, Any] = {"test": score.test, "measure": score.measure, "condition": score.condition}
    row |= {"value": None, "low": None, "high": None, "chance": score.chance}
    row |= {"better": "higher" if score.higher else "lower", "films": len(known)}
    if len(known):
        means = resampled_means(score.values, patients, seed=seed)
        row["value"] = float(means[0])
        if np.ptp(known) > 0:
            row["low"], row["high"] = (float(end) for end in np.nanquantile(means[1:], QUANTILES))
    return row
