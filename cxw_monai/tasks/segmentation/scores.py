"""Scores of an evaluation's films, as tables and a page; what the segmentation bundle's tests write."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.files.csv_files import write_rows
from cxw_monai.metrics.segmentation import ALL, COUNTS, METRICS, StructureSummary, film_metrics, summarise

from .dice_scores import DiceScores
from .report import FilmCase, write_page

__all__ = ["SegmentationScores"]


class SegmentationScores(DiceScores):
    """Metrics of each film and known structure, their means and intervals, and the worst films' pictures.

    Args:
        structures: names of the S structures.
        draws, seed: of the bootstrap by patient.
        overlays: most films that the page shows.

    Raises:
        ValueError: a structure is called like the summary over all, or `overlays` is negative.
    """

    columns = ("dice", "iou", "hd95_mm", "hd95_px", "asd_mm", "asd_px", "label_px", "pred_px")
    measure = staticmethod(film_metrics)

    def __init__(self, structures: Sequence[str], draws: int = 1000, seed: int = 0, overlays: int = 24) -> None:
        if ALL in structures:
            raise ValueError(f"no structure may be called {ALL!r}, which names the summary over all; rename it.")
        if overlays < 0:
            raise ValueError(f"overlays must be 0 or more, got {overlays}.")
        super().__init__(structures)
        self.draws, self.seed, self.overlays = draws, seed, overlays
        self.worst: list[FilmCase] = []

    def show(
        self, name: str, image: np.ndarray, pred: np.ndarray, label: np.ndarray, spacing_mm: tuple[float, float] | None
    ) -> None:
        """Keep a film for the page, if it is among the worst."""
        case = FilmCase(name, image, pred.astype(bool), label.astype(bool), spacing_mm, self.metrics[-1])
        bisect.insort(self.worst, case, key=lambda case: (case.dice, case.name))
        del self.worst[self.overlays :]

    def write(self, folder: str | Path) -> None:
        """Write the results.

        - `films.csv`: a row a film, `<metric>_<structure>` in the columns, empty where unknown or undefined;
        - `summary.json`: `films`, `dice`, `dice_<structure>`, and all of `summary.csv` as `<structure>/<column>`;
        - `summary.csv`: a row a structure and one over all, with counts, means, intervals and numbers of values;
        - `report.html`: a page of these with the worst films, which names the structures that no film has a mask of.

        Raises:
            ValueError: no structure is known on any film.
        """
        folder, values = Path(folder), self.values()
        rows = summarise(values, self.patients, self.structures, self.draws, self.seed)
        cells = {row.structure: _cells(row) for row in rows}
        flat = {f"{structure}/{name}": value for structure, found in cells.items() for name, value in found.items()}
        self.write_tables(folder, flat)
        with atomic_file(folder / "summary.csv", "w", newline="", encoding="utf-8") as stream:
            columns = [*COUNTS, *(column for name in METRICS for column in _columns(name))]
            rounded = ({"structure": structure, **_rounded(found)} for structure, found in cells.items())
            write_rows(stream, ["structure", *columns], rounded)
        write_page(folder / "report.html", rows, self.structures, values["dice"], self.worst)


def _columns(metric: str) -> list[str]:
    return [metric, f"{metric}_low", f"{metric}_high", f"{metric}_films"]


def _cells(row: StructureSummary) -> dict[str, Any]:
    """Counts and estimates by column, without what is undefined."""
    cells: dict[str, Any] = dict(row.counts)
    for name, found in row.metrics.items():
        numbers = zip(_columns(name), (found.mean, found.low, found.high, found.films), strict=True)
        cells.update({column: number for column, number in numbers if number is not None})
    return cells


def _rounded(cells: dict[str, Any]) -> dict[str, Any]:
    return {name: f"{value:.5f}" if isinstance(value, float) else value for name, value in cells.items()}
