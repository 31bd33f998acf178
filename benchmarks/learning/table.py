"""Rows of the learning benchmark as a Markdown table and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from cxw_monai.training.curves import read_metrics

__all__ = ["draw_curves", "draw_rows", "markdown", "number"]

Rows = Sequence[Mapping[str, str]]
PROBES = {"mean": "mean token", "grid": "5 x 5 tokens", "attentive": "attentive", "knn": "k-NN"}
OTHERS = {"age_mae": ".1f", "dice_drr_8": ".3f", "dice_drr_24": ".3f", "dice_real_8": ".3f", "dice_real_24": ".3f"}


def number(row: Mapping[str, str], name: str, form: str) -> str:
    """A cell of a row without the zero before its point; a dash where there is none."""
    return format(float(row[name]), form).removeprefix("0") if row.get(name) else "-"


def markdown(rows: Rows) -> str:
    """One line a run: cost, mean AUROC with its interval by probe, age, Dice, effective rank."""
    head = ["run", "minutes", "images", *PROBES.values(), *(name.replace("_", " ") for name in OTHERS), "rank"]
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    for row in rows:
        cells = [row["run"], f"{float(row['processor_seconds']) / 60:.1f}", row["images_seen"]]
        for probe in PROBES:
            low, high = (number(row, f"{probe}_{end}", ".3f") for end in ("low", "high"))
            cells.append(f"{number(row, probe, '.3f')} [{low}, {high}]")
        cells += [number(row, name, form) for name, form in OTHERS.items()]
        lines.append("| " + " | ".join([*cells, number(row, "rank_tokens", ".1f")]) + " |")
    return "\n".join(lines)


def draw_rows(rows: Rows, path: str | Path) -> None:
    """Mean AUROC with its interval, and Dice, of every run, as a PNG or what the path's suffix says."""
    places = range(len(rows))
    figure, axes = plt.subplots(1, 2, figsize=(11, 0.36 * len(rows) + 1.4), sharey=True, layout="constrained")
    for shift, probe, colour in ((-0.2, "mean", "C0"), (0.0, "grid", "C1"), (0.2, "attentive", "C2")):
        values, low, high = ([float(row[f"{probe}{end}"]) for row in rows] for end in ("", "_low", "_high"))
        spread = [[v - e for v, e in zip(values, low, strict=True)], [e - v for v, e in zip(values, high, strict=True)]]
        where = [place + shift for place in places]
        axes[0].errorbar(values, where, xerr=spread, fmt="o", ms=4, lw=1, color=colour, label=PROBES[probe])
    for name, colour in {"dice_drr_8": "C3", "dice_real_8": "C4", "dice_real_24": "C5"}.items():
        axes[1].plot(
            [float(r[name]) for r in rows], list(places), "o", ms=5, color=colour, label=name.replace("_", " ")
        )
    axes[0].set(yticks=list(places), yticklabels=[r["run"] for r in rows], xlabel="mean AUROC of five labels, frozen")
    axes[0].invert_yaxis()
    axes[1].set_xlabel("mean Dice of lungs and heart, frozen, linear decoder")
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, loc="lower left")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_curves(runs: Mapping[str, str | Path], path: str | Path) -> None:
    """Prediction loss and effective rank of the predictions over optimiser steps.

    Args:
        runs: name of each run to its `metrics.csv`.
        path: the picture.
    """
    figure, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for name, metrics in runs.items():
        rows = read_metrics(metrics)
        steps = [int(row["iteration"]) for row in rows]
        for axis, column in zip(axes, ("loss_intra", "prediction_rank"), strict=True):
            axis.plot(steps, [float(row[column]) for row in rows], marker=".", label=name)
    for axis, label in zip(axes, ("prediction loss", "effective rank of the predictions"), strict=True):
        axis.set(xlabel="optimiser steps", ylabel=label)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
