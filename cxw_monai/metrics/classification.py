"""Scores of a classifier, a label at a time, with 95 % intervals by bootstrap of the patients.

A label is *known* on a film where it has a value; unknown ones have no share in any score. The scores of
all resamplings come from one pass over the films and are what scikit-learn gives with ``sample_weight``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .probes import bootstrap_weights, grouped_auroc

__all__ = ["ALL", "BINS", "METRICS", "LabelScores", "Score", "decided", "label_scores", "label_table"]

METRICS = ("auroc", "auprc", "accuracy", "f1", "sensitivity", "specificity", "calibration_error")
"""What :func:`label_scores` gives."""

ALL = "all"
"""Name of the scores over all labels."""

BINS = 10
"""Bins of equal width between 0 and 1, of the calibration error and of reliability plots."""

_INTERVAL = (0.025, 0.975)
_AT_ONCE = 2_000_000  # films times resamplings, in memory


@dataclass(frozen=True)
class Score:
    """A score and its 95 % interval.

    Attributes:
        value: of all films.
        low, high: percentiles over resampled patients; None without resamplings, where a single patient has one of the
            label's values, and for the calibration error, which noise only adds to: it is larger in most
            resamplings than in the films that they are drawn from.
    """

    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, values: np.ndarray) -> Score:
        """Of the value of all films and then those of the resamplings, `[1 + draws]`; NaN is left out of these."""
        if np.isnan(values[1:]).all():
            return cls(float(values[0]))
        low, high = np.nanquantile(values[1:], _INTERVAL)
        return cls(float(values[0]), float(low), float(high))


@dataclass(frozen=True)
class LabelScores:
    """Scores of one label, or of all.

    Attributes:
        name: the label's, or `ALL`.
        films, patients, positives, negatives: where the label is known; over all labels, films and patients with a
            known one, and sums.
        unknown: films whose label is unknown; over all labels, the sum.
        scores: by name in `METRICS`, without those that aren't defined.
        reason: why some aren't defined, else None. Over all labels, how many have an AUROC, where some haven't.
    """

    name: str
    films: int
    patients: int
    positives: int
    negatives: int
    unknown: int
    scores: Mapping[str, Score]
    reason: str | None = None


def label_table(label: np.ndarray, labels: int) -> np.ndarray:
    """Labels as float `[N, L]` of 0, 1 and NaN for unknown.

    Args:
        label: `[N, L]` of 0, 1 and NaN (multi-label), or int `[N]` of class numbers, -1 for unknown (multi-class).
        labels: L.

    Raises:
        ValueError: another shape, or another value.
    """
    label = np.asarray(label)
    if label.ndim == 1:
        if label.dtype.kind not in "iu" or (label.size and not -1 <= label.min() <= label.max() < labels):
            raise ValueError(f"class numbers must be integers from -1 (unknown) to {labels - 1}, got {_few(label)}.")
        return np.where(label[:, None] < 0, np.nan, np.arange(labels) == label[:, None])
    if label.ndim != 2 or label.shape[1] != labels:
        raise ValueError(f"label must be [N, {labels}] or class numbers [N], got the shape {label.shape}.")
    table = label.astype(np.float64)
    if not (np.isnan(table) | (table == 0) | (table == 1)).all():
        raise ValueError(f"labels must be 0, 1 or NaN (unknown), got {_few(table[~np.isnan(table)])}.")
    return table


def decided(probability: np.ndarray, label: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """What a classifier says, bool `[N, L]`: labels of at least the threshold, or the most probable class.

    Args:
        probability: `[N, L]`.
        label: its number of dimensions tells multi-label (2) from multi-class (1).
        threshold: of multi-label.
    """
    if np.ndim(label) == 1:
        return np.arange(probability.shape[1]) == probability.argmax(axis=1)[:, None]
    return probability >= threshold


def label_scores(
    probability: np.ndarray,
    label: np.ndarray,
    names: Sequence[str],
    patients: Sequence[str],
    draws: int = 1000,
    seed: int = 0,
    threshold: float = 0.5,
) -> list[LabelScores]:
    """Scores of each label, one against the rest, and over all as the last.

    Args:
        probability: `[N, L]` in [0, 1].
        label: see :func:`label_table`.
        names: L.
        patients: N ids; resampled with replacement, each with all of their films.
        draws: resamplings; 0 for no intervals.
        seed: of the resamplings.
        threshold: from which a label of multi-label is called present. In multi-class it is the most probable one.

    Returns:
        L + 1 results. AUPRC is scikit-learn's average precision; the calibration error is the expected one (Guo et
        al., https://proceedings.mlr.press/v70/guo17a.html) over `BINS` bins of the probability. A label that all films
        have, or none, gets what is defined there, and a reason.

        Over all labels, a score is the mean of the labels' where it is defined. But in multi-class, accuracy is the
        share of films whose most probable class is right, and the calibration error that of this class's probability.

    Raises:
        ValueError: shapes that don't match, no film, a value outside its range, or a label named `ALL`.
    """
    probability, table = _checked(probability, label, names, patients)
    decisions = decided(probability, label, threshold)
    groups = np.unique(np.array([str(patient) for patient in patients]), return_inverse=True)[1]
    weights = bootstrap_weights(groups, draws, seed)
    known = ~np.isnan(table)
    drawn = []  # of each label: [1 + draws] by metric
    for one in range(len(names)):
        chosen = known[:, one]
        parts = probability[chosen, one], table[chosen, one] == 1, decisions[chosen, one]
        drawn.append(_weighted(*parts, weights[:, chosen]))
    rows = [
        _row(name, table[:, [one]], groups, {metric: Score.of(values) for metric, values in drawn[one].items()})
        for one, name in enumerate(names)
    ]
    total = {metric: np.stack([found[metric] for found in drawn]) for metric in METRICS}  # [L, 1 + draws]
    means = {metric: _mean(values, ~np.isnan(values[:, :1])) for metric, values in total.items()}
    if np.ndim(label) == 1:
        chosen = known[:, 0]
        right, top = (decisions & (table == 1)).any(axis=1)[chosen], probability.max(axis=1)[chosen]
        found = _weighted(top, right, np.ones(len(right), bool), weights[:, chosen])
        means.update(accuracy=found["accuracy"], calibration_error=found["calibration_error"])
    return [*rows, _row(ALL, table, groups, {metric: Score.of(values) for metric, values in means.items()})]


def _checked(
    probability: np.ndarray, label: np.ndarray, names: Sequence[str], patients: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels as float64 `[N, L]`."""
    probability = np.asarray(probability, dtype=np.float64)
    if probability.ndim != 2 or probability.shape[1] != len(names):
        raise ValueError(f"probability must be [N, {len(names)}] for {len(names)} names, got {probability.shape}.")
    if not len(probability) == len(label) == len(patients):
        raise ValueError(
            f"probability, label and patients differ in length: {len(probability)}, {len(label)}, {len(patients)}."
        )
    if not len(probability):
        raise ValueError("there are no films to score.")
    if not ((probability >= 0) & (probability <= 1)).all():  # NaN too
        raise ValueError(f"probabilities must lie in [0, 1], got {_few(probability)}.")
    if ALL in names:
        raise ValueError(f"no label may be called {ALL!r}, which names the scores over all; rename it.")
    return probability, label_table(label, len(names))


def _few(values: np.ndarray) -> str:
    return f"values from {values.min()} to {values.max()} of type {values.dtype}" if values.size else "none"


def _weighted(
    probability: np.ndarray, positive: np.ndarray, decision: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Metrics `[R]` of one label's known films `[N]`, which count `weights` `[R, N]` times; NaN where not defined.

    The first weights are 1.
    """
    order = np.argsort(-probability, kind="stable")
    probability, positive, decision = probability[order], positive[order], decision[order]
    size = max(1, _AT_ONCE // max(1, len(order)))
    blocks = []
    for start in range(0, len(weights), size):
        block = weights[start : start + size, order].astype(np.float64)
        blocks.append(_block(probability, positive, decision, block))
    found = {metric: np.concatenate([block[metric] for block in blocks]) for metric in blocks[0]}
    error = np.full(len(weights), np.nan)  # of all films alone
    error[0] = calibration_error(probability, positive)
    return {**found, "calibration_error": error}


def _block(
    probability: np.ndarray, positive: np.ndarray, decision: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """All but the calibration error, of films in descending order of probability and float weights."""
    every = weights.sum(axis=1)
    positives = weights @ positive
    hits, calls = weights @ (positive & decision), weights @ decision  # true positives, all called positive
    rejected = every - positives - (calls - hits)  # true negatives
    return {
        "auroc": grouped_auroc(probability, positive, np.zeros(len(positive), int), weights),
        "auprc": np.where(positives < every, _average_precision(probability, positive, weights), np.nan),
        "accuracy": _ratio(hits + rejected, every),
        "f1": np.where(positives > 0, _ratio(2 * hits, calls + positives), np.nan),
        "sensitivity": _ratio(hits, positives),
        "specificity": _ratio(rejected, every - positives),
    }


def _average_precision(probability: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sum over thresholds of precision times the rise in recall, `[R]`; films in descending order."""
    if not len(probability):
        return np.full(len(weights), np.nan)
    ends = np.append(np.flatnonzero(np.diff(probability)), len(probability) - 1)  # last film of each run of ties
    found, called = (weights * positive).cumsum(axis=1)[:, ends], weights.cumsum(axis=1)[:, ends]
    rise = np.diff(found, axis=1, prepend=0)
    precision = np.divide(found, called, out=np.zeros_like(found), where=called > 0)
    return _ratio((precision * rise).sum(axis=1), found[:, -1])


def calibration_error(probability: np.ndarray, positive: np.ndarray) -> float:
    """Mean over films of their bin's |mean probability - share of positives|; NaN without films."""
    if not len(probability):
        return float("nan")
    place = np.minimum((probability * BINS).astype(int), BINS - 1)
    return float(np.abs(np.bincount(place, probability - positive)).sum() / len(probability))


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(len(below), np.nan), where=below > 0)


def _mean(values: np.ndarray, defined: np.ndarray) -> np.ndarray:
    """Mean over the labels whose score of all films is defined, `[L, R]` to `[R]`; NaN where a draw lacks one."""
    return values[defined[:, 0]].mean(axis=0) if defined.any() else np.full(values.shape[1], np.nan)


def _row(name: str, table: np.ndarray, groups: np.ndarray, scores: Mapping[str, Score]) -> LabelScores:
    """Counts and defined scores of the labels `[N, K]`."""
    known, defined = ~np.isnan(table), {metric: score for metric, score in scores.items() if not np.isnan(score.value)}
    carriers = [len(np.unique(groups[column == value])) for column in table.T for value in (0, 1)]
    if 1 in carriers:
        defined = {metric: Score(score.value) for metric, score in defined.items()}
    films = known.any(axis=1)
    return LabelScores(
        name,
        films=int(films.sum()),
        patients=len(np.unique(groups[films])),
        positives=int((table == 1).sum()),
        negatives=int((table == 0).sum()),
        unknown=int((~known).sum()),
        scores=defined,
        reason=_reason(table),
    )


def _reason(table: np.ndarray) -> str | None:
    """Why not all scores of these labels are defined."""
    positives, negatives = (table == 1).sum(axis=0), (table == 0).sum(axis=0)
    both = (positives > 0) & (negatives > 0)
    if both.all():
        return None
    if len(both) == 1:
        return f"not defined: {positives[0]} films with it, {negatives[0]} without"
    return f"{both.sum()} of {len(both)} labels have films with and without it"
