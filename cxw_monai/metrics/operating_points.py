"""Operating points: thresholds chosen on validation films, and what they reach on others.

A point is chosen once, from the calibrated probabilities of the validation films, and goes with the weights; on test
films it is applied as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import roc_curve

from .classification import label_table

__all__ = ["POINTS", "OperatingPoint", "PointResult", "Rate", "choose_points", "point_results"]

POINTS = {
    "sensitivity_90": "the highest threshold of at least 90 % sensitivity",
    "sensitivity_95": "the highest threshold of at least 95 % sensitivity",
    "specificity_90": "the lowest threshold of at least 90 % specificity",
    "youden": "the greatest sum of sensitivity and specificity (Youden, Cancer 3, 1950)",
    "cost": "the least cost of misses and false alarms, at the validation films' share of positives",
}
"""What is chosen for each label."""


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold with a name.

    Attributes:
        name: one of `POINTS`.
        threshold: a label is called present where its calibrated probability is at least this; above 1 for never.
    """

    name: str
    threshold: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.threshold) or self.threshold < 0:
            raise ValueError(f"the threshold of {self.name} must be a number of at least 0, got {self.threshold}.")


def choose_points(
    probability: np.ndarray, label: np.ndarray, names: Sequence[str], miss_cost: float = 5.0
) -> dict[str, list[OperatingPoint]]:
    """Operating points of each label, from validation films.

    A threshold lies midway between two neighbouring probabilities, so that rounding doesn't move a film across it.

    Args:
        probability: `[N, L]` in [0, 1], calibrated.
        label: `[N, L]` of 0, 1 and NaN (multi-label), or int `[N]` of class numbers, -1 for unknown (multi-class: each
            class against the rest).
        names: L.
        miss_cost: of a missed film, in false alarms.

    Returns:
        The points in the order of `POINTS` by label; none for a label that all known films have or none.

    Raises:
        ValueError: shapes that don't match, labels of another value, or a cost that isn't positive.
    """
    if not miss_cost > 0:
        raise ValueError(f"miss_cost must be positive, got {miss_cost}.")
    table = label_table(label, len(names))
    if np.shape(probability) != table.shape:
        raise ValueError(f"probability must be {list(table.shape)} like the labels, got {list(np.shape(probability))}.")
    return {name: _chosen(probability[:, one], table[:, one], miss_cost) for one, name in enumerate(names)}


def _chosen(probability: np.ndarray, label: np.ndarray, miss_cost: float) -> list[OperatingPoint]:
    """Points of one label `[N]`."""
    known = ~np.isnan(label)
    probability, positive = np.asarray(probability, dtype=np.float64)[known], label[known] == 1
    if positive.all() or not positive.any():
        return []
    false_alarms, sensitivity, values = roc_curve(positive, probability, drop_intermediate=False)
    values = values[1:]  # K distinct probabilities, falling; the first threshold calls no film
    above = max((values[0] + 1) / 2, np.nextafter(values[0], 2))
    thresholds = np.concatenate([[above], (values[:-1] + values[1:]) / 2, [0]])  # [K + 1]
    specificity, share = 1 - false_alarms, positive.mean()
    cost = miss_cost * share * (1 - sensitivity) + (1 - share) * false_alarms
    places = {
        "sensitivity_90": np.argmax(sensitivity >= 0.90),
        "sensitivity_95": np.argmax(sensitivity >= 0.95),
        "specificity_90": np.flatnonzero(specificity >= 0.90)[-1],
        "youden": np.argmax(sensitivity + specificity),
        "cost": np.argmin(cost),
    }
    return [OperatingPoint(name, float(thresholds[places[name]])) for name in POINTS]


@dataclass(frozen=True)
class Rate:
    """A share of films with its Wilson interval.

    Attributes:
        count, films: how many of how many.
        value: their ratio.
        low, high: 95 % interval (Wilson, J. Am. Stat. Assoc. 22, 1927), which takes films as independent.
    """

    count: int
    films: int
    value: float
    low: float
    high: float

    @classmethod
    def of(cls, count: int, films: int) -> Rate | None:
        """None of no films."""
        if films == 0:
            return None
        interval = binomtest(count, films).proportion_ci(0.95, method="wilson")
        return cls(count, films, count / films, float(interval.low), float(interval.high))


@dataclass(frozen=True)
class PointResult:
    """What an operating point reaches on other films than it was chosen on.

    Attributes:
        label: its name.
        point: as chosen.
        sensitivity, specificity: among the films with and without the label; None where there are none.
        ppv, npv: share that is right among the films called present and absent; None where there are none.
    """

    label: str
    point: OperatingPoint
    sensitivity: Rate | None
    specificity: Rate | None
    ppv: Rate | None
    npv: Rate | None


def point_results(
    points: Mapping[str, Sequence[OperatingPoint]], probability: np.ndarray, label: np.ndarray, names: Sequence[str]
) -> list[PointResult]:
    """Rates of each point of each label; the points stay as they are.

    Args:
        points: by label, as `choose_points` gave them for validation films.
        probability, label, names: see `choose_points`.

    Raises:
        ValueError: shapes that don't match, or labels of another value.
    """
    table = label_table(label, len(names))
    if np.shape(probability) != table.shape:
        raise ValueError(f"probability must be {list(table.shape)} like the labels, got {list(np.shape(probability))}.")
    results = []
    for one, name in enumerate(names):
        known = ~np.isnan(table[:, one])
        positive = table[known, one] == 1
        for point in points.get(name, ()):
            called = probability[known, one] >= point.threshold
            results.append(
                PointResult(
                    name,
                    point,
                    sensitivity=_rate(called, among=positive),
                    specificity=_rate(~called, among=~positive),
                    ppv=_rate(positive, among=called),
                    npv=_rate(~positive, among=~called),
                )
            )
    return results


def _rate(right: np.ndarray, among: np.ndarray) -> Rate | None:
    return Rate.of(int((right & among).sum()), int(among.sum()))
