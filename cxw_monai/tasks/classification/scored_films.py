"""What a classifier said of films, and all scores of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from cxw_monai.metrics.calibration import Temperature
from cxw_monai.metrics.classification import LabelScores, Score, label_scores, label_table
from cxw_monai.metrics.operating_points import OperatingPoint, PointResult, point_results
from cxw_monai.metrics.subgroups import GroupControl, Subgroup, group_controls, subgroups

__all__ = ["ScoredFilms", "Scores", "scored"]


@dataclass(frozen=True)
class ScoredFilms:
    """What a classifier said of N films, and what is known of them.

    Attributes:
        names: of the L labels.
        films: what the films are called in tables and page.
        patients: N ids, which are written nowhere; None for a patient of its own.
        logits: `[N, L]`.
        label: `[N, L]` of 0, 1 and NaN for unknown (multi-label), or int `[N]` of class numbers, -1 for unknown.
        temperature: fitted on validation films; None leaves the probabilities as they are.
        points: by label, chosen on validation films from the calibrated probabilities.
        variables: N values by name (sex, age band, view, source), None where unknown.

    Raises:
        ValueError: lengths that differ.
    """

    names: Sequence[str]
    films: Sequence[str]
    patients: Sequence[str | None]
    logits: np.ndarray
    label: np.ndarray
    temperature: Temperature | None = None
    points: Mapping[str, Sequence[OperatingPoint]] = field(default_factory=dict)
    variables: Mapping[str, Sequence[str | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        counts = {"films": len(self.films), "patients": len(self.patients), "label": len(self.label)}
        if wrong := {name: count for name, count in counts.items() if count != len(self.logits)}:
            raise ValueError(f"{len(self.logits)} films have logits, but there are {wrong}.")

    @property
    def multiclass(self) -> bool:
        return self.label.ndim == 1

    @cached_property
    def table(self) -> np.ndarray:
        """Labels `[N, L]` of 0, 1 and NaN."""
        return label_table(self.label, len(self.names))

    @property
    def groups(self) -> list[str]:
        """A patient's id of each film; no id is that of a film without a patient."""
        return [f"film {n}" if one is None else f"patient {one}" for n, one in enumerate(self.patients)]

    @cached_property
    def uncalibrated(self) -> np.ndarray:
        """Probabilities `[N, L]` without the temperature."""
        ones = (1.0,) * (1 if self.multiclass else len(self.names))
        return Temperature(ones, self.multiclass).probabilities(self.logits)

    @cached_property
    def probability(self) -> np.ndarray:
        """Probabilities `[N, L]`, with the temperature where there is one."""
        return self.uncalibrated if self.temperature is None else self.temperature.probabilities(self.logits)


@dataclass(frozen=True)
class Scores:
    """All scores of an evaluation.

    Attributes:
        labels: of each label and over all, of calibrated probabilities.
        before: the calibration errors without the temperature, in the same order; NaN where not defined.
        points: of each label and operating point.
        groups, controls: see `metrics.subgroups`.
    """

    labels: list[LabelScores]
    before: list[float]
    points: list[PointResult]
    groups: list[Subgroup]
    controls: list[GroupControl]


def scored(films: ScoredFilms, draws: int = 1000, seed: int = 0) -> Scores:
    """Score films; `draws` and `seed` are those of the bootstrap of patients.

    Raises:
        ValueError: no film, or labels of another value; see `label_scores`.
    """
    common = films.label, films.names, films.groups
    probability = films.probability
    before = label_scores(films.uncalibrated, *common, draws=0)
    missing = Score(float("nan"))
    return Scores(
        labels=label_scores(probability, *common, draws, seed),
        before=[row.scores.get("calibration_error", missing).value for row in before],
        points=point_results(films.points, probability, films.label, films.names),
        groups=subgroups(probability, *common, films.variables, draws, seed),
        controls=group_controls(probability, *common, films.variables, draws, seed),
    )
