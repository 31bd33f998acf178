"""Scores of an index: how often neighbours share a column's value, and what their vote says about a label.

Where the index has films of the splits `training` and `test` (column `split`), test films look for neighbours among
training films; the number of voters and the operating points are chosen on validation films. Otherwise every film looks
among all others. Films of the query's own patient are never its neighbours.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.metrics.classification import LabelScores, Score, label_scores
from cxw_monai.metrics.operating_points import PointResult, choose_points, point_results
from cxw_monai.metrics.probes import binary_label, bootstrap_weights
from cxw_monai.metrics.retrieval import average_precision, neighbour_vote, precision_at
from cxw_monai.metrics.subgroups import Subgroup, age_band, subgroups

from .index import FilmIndex
from .pages import film_tile, write_page
from .search import ExactSearch

__all__ = ["RANKS", "VOTERS", "ColumnScores", "format_scores", "score_columns", "score_vectors", "write_scores"]

RANKS = (1, 5, 10)
"""k of precision at k."""

VOTERS = (5, 10, 50)
"""Numbers of neighbours that vote, one of which is chosen on validation films; the second without these."""

_AT_ONCE = 256
_EVIDENCE = 3  # test films of the highest and of the lowest vote on the page
_GROUPS = ("view", "sex", "source")


@dataclass(frozen=True)
class ColumnScores:
    """Scores of one column.

    Attributes:
        column: its name.
        queries, films: that are looked for, and among which.
        chance: mean share of films that share the query's value.
        precision: by k.
        mean_average_precision: over queries with such films.
        voters: neighbours that vote; the following are of columns with two values.
        positive: the value whose probability is scored.
        label: scores of the vote.
        points: what the operating points reach, chosen on validation films.
        groups: the vote's scores by view, sex, age and source.
        places, votes: of the queries, and their probability.
        voting: places of each query's voters.
    """

    column: str
    queries: int
    films: int
    chance: float
    precision: dict[int, Score]
    mean_average_precision: Score
    voters: int = 0
    positive: str | None = None
    label: LabelScores | None = None
    points: list[PointResult] = field(default_factory=list)
    groups: list[Subgroup] = field(default_factory=list)
    places: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64), repr=False)
    votes: np.ndarray = field(default_factory=lambda: np.zeros(0), repr=False)
    voting: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int64), repr=False)


Similar = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Similarity `[Q, R]` of films at some places to those at others."""


def score_columns(
    index: FilmIndex, columns: Sequence[str], draws: int = 1000, progress: Callable[[str], None] = lambda line: None
) -> list[ColumnScores]:
    """Scores of columns of an index.

    Args:
        index: with `patient_id`, or each film counts as a patient.
        columns: view, sex, labels, ...; films without a value are left out.
        draws: resamplings of the patients for 95 % intervals.
        progress: is told what is done.

    Raises:
        ValueError: no such column, or one of which no two films of different patients share a value.
    """
    search = ExactSearch(index)
    table = {name: index.column(name) for name in dict.fromkeys([*columns, *index.columns])}

    def similar(queries: np.ndarray, films: np.ndarray) -> np.ndarray:
        return search.similarities(index.vectors_of(queries)).numpy()[:, films]

    return score_vectors(similar, table, columns, draws, progress)


def score_vectors(
    similar: Similar,
    table: dict[str, list[str]],
    columns: Sequence[str],
    draws: int = 1000,
    progress: Callable[[str], None] = lambda line: None,
) -> list[ColumnScores]:
    """The same for films of which only similarities are known.

    Args:
        similar: see `Similar`.
        table: columns by name, a text a film.
        columns, draws, progress: see `score_columns`.
    """
    found = []
    for column in columns:
        progress(f"scoring {column}")
        found.append(_ColumnScoring(similar, table, column, draws).scores())
    return found


class _ColumnScoring:
    """One column: its films with a value, by split."""

    def __init__(self, similar: Similar, table: dict[str, list[str]], column: str, draws: int) -> None:
        self.similar, self.table, self.column, self.draws = similar, table, column, draws
        self.classes, self.names = binary_label(table[column])
        films = len(self.classes)
        patients = table.get("patient_id", [""] * films)
        self.patients = np.array([patient or f"film {place}" for place, patient in enumerate(patients)])
        split = np.array(table.get("split", [""] * films))
        known = self.classes >= 0
        parts = {name: np.flatnonzero(known & (split == name)) for name in ("training", "validation", "test")}
        self.splits = len(parts["training"]) > 0 and len(parts["test"]) > 0
        every = np.flatnonzero(known)
        self.films, self.queries = (parts["training"], parts["test"]) if self.splits else (every, every)
        self.validation = parts["validation"] if self.splits else every[:0]

    def scores(self) -> ColumnScores:
        ranked = self._ranked()
        if np.isnan(ranked["map"]).all():
            raise ValueError(
                f"{self.column}: no two films of different patients share a value of it; choose another column"
            )
        patients = np.unique(self.patients[self.queries], return_inverse=True)[1]
        weights = bootstrap_weights(patients, self.draws)
        scores = {name: _mean(values, weights) for name, values in ranked.items()}
        found = ColumnScores(
            self.column,
            len(self.queries),
            len(self.films),
            scores["chance"].value,
            {k: scores[f"precision_{k}"] for k in RANKS},
            scores["map"],
        )
        return self._with_votes(found) if len(self.names) == 2 else found

    def _blocks(self, queries: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Queries, their similarity to the films, and which of these are of other patients."""
        for start in range(0, len(queries), _AT_ONCE):
            part = queries[start : start + _AT_ONCE]
            other = self.patients[part][:, None] != self.patients[self.films][None]
            yield part, self.similar(part, self.films), other

    def _ranked(self) -> dict[str, np.ndarray]:
        """Precisions, average precision and chance of each query."""
        found: dict[str, list[np.ndarray]] = {}
        for part, similarity, other in self._blocks(self.queries):
            relevant = self.classes[part][:, None] == self.classes[self.films][None]
            own = {f"precision_{k}": precision_at(k, similarity, relevant, other) for k in RANKS}
            own["map"] = average_precision(similarity, relevant, other)
            share = (relevant & other).sum(axis=1) / np.maximum(other.sum(axis=1), 1)
            own["chance"] = np.where(np.isnan(own["map"]), np.nan, share)
            for name, values in own.items():
                found.setdefault(name, []).append(values)
        return {name: np.concatenate(parts) for name, parts in found.items()}

    def _votes(self, queries: np.ndarray) -> tuple[dict[int, np.ndarray], np.ndarray]:
        """Probability of the positive value by number of voters, and the places of the most voters `[Q, k]`."""
        votes: dict[int, list[np.ndarray]] = {}
        voting = []
        for _, similarity, other in self._blocks(queries):
            allowed = np.where(other, similarity, -np.inf)
            order = np.argsort(-allowed, axis=1, kind="stable")[:, : max(VOTERS)]
            nearest = np.take_along_axis(allowed, order, 1)
            places = self.films[order]
            for k in VOTERS:
                label = self.classes[places[:, :k]].astype(np.float64)
                votes.setdefault(k, []).append(neighbour_vote(nearest[:, :k], label))
            voting.append(np.where(np.isfinite(nearest), places, -1))
        return {k: np.concatenate(parts) for k, parts in votes.items()}, np.concatenate(voting)

    def _with_votes(self, found: ColumnScores) -> ColumnScores:
        votes, voting = self._votes(self.queries)
        voters, points = VOTERS[1], {}
        name = f"{self.column} = {self.names[1]}"
        if len(self.validation):
            chosen, _ = self._votes(self.validation)
            truth = (self.classes[self.validation] == 1).astype(np.float64)[:, None]
            patients = list(self.patients[self.validation])
            auroc = {k: _auroc(vote, truth, patients) for k, vote in chosen.items()}
            voters = max(VOTERS, key=lambda k: (auroc[k], -k))
            points = choose_points(chosen[voters][:, None], truth, [name])
        probability = votes[voters]
        there = np.flatnonzero(~np.isnan(probability))
        queries, probability = self.queries[there], probability[there][:, None]
        truth = (self.classes[queries] == 1).astype(np.float64)[:, None]
        patients = list(self.patients[queries])
        return ColumnScores(
            **{name: getattr(found, name) for name in list(ColumnScores.__dataclass_fields__)[:6]},
            voters=voters,
            positive=self.names[1],
            label=label_scores(probability, truth, [name], patients, self.draws)[0],
            points=point_results(points, probability, truth, [name]),
            groups=subgroups(probability, truth, [name], patients, self._variables(queries), self.draws),
            places=queries,
            votes=probability[:, 0],
            voting=voting[there][:, :voters],
        )

    def _variables(self, queries: np.ndarray) -> dict[str, list[str | None]]:
        names = [name for name in _GROUPS if name in self.table and name != self.column]
        found: dict[str, list[str | None]] = {name: [self.table[name][q] or None for q in queries] for name in names}
        if "age" in self.table:
            found["age"] = [_band(self.table["age"][q]) for q in queries]
        return {name: values for name, values in found.items() if any(values)}


def _band(text: str) -> str | None:
    try:
        return age_band(float(text))
    except ValueError:
        return None


def _auroc(vote: np.ndarray, truth: np.ndarray, patients: list[str]) -> float:
    score = label_scores(np.nan_to_num(vote, nan=0.5)[:, None], truth, ["label"], patients, 0)[0].scores.get("auroc")
    return score.value if score else 0.0


def _mean(values: np.ndarray, weights: np.ndarray) -> Score:
    """Mean over the queries where it is defined, with its interval."""
    there = ~np.isnan(values)
    counts = weights[:, there].astype(np.float64)
    total = counts.sum(axis=1)
    return Score.of(np.where(total > 0, counts @ values[there] / np.maximum(total, 1), np.nan))


def format_scores(found: Sequence[ColumnScores]) -> str:
    """A table of the scores, a line a column."""
    head = ("column", "queries", "films", "chance", *(f"P@{k}" for k in RANKS), "mAP", "vote", "k", "AUROC")
    rows = [head]
    for one in found:
        auroc = one.label.scores.get("auroc") if one.label else None
        cells = [one.column, str(one.queries), str(one.films), f"{one.chance:.3f}"]
        cells += [_shown(one.precision[k]) for k in RANKS] + [_shown(one.mean_average_precision)]
        cells += [one.positive or "", str(one.voters or ""), _shown(auroc) if auroc else ""]
        rows.append(tuple(cells))
    widths = [max(len(row[at]) for row in rows) for at in range(len(head))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _shown(score: Score) -> str:
    return f"{score.value:.3f}" if score.low is None else f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]"


def write_scores(output: str | PathLike[str], index: FilmIndex, found: Sequence[ColumnScores]) -> None:
    """Write `scores.json`, and `evidence.html`: for each label films of high and low vote beside those that voted."""
    folder = Path(output)
    plain = [{name: value for name, value in asdict(one).items() if name not in _ARRAYS} for one in found]
    with atomic_file(folder / "scores.json", "w", encoding="utf-8") as stream:
        json.dump(plain, stream, indent=2)
    rows = [row for one in found if one.label for row in _evidence(index, one)]
    if rows:
        notes = ["The films of the highest and of the lowest vote, each beside its most similar voters."]
        write_page(folder / "evidence.html", "Evidence", notes, rows)


_ARRAYS = ("places", "votes", "voting")


def _evidence(index: FilmIndex, found: ColumnScores) -> list[dict[str, Any]]:
    order = np.argsort(found.votes, kind="stable")
    shown = list(dict.fromkeys([*order[::-1][:_EVIDENCE], *order[:_EVIDENCE]]))
    values = index.column(found.column)
    rows: list[dict[str, Any]] = []
    for query in shown:
        place = int(found.places[query])
        title = f"{found.votes[query]:.2f} for {found.positive}; is {values[place]}"
        voters = [int(one) for one in found.voting[query] if one >= 0][:6]
        tiles = [film_tile(index, one, f"{found.column}: {values[one]}") for one in voters]
        rows.append({"query": film_tile(index, place, title), "neighbours": tiles})
    rows[0]["heading"] = f"{found.column}, vote of {found.voters}"
    return rows
