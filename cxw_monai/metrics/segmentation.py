"""Metrics of segmented films, and their means with intervals by patient.

A film's structure is *known* where it was annotated; all metrics leave out what is unknown. Definitions and their
pitfalls: Metrics Reloaded (https://doi.org/10.1038/s41592-023-02151-z).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.metrics import compute_dice, compute_iou
from monai.metrics.utils import get_mask_edges, get_surface_distance

__all__ = [
    "ALL",
    "COUNTS",
    "METRICS",
    "Estimate",
    "StructureSummary",
    "bootstrap_means",
    "film_metrics",
    "nan_mean",
    "summarise",
    "surface_distances",
]

METRICS = (
    "dice",
    "dice_nonempty",
    "dice_positives",
    "iou",
    "hd95_mm",
    "hd95_px",
    "asd_mm",
    "asd_px",
    "false_positive_rate",
)
"""What `film_metrics` measures and `summarise` averages."""

COUNTS = ("films", "patients", "positives", "negatives", "unknown", "hd95_undefined")
"""What `summarise` counts."""

ALL = "all"
"""Name of the summary over all structures."""

DRAWS_AT_ONCE = 10_000_000  # patients times resamplings, in memory


@dataclass(frozen=True)
class Estimate:
    """A mean over films.

    Attributes:
        mean: over the films where the metric is defined; over all structures, the mean of the structures' means.
        low, high: 95 % interval by bootstrap of patients; None where fewer than two patients have a value.
        films: number of values; over all structures, of pairs of a film and a structure.
    """

    mean: float
    low: float | None
    high: float | None
    films: int


@dataclass(frozen=True)
class StructureSummary:
    """Numbers of one structure, or of all.

    Attributes:
        structure: its name, or `ALL`.
        counts: by name in `COUNTS`. `films` and `patients` have the structure known; `positives` and `negatives` are
            labels with and without pixels; `hd95_undefined` are those where either label or prediction is empty, so
            that no surface distance exists. Over all structures, `films` and `patients` are all there are, and the
            others sums over the structures.
        metrics: by name in `METRICS`; one that is defined on no film is left out.
    """

    structure: str
    counts: Mapping[str, int]
    metrics: Mapping[str, Estimate]


def surface_distances(
    pred: np.ndarray, label: np.ndarray, spacing_mm: tuple[float, float] | None = None
) -> tuple[float, float]:
    """95th percentile Hausdorff distance, and average symmetric surface distance.

    These are MONAI's `compute_hausdorff_distance(percentile=95)` (the larger of both directions' percentiles) and
    `compute_average_surface_distance(symmetric=True)`, from one look at both surfaces instead of two: a mask's surface
    are its pixels with a 4-neighbour outside of it or of the film.

    Args:
        pred, label: bool `[H, W]`, each with at least one pixel.
        spacing_mm: row and column spacing; None measures in px.

    Returns:
        Both distances, in mm or px.

    Raises:
        ValueError: a mask is empty.
    """
    if not (pred.any() and label.any()):
        raise ValueError("surface distances need two masks that are not empty; leave such films out")
    union = pred | label
    rows, columns = (np.flatnonzero(union.any(axis=axis)) for axis in (1, 0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    pred_edge, label_edge = get_mask_edges(pred[box], label[box], crop=False)
    forth = get_surface_distance(pred_edge, label_edge, spacing=spacing_mm)
    back = get_surface_distance(label_edge, pred_edge, spacing=spacing_mm)
    hd95 = max(np.percentile(forth, 95), np.percentile(back, 95))
    return float(hd95), float(np.concatenate([forth, back]).mean())


def film_metrics(
    pred: np.ndarray, label: np.ndarray, known: np.ndarray, spacing_mm: tuple[float, float] | None = None
) -> dict[str, np.ndarray]:
    """Metrics of one film.

    Args:
        pred, label: bool `[S, H, W]`.
        known: bool `[S]`.
        spacing_mm: row and column spacing of these pixels; None where it is not known.

    Returns:
        float `[S]` by name, NaN where the structure is unknown or the metric undefined:

        - `dice`, `iou`: where label and prediction are both empty, 1 (the convention of CheXWorld's evaluation);
        - `dice_nonempty`: undefined where both are empty;
        - `dice_positives`: undefined where the label is empty;
        - `hd95_mm`, `asd_mm`: `surface_distances`, undefined without spacing, and where a mask is empty;
        - `hd95_px`, `asd_px`: the same in px, defined only where the spacing is not known;
        - `false_positive_rate`: where the label is empty, whether the prediction isn't (0 or 1);
        - `label_px`, `pred_px`: areas.

    Raises:
        ValueError: arrays of other shapes.
    """
    if pred.shape != label.shape or pred.ndim != 3 or known.shape != pred.shape[:1]:
        raise ValueError(
            f"pred and label must be [S, H, W] and known [S], got {pred.shape}, {label.shape} and {known.shape}."
        )
    pred, label = pred.astype(bool), label.astype(bool)
    y_pred, y = (torch.from_numpy(np.ascontiguousarray(masks))[None].float() for masks in (pred, label))
    dice = compute_dice(y_pred, y, ignore_empty=False)[0].double().numpy()  # [S]
    iou = compute_iou(y_pred, y, ignore_empty=False)[0].double().numpy()
    pred_px, label_px = pred.sum(axis=(1, 2)), label.sum(axis=(1, 2))
    nothing = np.full(len(known), np.nan)
    distances = np.full((len(known), 2), np.nan)
    for number in np.flatnonzero(known & (pred_px > 0) & (label_px > 0)):
        distances[number] = surface_distances(pred[number], label[number], spacing_mm)
    hd95, asd = distances.T
    in_mm = spacing_mm is not None
    values = {
        "dice": dice,
        "dice_nonempty": np.where((pred_px > 0) | (label_px > 0), dice, np.nan),
        "dice_positives": np.where(label_px > 0, dice, np.nan),
        "iou": iou,
        "hd95_mm": hd95 if in_mm else nothing,
        "hd95_px": nothing if in_mm else hd95,
        "asd_mm": asd if in_mm else nothing,
        "asd_px": nothing if in_mm else asd,
        "false_positive_rate": np.where(label_px == 0, pred_px > 0, np.nan),
        "label_px": label_px,
        "pred_px": pred_px,
    }
    return {name: np.where(known, value, np.nan) for name, value in values.items()}


def nan_mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean of what is not NaN; NaN where all is."""
    count = (~np.isnan(values)).sum(axis=axis)
    return np.where(count > 0, np.nansum(values, axis=axis) / np.maximum(count, 1), np.nan)


def bootstrap_means(values: np.ndarray, patients: np.ndarray, draws: int = 1000, seed: int = 0) -> np.ndarray:
    """Means over films of resampled patients, each patient with all of their films.

    Args:
        values: `[N, K]`, NaN where undefined.
        patients: int `[N]`, the patient of each film, from 0 without gaps.
        draws: number of resamplings, each of as many patients as there are, with replacement.
        seed: of the draws.

    Returns:
        `[draws, K]`; NaN where a draw has no value.
    """
    count = int(patients.max()) + 1
    defined = ~np.isnan(values)
    sums, numbers = np.zeros((2, count, values.shape[1]))
    np.add.at(sums, patients, np.where(defined, values, 0))
    np.add.at(numbers, patients, defined)
    generator = np.random.default_rng(seed)
    means, at_once = [], max(1, DRAWS_AT_ONCE // count)
    for start in range(0, draws, at_once):
        size = min(at_once, draws - start)
        times = generator.multinomial(count, np.full(count, 1 / count), size).astype(float)  # [size, patients]
        total, number = times @ sums, times @ numbers
        means.append(np.where(number > 0, total / np.maximum(number, 1), np.nan))
    return np.concatenate(means)


def summarise(
    values: Mapping[str, np.ndarray],
    patients: Sequence[str | None],
    structures: Sequence[str],
    draws: int = 1000,
    seed: int = 0,
) -> list[StructureSummary]:
    """Counts, means and 95 % intervals of each structure, and of all as the last.

    Args:
        values: `[N, S]` by the names that `film_metrics` gives.
        patients: patient of each film; a film without one counts as a patient of its own.
        structures: S names.
        draws, seed: see `bootstrap_means`.

    Raises:
        ValueError: no films.
    """
    if not len(patients):
        raise ValueError("there are no films to summarise")
    table = np.stack([values[name] for name in METRICS], axis=-1)  # [N, S, M]
    numbers: dict[tuple[str, object], int] = {}
    keys = [("film", n) if patient is None else ("patient", patient) for n, patient in enumerate(patients)]
    groups = np.array([numbers.setdefault(key, len(numbers)) for key in keys])
    drawn = bootstrap_means(table.reshape(len(table), -1), groups, draws, seed).reshape(draws, *table.shape[1:])
    counts = [_counts({k: v[:, [s]] for k, v in values.items()}, groups) for s in range(len(structures))]
    rows = [
        StructureSummary(name, counts[s], _estimates(table[:, s : s + 1], drawn[:, s : s + 1], groups))
        for s, name in enumerate(structures)
    ]
    total = {name: sum(count[name] for count in counts) for name in COUNTS}
    total.update(films=len(patients), patients=len(numbers))
    return [*rows, StructureSummary(ALL, total, _estimates(table, drawn, groups))]


def _counts(values: Mapping[str, np.ndarray], groups: np.ndarray) -> dict[str, int]:
    """Counts of one structure from its `[N, 1]` values."""
    label, pred = (values[name][:, 0] for name in ("label_px", "pred_px"))
    known = ~np.isnan(label)
    return {
        "films": int(known.sum()),
        "patients": len(np.unique(groups[known])),
        "positives": int((label > 0).sum()),
        "negatives": int((label == 0).sum()),
        "unknown": int((~known).sum()),
        "hd95_undefined": int(((label > 0) != (pred > 0))[known].sum()),
    }


def _estimates(table: np.ndarray, drawn: np.ndarray, groups: np.ndarray) -> dict[str, Estimate]:
    """Estimates from the values `[N, S, M]` and the resampled means `[draws, S, M]` of S structures."""
    means = nan_mean(nan_mean(table, axis=0), axis=0)  # [M]
    resampled = nan_mean(drawn, axis=1)  # [draws, M]
    estimates = {}
    for m, name in enumerate(METRICS):
        defined = ~np.isnan(table[:, :, m])  # [N, S]
        if not defined.any():
            continue
        low = high = None
        if len(np.unique(groups[defined.any(axis=1)])) > 1:
            low, high = (float(bound) for bound in np.nanpercentile(resampled[:, m], [2.5, 97.5]))
        estimates[name] = Estimate(float(means[m]), low, high, int(defined.sum()))
    return estimates
