"""Errors of an evaluation's films, as tables and a page; what the landmark bundle's tests write."""

from __future__ import annotations

import bisect
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.files.csv_files import write_rows
from cxw_monai.metrics.landmarks import ALL, SUCCESS_MM, PointSummary, radial_errors, summarise_points

__all__ = ["FilmCase", "LandmarkScores"]


@dataclass
class FilmCase:
    """A film to show.

    Attributes:
        name: its caption.
        image: uint8 or uint16 `[h, w]`, bone bright.
        pred, true: `[P, 2]` x and y as shares of the image's width and height; NaN where unknown.
        error: mean radial error of its landmarks, by which films are sorted, as a share of the diagonal.
        errors: `[P]`, in `unit`.
        confidence: `[P]`.
        unit: mm where the film's spacing is known, else px.
    """

    name: str
    image: np.ndarray
    pred: np.ndarray
    true: np.ndarray
    error: float
    errors: np.ndarray
    confidence: np.ndarray
    unit: str


@dataclass
class _Film:
    """What is kept of a film: its errors `[P]` by unit, and the confidences `[P]`."""

    name: str
    patient: str | None
    px: np.ndarray
    mm: np.ndarray
    share: np.ndarray = field(repr=False)
    confidence: np.ndarray = field(repr=False)


class LandmarkScores:
    """Radial errors of each film and known landmark, their means and success rates, and the worst films' pictures.

    Args:
        points: names of the P landmarks.
        draws, seed: of the bootstrap by patient.
        pictures: most films that the page shows.

    Raises:
        ValueError: a landmark is called like the summary over all, or `pictures` is negative.
    """

    def __init__(self, points: Sequence[str], draws: int = 1000, seed: int = 0, pictures: int = 24) -> None:
        if ALL in points:
            raise ValueError(f"no landmark may be called {ALL!r}, which names the summary over all; rename it.")
        if pictures < 0:
            raise ValueError(f"pictures must be 0 or more, got {pictures}.")
        self.points, self.draws, self.seed, self.pictures = tuple(points), draws, seed, pictures
        self.films: list[_Film] = []
        self.worst: list[FilmCase] = []

    def add(
        self,
        name: str,
        patient_id: str | None,
        pred: np.ndarray,
        true: np.ndarray,
        confidence: np.ndarray,
        shape: tuple[int, int],
        spacing_mm: tuple[float, float] | None = None,
    ) -> None:
        """Add a film.

        Args:
            name: what the film is called in tables and page.
            patient_id: films of one patient are resampled together; written nowhere. None for a patient of its own.
            pred, true: `[P, 2]`, row and column in px of the stored film; NaN where unknown.
            confidence: `[P]`.
            shape: rows and columns of the stored film.
            spacing_mm: row and column spacing of the stored film, None where it is not known.
        """
        px, mm = radial_errors(pred, true, spacing_mm)
        share = px / float(np.hypot(*shape))
        self.films.append(_Film(name, patient_id, px, mm, share, confidence))

    def show(self, image: np.ndarray, pred: np.ndarray, true: np.ndarray) -> None:
        """Keep the film that was added last for the page, if it is among the worst.

        Args:
            image: uint8 or uint16 `[h, w]`, bone bright.
            pred, true: `[P, 2]`, x and y as shares of the image's width and height.
        """
        film = self.films[-1]
        if np.isnan(film.px).all():
            return
        unit, errors = ("px", film.px) if np.isnan(film.mm).all() else ("mm", film.mm)
        error = float(np.nanmean(film.share))
        case = FilmCase(film.name, image, pred, true, error, errors, film.confidence, unit)
        bisect.insort(self.worst, case, key=lambda one: (-one.error, one.name))
        del self.worst[self.pictures :]

    def _table(self, unit: str) -> np.ndarray:
        """Errors `[N, P]` of all films.

        Raises:
            ValueError: no films.
        """
        if not self.films:
            raise ValueError("no film was scored; check the list of films.")
        return np.stack([getattr(film, unit) for film in self.films])

    def summary(self) -> dict[str, float]:
        """Means over all known landmarks of the films.

        `score` is minus the mean radial error in percent of the film's diagonal, so that higher is better whatever the
        films' sizes; `mean_radial_error_px`; where a spacing is known `mean_radial_error_mm` and `success_<mm>mm`.

        Raises:
            ValueError: no landmark is known on any film.
        """
        px, mm = self._table("px"), self._table("mm")
        if np.isnan(px).all():
            raise ValueError(f"None of the {len(self.films)} films has a landmark of {', '.join(self.points)}.")
        found = {"score": -100 * float(np.nanmean(self._table("share"))), "mean_radial_error_px": float(np.nanmean(px))}
        if not np.isnan(mm).all():
            known = mm[~np.isnan(mm)]
            found["mean_radial_error_mm"] = float(known.mean())
            found |= {f"success_{most:g}mm": float((known <= most).mean()) for most in SUCCESS_MM}
        return found

    def write(self, folder: str | Path) -> None:
        """Write the results.

        - `films.csv`: a row a film, `error_px_<point>`, `error_mm_<point>` and `confidence_<point>` in the columns,
          empty where unknown;
        - `points.csv`: a row a landmark and one over all: `PointSummary`;
        - `summary.json`: `films`, `summary`, and all of `points.csv` as `<point>/<column>`;
        - `report.html`: a page of these with the worst films.

        Raises:
            ValueError: no landmark is known on any film.
        """
        folder, summary = Path(folder), self.summary()
        px, mm, confidence = (self._table(unit) for unit in ("px", "mm", "confidence"))
        rows = summarise_points(px, mm, self.points, [film.patient for film in self.films], self.draws, self.seed)
        cells = {row.point: _cells(row) for row in rows}
        columns = {"error_px": px, "error_mm": mm, "confidence": confidence}
        names = [f"{column}_{point}" for column in columns for point in self.points]
        table = np.concatenate(list(columns.values()), axis=1)
        lines = [
            {"film": film.name, **{name: _text(value) for name, value in zip(names, line, strict=True)}}
            for film, line in zip(self.films, table.tolist(), strict=True)
        ]
        _write_csv(folder / "films.csv", ["film", *names], lines)
        points = [{"point": name, **{column: _text(one) for column, one in row.items()}} for name, row in cells.items()]
        _write_csv(folder / "points.csv", list(points[0]), points)
        flat = {
            f"{name}/{column}": one for name, row in cells.items() for column, one in row.items() if one is not None
        }
        with atomic_file(folder / "summary.json", "w", encoding="utf-8") as stream:
            json.dump({"films": len(self.films), **summary, **flat}, stream, indent=1, allow_nan=False)
        from .report import write_page  # draws, which validation doesn't

        write_page(folder / "report.html", rows, self.points, len(self.films), self.worst)


def _cells(row: PointSummary) -> dict[str, Any]:
    """A summary by column of `points.csv`, None where undefined."""
    names = ("known", "mean_px", "mean_mm", "low_mm", "high_mm", "sd_mm", "median_mm", "p95_mm")
    success = row.success or (None,) * len(SUCCESS_MM)
    rates = {f"success_{most:g}mm": rate for most, rate in zip(SUCCESS_MM, success, strict=True)}
    return {**{name: getattr(row, name) for name in names}, **rates}


def _text(value: Any) -> Any:
    """A cell: floats to five digits, nothing for what is undefined."""
    if value is None or value != value:
        return ""
    return f"{value:.5f}" if isinstance(value, float) else value


def _write_csv(path: Path, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    with atomic_file(path, "w", newline="", encoding="utf-8") as stream:
        write_rows(stream, columns, rows)
