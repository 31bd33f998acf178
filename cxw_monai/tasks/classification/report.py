"""One HTML page of a classifier's evaluation: tables, curves, reliability, subgroups and the worst films."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from sklearn.metrics import precision_recall_curve, roc_curve

from cxw_monai.metrics.calibration import reliability
from cxw_monai.metrics.classification import ALL, METRICS, LabelScores, Score, decided
from cxw_monai.metrics.operating_points import POINTS, PointResult, Rate
from cxw_monai.tasks.pages import data_url, figure_url, write_html

from .scored_films import ScoredFilms, Scores

__all__ = ["Picture", "worst_films", "write_page"]

Picture = Callable[[int], "np.ndarray | None"]
"""Gives a film's uint8 or uint16 `[H, W]`, bone bright, by its number; None where there is none."""

TITLES = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "accuracy": "accuracy",
    "f1": "F1",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "calibration_error": "calibration error",
}
POINT_TITLES = {
    "sensitivity_90": "sensitivity .90",
    "sensitivity_95": "sensitivity .95",
    "specificity_90": "specificity .90",
    "youden": "Youden",
    "cost": "cost",
}
MARKERS = dict(zip(POINTS, "o^sDP", strict=True))
INK, OTHER, FAINT = "#0072b2", "#d55e00", "#8c959f"
COLUMNS = 4  # panels in a row
SHOWN_LABELS = 8  # of a film's, beside its picture
PICTURE_SIDE = 360
_TEMPLATE = Path(__file__).with_name("classification_report.html.j2")


def worst_films(films: ScoredFilms, count: int) -> list[int]:
    """Numbers of the films whose probabilities are farthest from a known label, worst first; ties by their order."""
    far = np.abs(films.probability - films.table)
    if films.multiclass:
        far = np.where(films.table == 1, far, np.nan)  # of the true class
    error = np.where(np.isnan(far), -1, far).max(axis=1)
    order = np.argsort(-error, kind="stable")
    return [int(number) for number in order if error[number] >= 0][:count]


def write_page(
    path: str | PathLike[str], films: ScoredFilms, scores: Scores, picture: Picture | None = None, cases: int = 24
) -> None:
    """Write a page that needs no network and names no patient.

    Args:
        path: of the HTML file.
        films: what was scored.
        scores: of these films.
        picture: gives the worst films; None, and a film that it has none of, show no picture.
        cases: most films that are shown.
    """
    numbers = worst_films(films, cases) if picture is not None else []
    pictures = [(number, picture(number)) for number in numbers] if picture is not None else []
    plotted = [name for one, name in enumerate(films.names) if "auroc" in scores.labels[one].scores]
    write_html(
        path,
        _TEMPLATE,
        total=scores.labels[-1],
        multiclass=films.multiclass,
        titles=[TITLES[name] for name in METRICS],
        calibrated=films.temperature is not None,
        rows=[_row(row, before) for row, before in zip(scores.labels, scores.before, strict=True)],
        roc=_panels(films, plotted, "1 - specificity", "sensitivity", lambda axes, one: _roc(axes, films, scores, one)),
        precision=_panels(films, plotted, "recall", "precision", lambda axes, one: _precision(axes, films, one)),
        reliability=_panels(
            films, list(films.names), "probability", "share of films", lambda a, n: _reliability(a, films, n)
        ),
        legend=[(POINT_TITLES[name], POINTS[name]) for name in _used(scores.points)],
        points=[_point(result) for result in scores.points],
        confusion=_confusion(films),
        controls=[
            (
                c.variable,
                _plain(c.label),
                c.films,
                _cell(c.overall),
                _cell(c.within),
                _cell(c.variable_alone),
                c.verdict,
            )
            for c in scores.controls
        ],
        groups=[
            (group.variable, group.group, _row(row, float("nan")))
            for group in scores.groups
            for row in (group.scores if len(films.names) > 1 else group.scores[:1])
        ],
        cases=[_case(films, number, image) for number, image in pictures if image is not None],
    )


def _used(points: Sequence[PointResult]) -> list[str]:
    there = {result.point.name for result in points}
    return [name for name in POINTS if name in there]


def _panels(
    films: ScoredFilms, names: Sequence[str], across: str, up: str, draw: Callable[[Axes, int], str]
) -> str | None:
    """A figure with a square panel a label, which `draw` fills and gives the title's end; None of no labels."""
    if not names:
        return None
    columns = min(len(names), COLUMNS)
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(3.1 * columns, 3.1 * rows + 0.3), layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, name in zip(grid, names, strict=False):
        end = draw(axes, list(films.names).index(name))
        axes.set_title(f"{_plain(name)}: {end}", fontsize=9, parse_math=False)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[len(names) :]:
        axes.remove()
    figure.supxlabel(across, fontsize=8)
    figure.supylabel(up, fontsize=8)
    return figure_url(figure)


def _known(films: ScoredFilms, one: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of a label's known films, and whether they have it."""
    label = films.table[:, one]
    known = ~np.isnan(label)
    return films.probability[known, one], label[known] == 1


def _roc(axes: Axes, films: ScoredFilms, scores: Scores, one: int) -> str:
    probability, positive = _known(films, one)
    false_alarms, sensitivity, _ = roc_curve(positive, probability)
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle=":")
    axes.plot(false_alarms, sensitivity, color=INK, linewidth=1.4)
    for result in scores.points:
        if result.label == films.names[one] and result.sensitivity and result.specificity:
            place = 1 - result.specificity.value, result.sensitivity.value
            axes.plot(
                *place,
                MARKERS.get(result.point.name, "o"),
                color=OTHER,
                markersize=7,
                markeredgecolor="white",
                markeredgewidth=0.6,
            )
    return f"AUROC {_number(scores.labels[one].scores['auroc'].value)}"


def _precision(axes: Axes, films: ScoredFilms, one: int) -> str:
    probability, positive = _known(films, one)
    precision, recall, _ = precision_recall_curve(positive, probability)
    axes.axhline(positive.mean(), color=FAINT, linewidth=0.8, linestyle=":")
    axes.plot(recall, precision, color=INK, linewidth=1.4, drawstyle="steps-post")
    return f"{positive.sum()} of {len(positive)} films"


def _reliability(axes: Axes, films: ScoredFilms, one: int) -> str:
    """Shares of films by bin, after (line) and before (faint) the temperature, with the films in each bin as bars."""
    label = films.table[:, one]
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle=":")
    errors = []
    stages = [(films.probability, INK, "-", "o")]
    if films.temperature is not None:
        stages.insert(0, (films.uncalibrated, OTHER, "--", "x"))
    for values, colour, line, marker in stages:
        found = reliability(values[:, one], label)
        axes.plot(found.probability, found.share, line, marker=marker, color=colour, linewidth=1.2, markersize=4)
        errors.append(_number(found.error))
    if len(found.films):
        axes.bar(found.probability, 0.25 * found.films / found.films.max(), width=0.03, color=FAINT, alpha=0.45)
    return "error " + " to ".join(errors)


def _row(row: LabelScores, before: float) -> dict[str, Any]:
    """A line of the summary or of the subgroups."""
    return {
        "name": "mean of all" if row.name == ALL else _plain(row.name),
        "counts": row,
        "cells": [_cell(row.scores.get(name)) for name in METRICS],
        "before": _number(before),
        "reason": row.reason,
    }


def _confusion(films: ScoredFilms) -> dict[str, Any]:
    """Counts of what was called what: classes by classes, or four numbers a label."""
    table, called = films.table, decided(films.probability, films.label)
    if films.multiclass:
        known = ~np.isnan(table[:, 0])
        counts = table[known].T.astype(int) @ called[known].astype(int)  # [true, called]
        return {"names": [_plain(name) for name in films.names], "counts": counts.tolist()}
    lines = []
    for name, label, said in zip(films.names, table.T, called.T, strict=True):
        lines.append((_plain(name), *(int(((label == v) & (said == s)).sum()) for v, s in _CELLS)))
    return {"lines": lines}


_CELLS = ((1, True), (1, False), (0, True), (0, False))  # found, missed, false alarm, rejected


def _point(result: PointResult) -> dict[str, Any]:
    rates = (result.sensitivity, result.specificity, result.ppv, result.npv)
    return {
        "label": _plain(result.label),
        "point": POINT_TITLES.get(result.point.name, result.point.name),
        "threshold": "never" if result.point.threshold > 1 else f"{result.point.threshold:.4f}",
        "cells": [{**_cell(rate), "films": f"{rate.count} of {rate.films}"} if rate else _cell(None) for rate in rates],
    }


def _case(films: ScoredFilms, number: int, image: np.ndarray) -> dict[str, Any]:
    """A film with its probabilities, those farthest from the label first."""
    table, probability = films.table[number], films.probability[number]
    far = np.nan_to_num(np.abs(probability - table), nan=-1)
    order = sorted((int(one) for one in np.flatnonzero(far >= 0)), key=lambda one: -far[one])
    said = decided(films.probability[[number]], films.label[[number]])[0]
    lines = [
        (_plain(films.names[one]), "yes" if table[one] else "no", f"{probability[one]:.3f}", said[one] != table[one])
        for one in order[:SHOWN_LABELS]
    ]
    return {
        "name": films.films[number],
        "lines": lines,
        "more": len(order) - len(lines),
        "picture": data_url(_thumbnail(image), "jpeg"),
    }


def _thumbnail(image: np.ndarray) -> bytes:
    """JPEG of at most 360 px on the longer side."""
    grey = (image * (255 / np.iinfo(image.dtype).max)).round().astype(np.uint8)
    picture = Image.fromarray(grey)
    picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=85, optimize=True)
    return stream.getvalue()


def _cell(found: Score | Rate | None) -> dict[str, str]:
    if found is None:
        return {"value": "", "interval": ""}
    low, high = found.low, found.high
    interval = "" if low is None or high is None else f"{_number(low)} to {_number(high)}"
    return {"value": _number(found.value), "interval": interval}


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.3f}"


def _plain(name: str) -> str:
    return name.replace("_", " ")
