"""One HTML page of a segmentation's evaluation: table, distributions, and the worst films with both contours."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from scipy.ndimage import binary_erosion

from cxw_monai.io.structures import ORANGE, SKY
from cxw_monai.metrics.segmentation import ALL, METRICS, Estimate, StructureSummary
from cxw_monai.tasks.pages import data_url, figure_url, write_html

__all__ = ["LABEL_COLOUR", "PRED_COLOUR", "FilmCase", "draw_contours", "write_page"]

LABEL_COLOUR, PRED_COLOUR = SKY, ORANGE
"""Told apart with any common colour vision, and from grey."""

LABEL_WIDTH, PRED_WIDTH = 4, 2  # px of the picture; the label is seen beside a prediction that coincides with it
PICTURE_SIDE = 512
TITLES = {
    "dice": "Dice",
    "dice_nonempty": "Dice, not both empty",
    "dice_positives": "Dice, label not empty",
    "iou": "IoU",
    "hd95_mm": "HD95, mm",
    "hd95_px": "HD95, px",
    "asd_mm": "ASD, mm",
    "asd_px": "ASD, px",
    "false_positive_rate": "false-positive rate",
}
_TEMPLATE = Path(__file__).with_name("segmentation_report.html.j2")


@dataclass(frozen=True)
class FilmCase:
    """A film to show.

    Attributes:
        name: its caption.
        image: uint8 or uint16 `[H, W]`, bone bright.
        pred, label: bool `[S, H, W]`.
        spacing_mm: row and column spacing, None where it is not known.
        metrics: as `film_metrics` gives them.
    """

    name: str
    image: np.ndarray
    pred: np.ndarray
    label: np.ndarray
    spacing_mm: tuple[float, float] | None
    metrics: dict[str, np.ndarray]

    @property
    def dice(self) -> float:
        """Mean Dice of the known structures, by which films are sorted."""
        return float(np.nanmean(self.metrics["dice"]))

    @property
    def known(self) -> np.ndarray:
        """bool `[S]`."""
        return ~np.isnan(self.metrics["dice"])


def draw_contours(case: FilmCase) -> np.ndarray:
    """The film in true proportions with the contours of its known structures, label and prediction.

    A contour is the outermost ring of the mask's own pixels. The prediction's is thinner and on top, so that both are
    seen where they coincide.

    Returns:
        uint8 `[h, w, 3]`, 512 px on the longer side.
    """
    height, width = case.image.shape
    true_height = height if case.spacing_mm is None else height * case.spacing_mm[0] / case.spacing_mm[1]
    scale = PICTURE_SIDE / max(true_height, width)
    size = max(1, round(width * scale)), max(1, round(true_height * scale))
    grey = (case.image * (255 / np.iinfo(case.image.dtype).max)).round().astype(np.uint8)
    picture = np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BICUBIC).convert("RGB")).copy()
    for masks, colour, line in ((case.label, LABEL_COLOUR, LABEL_WIDTH), (case.pred, PRED_COLOUR, PRED_WIDTH)):
        for mask in masks[case.known]:
            shown = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
            picture[shown & ~binary_erosion(shown, iterations=line)] = colour
    return picture


def dice_histograms(dice: np.ndarray, structures: Sequence[str]) -> Figure:
    """Figure with a histogram of each structure's Dice `[N, S]` and its median."""
    columns = min(len(structures), 4)
    rows = -(-len(structures) // columns)
    figure = Figure(figsize=(3 * columns, 1.9 * rows), layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, name, column in zip(grid, structures, dice.T, strict=False):
        known = column[~np.isnan(column)]
        axes.hist(known, bins=np.linspace(0, 1, 41), color="#57606a")
        title = f"{name.replace('_', ' ')}: nothing known"
        if len(known):
            axes.axvline(np.median(known), color="#0072b2", linewidth=1.2)
            title = f"{name.replace('_', ' ')}: median {np.median(known):.3f}"
        axes.set_title(title, fontsize=9)
        axes.set_xlim(0, 1)
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[len(structures) :]:
        axes.remove()
    figure.supxlabel("Dice", fontsize=8)
    figure.supylabel("films", fontsize=8)
    return figure


def write_page(
    path: str | PathLike[str],
    rows: Sequence[StructureSummary],
    structures: Sequence[str],
    dice: np.ndarray,
    cases: Sequence[FilmCase],
) -> None:
    """Write a page that needs no network.

    Args:
        path: of the HTML file.
        rows: summaries of the structures, then that over all.
        structures: S names.
        dice: `[N, S]`, NaN where unknown.
        cases: films to show, worst first.
    """
    shown = [name for name in METRICS if any(name in row.metrics for row in rows)]
    write_html(
        path,
        _TEMPLATE,
        total=rows[-1].counts,
        without_masks=[row.structure for row in rows[:-1] if row.counts["positives"] + row.counts["negatives"] == 0],
        titles=[(name, TITLES[name]) for name in shown],
        rows=[
            {
                "structure": "mean of all" if row.structure == ALL else row.structure.replace("_", " "),
                "counts": row.counts,
                "cells": [_cell(name, row.metrics.get(name), row) for name in shown],
            }
            for row in rows
        ],
        histograms=figure_url(dice_histograms(dice, structures)),
        cases=[_case(case, structures) for case in cases],
        label_colour=_css(LABEL_COLOUR),
        pred_colour=_css(PRED_COLOUR),
    )


def _cell(name: str, found: Estimate | None, row: StructureSummary) -> dict[str, str]:
    """A metric in the table; the number of values where it isn't that of the known films."""
    if found is None:
        return {"mean": "", "interval": "", "films": ""}
    known = row.counts["positives"] + row.counts["negatives"]
    return {
        "mean": _number(name, found.mean),
        "interval": "" if found.low is None else f"{_number(name, found.low)} to {_number(name, found.high)}",
        "films": "" if found.films == known else f"n = {found.films}",
    }


def _case(case: FilmCase, structures: Sequence[str]) -> dict[str, Any]:
    stream = io.BytesIO()
    Image.fromarray(draw_contours(case)).save(stream, "JPEG", quality=82, subsampling=0, optimize=True)
    unit = "px" if case.spacing_mm is None else "mm"
    lines = []
    for s, name in enumerate(structures):
        if not case.known[s]:
            continue
        empty = [what for what, area in (("label", "label_px"), ("prediction", "pred_px")) if not case.metrics[area][s]]
        distances = [_number(m, case.metrics[m][s]) for m in (f"hd95_{unit}", f"asd_{unit}")]
        note = " and ".join(empty) + " empty" if empty else ""
        lines.append((name.replace("_", " "), _number("dice", case.metrics["dice"][s]), *distances, note))
    return {
        "name": case.name,
        "dice": _number("dice", case.dice),
        "unit": unit,
        "lines": lines,
        "picture": data_url(stream.getvalue(), "jpeg"),
    }


def _number(metric: str, value: float | None) -> str:
    if value is None or np.isnan(value):
        return ""
    return f"{value:.2f}" if metric.startswith(("hd95", "asd")) else f"{value:.3f}"


def _css(colour: tuple[int, int, int]) -> str:
    return "#" + bytes(colour).hex()
