"""Curves of a run, drawn from its `metrics.csv`."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

__all__ = ["Panel", "draw_panels", "read_metrics"]

Panel = tuple[str, Sequence[str]]
"""A title and the metrics to draw."""


def read_metrics(metrics_csv: str | Path) -> list[dict[str, str]]:
    """Rows of a run's `metrics.csv`, one an epoch."""
    with Path(metrics_csv).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def draw_panels(
    rows: Sequence[dict[str, str]], panels: Sequence[Panel], picture: str | Path, width: float = 15, dpi: int = 90
) -> None:
    """Draw metrics by epoch as a PNG, the panels in two rows.

    Args:
        rows: see `read_metrics`.
        panels: what to draw; metrics that a run does not have are left out.
        picture: PNG to write.
        width: of the picture, in inches; its height is 6.
        dpi: dots an inch.
    """
    figure = Figure(figsize=(width, 6), layout="constrained")
    grid = list(figure.subplots(2, math.ceil(len(panels) / 2)).flat)
    for axes, (title, names) in zip(grid, panels, strict=False):
        for name in names:
            points = [(int(row["epoch"]), float(row[name])) for row in rows if row.get(name)]
            if points:
                axes.plot(*zip(*points, strict=True), label=name, marker="." if len(points) < 30 else None)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("epoch", fontsize=8)
        axes.tick_params(labelsize=8)
        if axes.lines:
            axes.legend(fontsize=7)
    for axes in grid[len(panels) :]:
        axes.remove()
    figure.savefig(picture, dpi=dpi)
