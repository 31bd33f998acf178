"""Whether a segmenter's own doubt finds the films that it gets wrong.

    python -m benchmarks.quality.doubt --model model.pt --manifest wingspan/manifest.csv --split validation \
        --masks lung_field_left=mask_left_lung lung_field_right=mask_right_lung heart=mask_heart --output doubt.csv

Two scores of each structure, both without annotations: the Dice that its probabilities expect
(:func:`cxw_monai.quality.expected_dice.expected_dice`), and the Dice of its mask with that of a second pass over the
mirrored film, left and right exchanged. The table says how each goes with the true Dice (Spearman's rank correlation)
and finds the films below a limit (AUROC). Choose a limit on validation films.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

import cxw_monai
from benchmarks.command import ended
from cxw_monai.data.manifest import read_datalist
from cxw_monai.inference.api import SegmentationModel
from cxw_monai.io import read_radiograph
from cxw_monai.io.formats.pictures import read_mask
from cxw_monai.quality.expected_dice import expected_dice
from cxw_monai.transforms.warp import mirrored_order

__all__ = ["dice", "doubts_of_film", "format_table"]

SCORES = ("expected_dice", "mirrored_dice")


def dice(first: np.ndarray, second: np.ndarray) -> float:
    """Dice of two masks; NaN where both are empty."""
    total = np.count_nonzero(first) + np.count_nonzero(second)
    return 2 * np.count_nonzero(first & second) / total if total else float("nan")


def doubts_of_film(
    model: SegmentationModel, image: np.ndarray, masks: Mapping[str, np.ndarray]
) -> list[dict[str, Any]]:
    """A row per annotated structure of one film.

    Args:
        model: the segmenter.
        image: float32 ``[1, H, W]`` in [0, 1], bone bright.
        masks: bool ``[H, W]`` by structure, manual ones.
    """
    first = np.stack(list(model.probabilities(image).values()))  # [S, H, W]
    second = np.stack(list(model.probabilities(np.ascontiguousarray(image[..., ::-1])).values()))
    second = second[mirrored_order(model.structures), :, ::-1]
    expected = expected_dice(first)
    rows = []
    for name, mask in masks.items():
        place = list(model.structures).index(name)
        found = first[place] >= 0.5
        rows.append(
            {
                "structure": name,
                "dice": dice(found, mask),
                "expected_dice": float(expected[place]),
                "mirrored_dice": dice(found, second[place] >= 0.5),
            }
        )
    return rows


def format_table(rows: Sequence[Mapping[str, Any]], limit: float) -> str:
    """A Markdown table, a row per structure and score.

    A film without a mask has the lowest score; AUROC is a dash where no film, or every one, is below the limit.
    """
    lines = [
        f"| structure | films | mean dice | below {limit:g} | score | rank correlation | AUROC |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in dict.fromkeys(row["structure"] for row in rows):
        own = [row for row in rows if row["structure"] == name]
        true = np.array([row["dice"] for row in own])
        wrong = true < limit
        for score in SCORES:
            values = np.nan_to_num([row[score] for row in own])
            order = f"{spearmanr(values, true).statistic:.2f}"
            auroc = f"{roc_auc_score(wrong, -values):.2f}" if 0 < wrong.sum() < len(wrong) else "-"
            lines.append(f"| {name} | {len(own)} | {true.mean():.3f} | {wrong.sum()} | {score} | {order} | {auroc} |")
    return "\n".join(lines)


def _measure(arguments: argparse.Namespace) -> None:
    model = cxw_monai.load(arguments.model)
    columns = dict(pair.split("=", 1) for pair in arguments.masks)
    rows = []
    for item in read_datalist(arguments.manifest, section=arguments.split):
        film = read_radiograph(item["image"])
        masks = {name: read_mask(item[column]) for name, column in columns.items() if item.get(column)}
        rows += [{"image": Path(item["image"]).name} | row for row in doubts_of_film(model, film.array, masks)]
    if not rows:
        raise ValueError(f"{arguments.manifest}: no film with a mask of {', '.join(columns.values())}")
    if arguments.output:
        with arguments.output.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    print(format_table(rows, arguments.limit))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a segmenter: its file, or a bundle's folder or name")
    parser.add_argument("--manifest", type=Path, required=True, help="of films with manual masks")
    parser.add_argument("--split", default="all", help="its films of this split alone")
    parser.add_argument("--masks", nargs="+", required=True, help="STRUCTURE=COLUMN, a column of manual masks each")
    parser.add_argument("--limit", type=float, default=0.9, help="Dice below which a mask is wrong (default: 0.9)")
    parser.add_argument("--output", type=Path, help="a CSV of all films")
    arguments = parser.parse_args(argv)
    return ended(lambda: _measure(arguments))


if __name__ == "__main__":
    sys.exit(main())
