"""Scores of an evaluation's films, as tables and a page; what the segmentation bundle's tests write."""

from __future__ import annotations

import bisect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.files.csv_files import CsvWriter, write_rows
from cxw_monai.metrics.segmentation import ALL, COUNTS, METRICS, StructureSummary, film_metrics, nan_mean, summarise

from .report import FilmCase, write_page

__all__ = ["SegmentationScores"]

COLUMNS = ("dice", "iou", "hd95_mm", "hd95_px", "asd_mm", "asd_px", "label_px", "pred_px")
"""Metrics in `films.csv`, one column a structure; the others follow from them."""


class SegmentationScores:
    """Metrics of each film and known structure, their means and intervals, and the worst films' pictures.

    Args:
        structures: names of the S structures.
        draws, seed: of the bootstrap by patient.
        overlays: most films that the page shows.

    Raises:
        ValueError: a structure is called like the summary over all, or `overlays` is negative.
    """

    def __init__(self, structures: Sequence[str], draws: int = 1000, seed: int = 0, overlays: int = 24) -> None:
        if ALL in structures:
            raise ValueError(f"no structure may be called {ALL!r}, which names the summary over all; rename it.")
        if overlays < 0:
            raise ValueError(f"overlays must be 0 or more, got {overlays}.")
        self.structures = tuple(structures)
        self.draws, self.seed, self.overlays = draws, seed, overlays
        self.names: list[str] = []
        self.patients: list[str | None] = []
        self.metrics: list[dict[str, np.ndarray]] = []
        self.worst: list[FilmCase] = []

    def add(
        self,
        name: str,
        patient_id: str | None,
        pred: np.ndarray,
        label: np.ndarray,
        known: np.ndarray,
        spacing_mm: tuple[float, float] | None = None,
        image: np.ndarray | None = None,
    ) -> None:
        """Add a film.

        Args:
            name: what the film is called in tables and page.
            patient_id: films of one patient are resampled together; written nowhere. None for a patient of its own.
            pred, label: bool `[S, H, W]`.
            known: bool `[S]`, which structures were annotated; the others are left out.
            spacing_mm: row and column spacing, None where it is not known.
            image: uint8 or uint16 `[H, W]`, bone bright, for the page; None leaves the film out of it.

        Raises:
            ValueError: arrays of other shapes.
        """
        metrics = film_metrics(pred, label, known, spacing_mm)
        if len(known) != len(self.structures):
            raise ValueError(f"{name}: {len(known)} masks for the structures {', '.join(self.structures)}.")
        self.names.append(name)
        self.patients.append(patient_id)
        self.metrics.append(metrics)
        if image is not None and known.any():
            case = FilmCase(name, image, pred.astype(bool), label.astype(bool), spacing_mm, metrics)
            bisect.insort(self.worst, case, key=lambda case: (case.dice, case.name))
            del self.worst[self.overlays :]

    def values(self) -> dict[str, np.ndarray]:
        """`[N, S]` by the names that `film_metrics` gives."""
        if not self.metrics:
            raise ValueError("no film was scored; check the list of films.")
        return {name: np.stack([metrics[name] for metrics in self.metrics]) for name in self.metrics[0]}

    def summary(self) -> dict[str, float]:
        """`dice_<structure>`: mean over the films where it is known; `dice`: mean of these. Nothing known is left out.

        Raises:
            ValueError: no structure is known on any film.
        """
        means = nan_mean(self.values()["dice"], axis=0)  # [S]
        if np.isnan(means).all():
            raise ValueError(f"None of the {len(self.names)} films has a known mask of {', '.join(self.structures)}.")
        known = {f"dice_{s}": float(mean) for s, mean in zip(self.structures, means, strict=True) if mean == mean}
        return {"dice": float(nan_mean(means, axis=0)), **known}

    def write(self, folder: str | Path) -> None:
        """Write the results.

        - `films.csv`: a row a film, `<metric>_<structure>` in the columns, empty where unknown or undefined;
        - `summary.csv`: a row a structure and one over all, with counts, means, intervals and numbers of values;
        - `summary.json`: `films`, `dice`, `dice_<structure>`, and all of `summary.csv` as `<structure>/<column>`;
        - `report.html`: a page of these with the worst films, which names the structures that no film has a mask of.

        Raises:
            ValueError: no structure is known on any film.
        """
        folder, summary, values = Path(folder), self.summary(), self.values()
        rows = summarise(values, self.patients, self.structures, self.draws, self.seed)
        self._write_films(folder / "films.csv", values)
        cells = {row.structure: _cells(row) for row in rows}
        with atomic_file(folder / "summary.csv", "w", newline="", encoding="utf-8") as stream:
            columns = [*COUNTS, *(column for name in METRICS for column in _columns(name))]
            rounded = ({"structure": structure, **_rounded(found)} for structure, found in cells.items())
            write_rows(stream, ["structure", *columns], rounded)
        flat = {f"{structure}/{name}": value for structure, found in cells.items() for name, value in found.items()}
        with atomic_file(folder / "summary.json", "w", encoding="utf-8") as stream:
            json.dump({"films": len(self.names), **summary, **flat}, stream, indent=1, allow_nan=False)
        write_page(folder / "report.html", rows, self.structures, values["dice"], self.worst)

    def _write_films(self, path: Path, values: dict[str, np.ndarray]) -> None:
        columns = [values[name][:, s] for name in COLUMNS for s in range(len(self.structures))]
        with atomic_file(path, "w", newline="", encoding="utf-8") as stream:
            writer = CsvWriter(stream)
            writer.writerow(["film", *(f"{name}_{structure}" for name in COLUMNS for structure in self.structures)])
            for name, row in zip(self.names, np.stack(columns, axis=1), strict=True):
                writer.writerow([name, *("" if np.isnan(value) else f"{value:.5f}" for value in row)])


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
