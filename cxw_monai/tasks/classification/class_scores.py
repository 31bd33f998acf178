"""What an evaluation gathers of a classifier: logits and labels of films, and the scores that choose an epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.metrics import roc_auc_score

__all__ = ["ClassScores"]


class ClassScores:
    """Logits and labels of films.

    Args:
        classes: L names.
        target: `multi_label` or `multi_class`.

    Attributes:
        indices, films, patients: numbers and names of the N films, and whose they are (None where it is not known).
    """

    def __init__(self, classes: Sequence[str], target: str) -> None:
        self.classes, self.target = tuple(classes), target
        self.indices: list[int] = []
        self.films: list[str] = []
        self.patients: list[str | None] = []
        self._logits: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []

    def add(self, index: int, name: str, patient: str | None, logits: np.ndarray, label: np.ndarray) -> None:
        """Add a film: its number, name and patient, logits `[L]`, and its label as `LabelledFilms.label` gives it."""
        self.indices.append(index)
        self.films.append(name)
        self.patients.append(patient)
        self._logits.append(np.asarray(logits, dtype=np.float64))
        self._labels.append(np.asarray(label))

    @property
    def logits(self) -> np.ndarray:
        """float64 `[N, L]`.

        Raises:
            ValueError: no films.
        """
        if not self._logits:
            raise ValueError("no film was scored; check the list of films.")
        return np.stack(self._logits)

    @property
    def labels(self) -> np.ndarray:
        """float `[N, L]` of 1, 0 and NaN (multi-label), or int `[N]` of class numbers (multi-class)."""
        return np.stack(self._labels)

    @property
    def table(self) -> np.ndarray:
        """Labels as float `[N, L]` of 1, 0 and NaN, whatever the target."""
        labels = self.labels
        if labels.ndim == 2:
            return labels.astype(np.float64)
        return (labels[:, None] == np.arange(len(self.classes))).astype(np.float64)

    def decisions(self) -> np.ndarray:
        """bool `[N, L]`: a probability of at least a half (multi-label), or the most probable class."""
        logits = self.logits
        if self.target == "multi_class":
            return np.arange(len(self.classes)) == logits.argmax(axis=1)[:, None]
        return logits >= 0

    def summary(self) -> dict[str, float]:
        """`auroc_<class>` where the films have both values, `auroc`: their mean, and `accuracy`: share of the films
        with the right class, or (multi-label) mean of the classes' shares of known labels. Undefined ones are NaN, or
        left out where they are of one class."""
        logits, table = self.logits, self.table
        ranked = self._one_against_rest(logits)
        found: dict[str, float] = {}
        for number, name in enumerate(self.classes):
            known = ~np.isnan(table[:, number])
            if len(np.unique(table[known, number])) == 2:
                found[f"auroc_{name}"] = float(roc_auc_score(table[known, number], ranked[known, number]))
        return {"auroc": float(np.mean([*found.values()])) if found else np.nan, "accuracy": self._accuracy(), **found}

    def _one_against_rest(self, logits: np.ndarray) -> np.ndarray:
        """What ranks films by a class: its logit, or (multi-class) its log-odds against the others together."""
        if self.target == "multi_label":
            return logits
        others = [np.delete(logits, number, axis=1) for number in range(logits.shape[1])]
        return np.stack([logits[:, n] - np.logaddexp.reduce(rest, axis=1) for n, rest in enumerate(others)], axis=1)

    def _accuracy(self) -> float:
        right, table = self.decisions() == (self.table == 1), self.table
        if self.target == "multi_class":
            return float(right.all(axis=1).mean())
        shares = [right[known, n].mean() for n, known in enumerate(~np.isnan(table.T)) if known.any()]
        return float(np.mean(shares)) if shares else np.nan


def missing_classes(summary: Mapping[str, float], classes: Sequence[str]) -> list[str]:
    """Classes without an AUROC in a summary."""
    return [name for name in classes if f"auroc_{name}" not in summary]
