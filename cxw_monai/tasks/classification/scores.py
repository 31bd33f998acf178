"""Scores of an evaluation's films, as tables and a page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.files.csv_files import write_rows
from cxw_monai.metrics.classification import METRICS, LabelScores, Score
from cxw_monai.metrics.operating_points import PointResult, Rate
from cxw_monai.metrics.subgroups import GroupControl

from .report import Picture, write_page
from .scored_films import ScoredFilms, Scores, scored

__all__ = ["write_scores"]

RATES = ("sensitivity", "specificity", "ppv", "npv")


def write_scores(
    folder: str | Path,
    films: ScoredFilms,
    draws: int = 1000,
    seed: int = 0,
    picture: Picture | None = None,
    cases: int = 24,
) -> Scores:
    """Score films and write the results.

    - `films.csv`: a row a film, `patient` (a number in the order of the films, not the id), `label_<name>` (empty
      where unknown) and `probability_<name>`, calibrated, with all of its digits, for a comparison with another
      classifier (`cxw_monai.metrics.comparison`);
    - `summary.csv`: a row a label and one over all, with counts, scores and intervals;
    - `summary.json`: `films`, and all of `summary.csv` as `<label>/<column>`, without what is not defined;
    - `operating_points.csv`, `subgroups.csv`, `controls.csv`: as named, where there are any;
    - `report.html`: a page of these with curves and the worst films.

    Args:
        folder: where they go; made where it isn't there.
        films: what to score.
        draws, seed: of the bootstrap of patients.
        picture: gives the films that the page shows; None shows none.
        cases: most films that the page shows.

    Raises:
        ValueError: see :func:`scored`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    found = scored(films, draws, seed)
    _write(folder / "films.csv", _films(films))
    _write(folder / "summary.csv", [{"label": row.name, **_cells(row)} for row in found.labels])
    flat = {
        f"{row.name}/{name}": value
        for row in found.labels
        for name, value in _cells(row).items()
        if isinstance(value, (int, float))
    }
    with atomic_file(folder / "summary.json", "w", encoding="utf-8") as stream:
        json.dump({"films": len(films.films), **flat}, stream, indent=1, allow_nan=False)
    _write(folder / "operating_points.csv", [_point(result) for result in found.points])
    _write(
        folder / "subgroups.csv",
        [
            {"variable": group.variable, "group": group.group, "label": row.name, **_cells(row)}
            for group in found.groups
            for row in group.scores
        ],
    )
    _write(folder / "controls.csv", [_control(control) for control in found.controls])
    write_page(folder / "report.html", films, found, picture, cases)
    return found


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A CSV of rows of the same columns, floats to five digits and None as nothing; none of no rows."""
    if not rows:
        return
    with atomic_file(path, "w", newline="", encoding="utf-8") as stream:
        write_rows(stream, list(rows[0]), ({name: _text(value) for name, value in row.items()} for row in rows))


def _text(value: Any) -> Any:
    return "" if value is None else f"{value:.5f}" if isinstance(value, float) else value


def _films(films: ScoredFilms) -> list[dict[str, Any]]:
    table, probability = films.table, films.probability
    numbers = {group: number for number, group in enumerate(dict.fromkeys(films.groups), start=1)}
    return [
        {
            "film": name,
            "patient": numbers[group],
            **{
                f"label_{label}": int(value) if value == value else None
                for label, value in zip(films.names, known, strict=True)
            },
            **{f"probability_{label}": repr(float(value)) for label, value in zip(films.names, said, strict=True)},
        }
        for name, group, known, said in zip(films.films, films.groups, table, probability, strict=True)
    ]


def _bounds(name: str, score: Score | Rate | None) -> dict[str, float | None]:
    """A score with its interval by column, None where undefined."""
    values = (None, None, None) if score is None else (score.value, score.low, score.high)
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))


def _cells(row: LabelScores) -> dict[str, Any]:
    """Counts, scores and the reason why some are undefined, by column."""
    counts = ("films", "patients", "positives", "negatives", "unknown")
    cells: dict[str, Any] = {name: getattr(row, name) for name in counts}
    for name in METRICS:
        cells.update(_bounds(name, row.scores.get(name)))
    return {**cells, "reason": row.reason}


def _point(result: PointResult) -> dict[str, Any]:
    cells: dict[str, Any] = {"label": result.label, "point": result.point.name, "threshold": result.point.threshold}
    for name in RATES:
        rate: Rate | None = getattr(result, name)
        cells.update(_bounds(name, rate))
        cells.update(
            {f"{name}_count": 0 if rate is None else rate.count, f"{name}_films": 0 if rate is None else rate.films}
        )
    return cells


def _control(control: GroupControl) -> dict[str, Any]:
    cells: dict[str, Any] = {"variable": control.variable, "label": control.label, "films": control.films}
    for name, score in (("auroc", control.overall), ("within", control.within), ("alone", control.variable_alone)):
        cells.update(_bounds(name, score))
    return {**cells, "verdict": control.verdict}
