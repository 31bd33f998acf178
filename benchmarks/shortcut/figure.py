"""The masking test as one picture: a film in all its variants, and each label's AUROC on them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .masking import FILLS, VARIANTS, variant
from .matrix import LabelMatrix

__all__ = ["draw"]

TITLES = {
    "full": "whole film",
    "no_region": "without the region",
    "no_box": "without its box",
    "only_region": "region alone",
    "only_box": "box alone",
}
COLOURS = {"mean": "#0072b2", "blur": "#d55e00", "zero": "#009e73"}
COLUMNS = 2  # labels in a row


def draw(matrices: Sequence[LabelMatrix], film: np.ndarray, region: np.ndarray) -> Figure:
    """The figure.

    Args:
        matrices: of at least one label.
        film: float `[H, W]` in [0, 1], an example.
        region: bool `[H, W]`, its region.
    """
    rows = -(-len(matrices) // COLUMNS)
    figure = Figure(figsize=(11, 2.6 + 2.7 * rows), layout="constrained")
    top, below = figure.subfigures(2, 1, squeeze=False, height_ratios=[2.4, 2.7 * rows])[:, 0]
    top.suptitle("What the classifier is shown (fill: mean)", fontsize=10)
    for axes, name in zip(top.subplots(1, len(VARIANTS)), VARIANTS, strict=True):
        axes.imshow(variant(film, region, name, "mean"), cmap="gray", vmin=0, vmax=1)
        axes.set_title(TITLES[name], fontsize=9)
        axes.axis("off")
    grid = list(below.subplots(rows, COLUMNS, squeeze=False).flat)
    for axes, matrix in zip(grid, matrices, strict=False):
        _panel(axes, matrix)
    for axes in grid[len(matrices) :]:
        axes.remove()
    handles, labels = grid[0].get_legend_handles_labels()
    below.legend(handles, labels, loc="outside lower center", ncols=len(FILLS), fontsize=8, frameon=False)
    return figure


def _panel(axes: Axes, matrix: LabelMatrix) -> None:
    """AUROC with its interval by variant, a colour a fill; the whole film once."""
    axes.axvline(0.5, color="#8c959f", linewidth=0.8, linestyle=":")
    for shift, fill in zip((-0.22, 0, 0.22), FILLS, strict=True):
        for row, name in enumerate(VARIANTS):
            if name == "full" and fill != FILLS[1]:
                continue
            score = matrix.auroc[name, fill]
            colour = "#1b1f24" if name == "full" else COLOURS[fill]
            label = f"filled with: {fill}" if name == "no_region" else None
            if score.low is not None and score.high is not None:
                axes.plot([score.low, score.high], [row + shift] * 2, color=colour, linewidth=1.4)
            axes.plot(score.value, row + shift, "o", color=colour, markersize=5, label=label)
    axes.set(xlim=(0, 1), ylim=(len(VARIANTS) - 0.5, -0.5), yticks=range(len(VARIANTS)))
    axes.set_yticklabels([TITLES[name] for name in VARIANTS], fontsize=8)
    axes.set_title(f"{matrix.label.replace('_', ' ')}\n{matrix.verdict}", fontsize=9, parse_math=False)
    axes.set_xlabel("AUROC (dotted: chance)", fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
