"""Errors of landmarks: radial errors, and their means, spreads and success rates a point.

The protocol is that of the cephalometric challenge (Wang et al., Med Image Anal 2016; 31:63-76): the radial error of a
point is its Euclidean distance from the true one; the success rate of a distance is the share of points that lie within
it, 2, 2.5, 3 and 4 mm there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .segmentation import bootstrap_means

__all__ = ["ALL", "SUCCESS_MM", "PointSummary", "radial_errors", "summarise_points"]

SUCCESS_MM = (2.0, 2.5, 3.0, 4.0)
"""Distances in mm of the success rates."""

ALL = "all"
"""Name of the summary over all points."""


@dataclass(frozen=True)
class PointSummary:
    """Errors of one landmark over the films where it is known, or of all landmarks together.

    Attributes:
        point: its name, or `ALL`.
        known: number of errors; of all, of pairs of a film and a landmark.
        mean_px, mean_mm: mean radial error in px of the stored films, and in mm over those whose spacing is known.
        low_mm, high_mm: 95 % interval of `mean_mm` by bootstrap of patients; None for fewer than two patients.
        sd_mm, median_mm, p95_mm: standard deviation, median and 95th percentile.
        success: share within each of `SUCCESS_MM`.

    None where no film has it, or no spacing is known.
    """

    point: str
    known: int
    mean_px: float | None
    mean_mm: float | None
    low_mm: float | None
    high_mm: float | None
    sd_mm: float | None
    median_mm: float | None
    p95_mm: float | None
    success: tuple[float, ...] | None


def radial_errors(
    pred: np.ndarray, true: np.ndarray, spacing_mm: tuple[float, float] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Radial errors of a film's landmarks.

    Args:
        pred, true: `[P, 2]`, row and column in px; NaN where unknown.
        spacing_mm: mm per px along rows' and columns' counts; None where it isn't known.

    Returns:
        `[P]` in px, and in mm; NaN where a point is unknown, and all of mm without a spacing.
    """
    apart = np.asarray(pred, dtype=np.float64) - true
    scale = (np.nan, np.nan) if spacing_mm is None else spacing_mm
    return np.linalg.norm(apart, axis=1), np.linalg.norm(apart * np.array(scale), axis=1)


def summarise_points(
    errors_px: np.ndarray,
    errors_mm: np.ndarray,
    points: Sequence[str],
    patients: Sequence[str | None],
    draws: int = 1000,
    seed: int = 0,
) -> list[PointSummary]:
    """Summaries of each landmark, and of all as the last.

    Args:
        errors_px, errors_mm: `[N, P]` of N films; NaN where unknown.
        points: P names.
        patients: patient of each film; a film without one counts as a patient of its own.
        draws, seed: of the bootstrap.

    Raises:
        ValueError: no films, or arrays of other shapes.
    """
    shape = (len(patients), len(points))
    if not len(patients) or errors_px.shape != shape or errors_mm.shape != shape:
        raise ValueError(f"errors must be {shape} of at least one film, got {errors_px.shape} and {errors_mm.shape}.")
    numbers: dict[tuple[str, object], int] = {}
    keys = [("film", n) if patient is None else ("patient", patient) for n, patient in enumerate(patients)]
    groups = np.array([numbers.setdefault(key, len(numbers)) for key in keys])
    columns = [*(slice(number, number + 1) for number in range(len(points))), slice(None)]
    return [
        _summary(name, errors_px[:, at], errors_mm[:, at], groups, draws, seed)
        for name, at in zip((*points, ALL), columns, strict=True)
    ]


def _summary(name: str, px: np.ndarray, mm: np.ndarray, groups: np.ndarray, draws: int, seed: int) -> PointSummary:
    """Summary of errors `[N, K]` of one landmark, or of several together."""
    in_px, in_mm = px[~np.isnan(px)], mm[~np.isnan(mm)]
    mean_px = float(in_px.mean()) if len(in_px) else None
    if not len(in_mm):
        return PointSummary(name, len(in_px), mean_px, None, None, None, None, None, None, None)
    low, high = _interval(mm, groups, draws, seed)
    success = tuple(float((in_mm <= most).mean()) for most in SUCCESS_MM)
    median, p95 = (float(one) for one in np.percentile(in_mm, [50, 95]))
    return PointSummary(
        name, len(in_px), mean_px, float(in_mm.mean()), low, high, float(in_mm.std()), median, p95, success
    )


def _interval(values: np.ndarray, groups: np.ndarray, draws: int, seed: int) -> tuple[float | None, float | None]:
    """95 % interval of the mean of values `[N, K]`, NaN where unknown, by bootstrap of the films' patients."""
    if len(np.unique(groups[~np.isnan(values).all(axis=1)])) < 2:
        return None, None
    one = values.reshape(-1, 1)
    drawn = bootstrap_means(one, np.repeat(groups, values.shape[1]), draws, seed)
    low, high = (float(bound) for bound in np.nanpercentile(drawn, [2.5, 97.5]))
    return low, high
