"""Scores by subgroup (sex, age band, view, source), and whether a label could be guessed from the group alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .classification import LabelScores, Score, label_scores, label_table
from .probes import bootstrap_weights, grouped_auroc

__all__ = ["AGE_BANDS", "GroupControl", "Subgroup", "age_band", "group_controls", "subgroups"]

AGE_BANDS = (0, 6, 18, 40, 60, 80)
"""Years at which the bands start; the last is open."""


def age_band(age: float | None) -> str | None:
    """The band of an age in years, "40 to 59" or "80 or more"; None where it isn't known."""
    if age is None or np.isnan(age):
        return None
    place = int(np.searchsorted(AGE_BANDS, max(0.0, age), side="right")) - 1
    low = AGE_BANDS[place]
    return f"{low} or more" if place == len(AGE_BANDS) - 1 else f"{low} to {AGE_BANDS[place + 1] - 1}"


@dataclass(frozen=True)
class Subgroup:
    """Scores among the films of one group.

    Attributes:
        variable: "sex", "view", ...
        group: its value, "F", "AP", ...
        scores: as `label_scores` gives them.
    """

    variable: str
    group: str
    scores: list[LabelScores]


def subgroups(
    probability: np.ndarray,
    label: np.ndarray,
    names: Sequence[str],
    patients: Sequence[str],
    variables: Mapping[str, Sequence[str | None]],
    draws: int = 1000,
    seed: int = 0,
    threshold: float = 0.5,
) -> list[Subgroup]:
    """Scores of each group with a film, in the order of the variables and of their values.

    Args:
        probability, label, names, patients, draws, seed, threshold: see :func:`~.classification.label_scores`.
        variables: N values by name; films without one (None or empty) are in no group.

    Raises:
        ValueError: see :func:`~.classification.label_scores`, or a variable of another length.
    """
    found, ids = [], np.array([str(patient) for patient in patients])
    for variable, values in variables.items():
        groups = _groups(variable, values, len(probability))
        for group in sorted(set(groups) - {""}):
            chosen = groups == group
            parts = probability[chosen], np.asarray(label)[chosen]
            found.append(
                Subgroup(variable, group, label_scores(*parts, names, list(ids[chosen]), draws, seed, threshold))
            )
    return found


@dataclass(frozen=True)
class GroupControl:
    """What a variable alone tells of a label, and what is left within its groups.

    Attributes:
        variable, label: names.
        films: where both are known.
        overall: AUROC of the classifier on these films.
        within: AUROC among pairs of films of the same group: what the variable cannot explain; None where no group has
            films with and without the label.
        variable_alone: AUROC of the share of films with the label in a film's group. It is taken from the same films,
            so that it says at least .5, and too much of many small groups.
    """

    variable: str
    label: str
    films: int
    overall: Score
    within: Score | None
    variable_alone: Score

    @property
    def verdict(self) -> str:
        """In words, whether the label could be guessed from the variable alone, and the classifier may do so."""
        alone = self.variable_alone
        tells = f"{self.variable} alone tells the label (AUROC {alone.value:.2f})"
        told = tells if _above_chance(alone) else f"{self.variable} alone does not tell the label"
        if not _above_chance(self.overall):
            return f"{told}; the classifier is no better than chance"
        if self.within is None:
            return (
                f"{told}; no group has films with and without the label: nothing tells film and {self.variable} apart"
            )
        if _above_chance(self.within):
            return f"{told}; the classifier finds it within a group too ({self.within.value:.2f})"
        return f"{told}; within a group the classifier is no better than chance: it may read the {self.variable}"


def _above_chance(score: Score) -> bool:
    """Whether an AUROC is above .5 with its interval."""
    return score.low is not None and score.low > 0.5


def group_controls(
    probability: np.ndarray,
    label: np.ndarray,
    names: Sequence[str],
    patients: Sequence[str],
    variables: Mapping[str, Sequence[str | None]],
    draws: int = 1000,
    seed: int = 0,
) -> list[GroupControl]:
    """Controls of each variable with at least two groups, and each label that some films have and some haven't.

    Args:
        probability, label, names, patients, variables, draws, seed: see :func:`subgroups`.

    Raises:
        ValueError: a variable of another length, or labels of another value.
    """
    table, ids = label_table(label, len(names)), np.array([str(patient) for patient in patients])
    found = []
    for variable, values in variables.items():
        groups = _groups(variable, values, len(table))
        for one, name in enumerate(names):
            known = ~np.isnan(table[:, one]) & (groups != "")
            kinds, numbers = np.unique(groups[known], return_inverse=True)
            positive, scores = table[known, one] == 1, probability[known, one]
            if len(kinds) < 2 or positive.all() or not positive.any():
                continue
            share = np.bincount(numbers, weights=positive) / np.bincount(numbers)
            weights = bootstrap_weights(ids[known], draws, seed)
            together = np.zeros(len(numbers), int)
            drawn = [
                grouped_auroc(scores, positive, together, weights),
                grouped_auroc(scores, positive, numbers, weights),
                grouped_auroc(share[numbers], positive, together, weights),
            ]
            overall, within, alone = map(Score.of, drawn)
            pairs = None if np.isnan(within.value) else within
            found.append(GroupControl(variable, name, len(numbers), overall, pairs, alone))
    return found


def _groups(variable: str, values: Sequence[str | None], films: int) -> np.ndarray:
    if len(values) != films:
        raise ValueError(f"{variable} has {len(values)} values for {films} films.")
    return np.array([str(value or "") for value in values])
