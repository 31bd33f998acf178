"""Calibration of a classifier: what a probability is worth, and temperature scaling fitted on validation.

Guo et al., On Calibration of Modern Neural Networks, ICML 2017 (https://proceedings.mlr.press/v70/guo17a.html). A
temperature is fitted to Platt's targets in the place of 0 and 1 (Platt, Probabilistic Outputs for Support Vector
Machines, 1999), which say how sure so many films can make: a few films in perfect order don't prove every next one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from monai.metrics import calibration_binning
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, softmax

from .classification import BINS, label_table

__all__ = ["Reliability", "Temperature", "reliability"]

_COLDEST, _HOTTEST = 0.05, 20.0
_AT_BOUND = 1.01  # a fitted temperature this near to a bound, as a factor, has no optimum between them


@dataclass(frozen=True)
class Reliability:
    """Bins of equal width of one label's probabilities, without empty ones.

    Attributes:
        probability: mean in each bin, `[K]`.
        share: of the films with the label in each bin, `[K]`.
        films: in each bin, `[K]`.
    """

    probability: np.ndarray
    share: np.ndarray
    films: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error: the films' mean distance of share and probability; NaN without films."""
        return float((self.films * np.abs(self.share - self.probability)).sum() / max(1, self.films.sum()))


def reliability(probability: np.ndarray, label: np.ndarray, bins: int = BINS) -> Reliability:
    """What a reliability plot shows of one label.

    Args:
        probability: `[N]` in [0, 1].
        label: `[N]` of 0, 1 and NaN for unknown.
        bins: between 0 and 1.
    """
    known = ~np.isnan(label)
    shown, wanted = (torch.from_numpy(np.asarray(one, np.float64)[known])[None, None] for one in (probability, label))
    found = calibration_binning(shown, wanted, num_bins=bins, right=True)  # three of [1, 1, bins]
    mean, share, films = (values[0, 0].double().numpy() for values in found)
    filled = films > 0
    return Reliability(mean[filled], share[filled], films[filled].astype(int))


@dataclass(frozen=True)
class Temperature:
    """What logits are divided by before they become probabilities; the order of the films stays.

    Attributes:
        values: one a label (multi-label), or a single one (multi-class).
        multiclass: probabilities are a softmax over the classes, else a sigmoid a label.
    """

    values: tuple[float, ...]
    multiclass: bool = False

    def __post_init__(self) -> None:
        if not self.values or not all(math.isfinite(value) and value > 0 for value in self.values):
            raise ValueError(f"temperatures must be positive numbers, got {self.values}.")
        if self.multiclass and len(self.values) != 1:
            raise ValueError(f"multi-class has one temperature, got {len(self.values)}.")

    @classmethod
    def fit(cls, logits: np.ndarray, label: np.ndarray) -> Temperature:
        """The temperatures of least cross entropy with Platt's targets: (n + 1) / (n + K) for a class of n films.

        1 where there is no least one between 0.05 and 20: on a label that all validation films have or none, that is
        unknown on all, or that the logits say nothing of.

        Args:
            logits: `[N, L]` of validation films.
            label: `[N, L]` of 0, 1 and NaN (multi-label), or int `[N]` of class numbers, -1 for unknown (multi-class).

        Raises:
            ValueError: shapes that don't match, or labels of another value.
        """
        logits = np.asarray(logits, dtype=np.float64)
        table = label_table(label, logits.shape[1])
        if len(table) != len(logits):
            raise ValueError(f"logits and label differ in length: {len(logits)} and {len(table)}.")
        if np.ndim(label) == 1:
            known = ~np.isnan(table[:, 0])
            chosen, wanted = logits[known], table[known] == 1
            if wanted.any(axis=0).sum() < 2:
                return cls((1.0,), multiclass=True)
            targets = _targets(wanted)
            return cls((_fitted(lambda t: -(targets * log_softmax(chosen / t, axis=1)).mean()),), multiclass=True)
        return cls(tuple(_of_label(column, wanted) for column, wanted in zip(logits.T, table.T, strict=True)))

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Calibrated probabilities `[N, L]` of logits `[N, L]`.

        Raises:
            ValueError: another number of labels than there are temperatures.
        """
        logits = np.asarray(logits, dtype=np.float64)
        if not self.multiclass and logits.shape[1] != len(self.values):
            raise ValueError(f"{len(self.values)} temperatures for logits of {logits.shape[1]} labels.")
        scaled = logits / np.array(self.values)
        return softmax(scaled, axis=1) if self.multiclass else expit(scaled)


def _of_label(logits: np.ndarray, label: np.ndarray) -> float:
    """Temperature of one label `[N]`."""
    known = ~np.isnan(label)
    if len(np.unique(label[known])) < 2:
        return 1.0
    targets = _targets(np.stack([label[known] == 0, label[known] == 1], axis=1))
    pair = np.stack([np.zeros(known.sum()), logits[known]], axis=1)  # a sigmoid is the softmax of these
    return _fitted(lambda temperature: -(targets * log_softmax(pair / temperature, axis=1)).mean())


def _targets(wanted: np.ndarray) -> np.ndarray:
    """Platt's targets `[N, K]` of the films' classes, bool `[N, K]`."""
    films, classes = wanted.sum(axis=0), wanted.shape[1]
    own = (films + 1) / (films + classes)
    other = 1 / (films + classes)  # of a film of class k for each class that isn't its own
    return np.where(wanted, own, (wanted * other).sum(axis=1, keepdims=True))


def _fitted(loss: Callable[[float], float]) -> float:
    """Temperature of least loss between the bounds, 1 where the least lies on one."""
    bounds = math.log(_COLDEST), math.log(_HOTTEST)
    found = float(minimize_scalar(lambda log: loss(math.exp(log)), bounds=bounds, method="bounded").x)
    inside = bounds[0] + math.log(_AT_BOUND) < found < bounds[1] - math.log(_AT_BOUND)
    return math.exp(found) if inside else 1.0
