"""Two classifiers on the same films: how their AUROCs differ, from the files of scores that evaluations write."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike

import numpy as np

from cxw_monai.io.files.csv_files import read_rows

from .classification import Score
from .delong import Comparison, compare_aurocs
from .probes import bootstrap_weights, grouped_auroc, plain_value

__all__ = ["LabelComparison", "compare_files", "format_comparisons"]

_PROBABILITY, _LABEL = "probability_", "label_"


@dataclass(frozen=True)
class LabelComparison:
    """One label of two classifiers.

    Attributes:
        label: its name.
        films, patients, positives: with a known label.
        first, second: AUROCs.
        difference: first less second; its interval by bootstrap of the patients, both classifiers on the same draws.
        delong: DeLong's interval and p of it; None where fewer than two patients have films with the label, or without.
    """

    label: str
    films: int
    patients: int
    positives: int
    first: float
    second: float
    difference: Score
    delong: Comparison | None


def compare_files(
    first: str | PathLike[str], second: str | PathLike[str], draws: int = 1000, seed: int = 0
) -> list[LabelComparison]:
    """Compare what two classifiers said of the same films.

    Args:
        first, second: `films.csv` of two evaluations: `film`, `patient` (a number; without it each film is a patient
            of its own), and `label_<name>`, `probability_<name>` of each label.
        draws, seed: of the bootstrap of patients.

    Returns:
        The labels that both files have and that some films have and some haven't.

    Raises:
        ValueError: a file is no such table, lists a film twice or has a probability that is no number; films differ,
            or their labels do, or there is no label to compare; a negative number of draws or seed.
    """
    if min(draws, seed) < 0:
        raise ValueError(f"bootstrap and seed must be 0 or more, got {draws} and {seed}.")
    one, two = _read(first), _read(second)
    if one.keys() != two.keys():
        only = sorted(one.keys() ^ two.keys())
        raise ValueError(
            f"{first} and {second} differ in {len(only)} films, such as {only[0]!r}; score the same films."
        )
    films = list(one)
    columns = _labels(one[films[0]])
    names = [name for name in columns if name in _labels(two[films[0]])]
    patients = np.array([one[film].get("patient") or f"film {film}" for film in films])
    found = []
    for name in names:
        labels = [[rows[film][_LABEL + name] for film in films] for rows in (one, two)]
        if labels[0] != labels[1]:
            film = next(film for film, a, b in zip(films, *labels, strict=True) if a != b)
            raise ValueError(f"{first} and {second} have another {_LABEL}{name} of {film!r}; score the same labels.")
        known = np.array([value != "" for value in labels[0]])
        positive = np.array([plain_value(value) == "1" for value in labels[0]])[known]
        if positive.all() or not positive.any():
            continue
        scores = [
            _numbers(path, [rows[film][_PROBABILITY + name] for film in films])[known]
            for path, rows in ((first, one), (second, two))
        ]
        found.append(_compared(name, scores, positive, patients[known], draws, seed))
    if not found:
        raise ValueError(f"{first} and {second}: no label of both that some films have and some haven't.")
    return found


def _compared(
    name: str, scores: Sequence[np.ndarray], positive: np.ndarray, patients: np.ndarray, draws: int, seed: int
) -> LabelComparison:
    together = np.zeros(len(positive), int)
    weights = bootstrap_weights(patients, draws, seed)
    aurocs = [grouped_auroc(one, positive, together, weights) for one in scores]
    enough = min(len(set(patients[positive])), len(set(patients[~positive]))) >= 2
    return LabelComparison(
        name,
        len(positive),
        len(set(patients)),
        int(positive.sum()),
        float(aurocs[0][0]),
        float(aurocs[1][0]),
        Score.of(aurocs[0] - aurocs[1]),
        compare_aurocs(scores[0], scores[1], positive, list(patients)) if enough else None,
    )


def _numbers(path: str | PathLike[str], cells: Sequence[str]) -> np.ndarray:
    """Finite numbers `[N]`."""
    try:
        found = np.array([float(cell) for cell in cells])
    except ValueError:
        found = np.array([np.nan])
    if not np.isfinite(found).all():
        raise ValueError(f"{path}: a probability is no number; give films.csv of an evaluation.")
    return found


def _labels(row: Mapping[str, str]) -> list[str]:
    return [name.removeprefix(_LABEL) for name in row if name.startswith(_LABEL)]


def _read(path: str | PathLike[str]) -> dict[str, dict[str, str]]:
    """Rows by film."""
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            rows = read_rows(stream)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{path}: not a readable CSV ({reason}); give films.csv of an evaluation.") from error
    labels = _labels(rows[0]) if rows else []
    if not labels or "film" not in rows[0] or any(_PROBABILITY + name not in rows[0] for name in labels):
        raise ValueError(f"{path}: no table of films, labels and probabilities; give films.csv of an evaluation.")
    found = {row["film"]: row for row in rows}
    if len(found) < len(rows):
        raise ValueError(f"{path}: a film is listed twice; give films.csv of an evaluation.")
    return found


def format_comparisons(found: Sequence[LabelComparison]) -> str:
    """A table of comparisons."""
    counts = f"{'label':24} {'films':>6} {'with':>6}"
    lines = [f"{counts}  first  second  difference  {'DeLong 95 %':18}  {'p':>6}  bootstrap 95 %"]
    for one in found:
        line = f"{one.label:24.24} {one.films:6d} {one.positives:6d}  {one.first:.4f} {one.second:.4f}"
        test, p = ("", "") if one.delong is None else (_interval(one.delong), f"{one.delong.p:.4f}")
        lines.append(f"{line}  {one.difference.value:+10.4f}  {test:18}  {p:>6}  {_interval(one.difference)}")
    return "\n".join(lines)


def _interval(found: Comparison | Score) -> str:
    return "" if found.low is None or found.high is None else f"{found.low:+.4f} to {found.high:+.4f}"
