"""Scores where a classifier looks against boxes that it never saw, beside chance and the centre of a lung.

Example:
    python -m benchmarks.localisation --model RUN/model.pt --datalist films.csv --section test --maps attention
    python -m benchmarks.localisation --model RUN/model.pt --datalist nih/manifest.csv --films cls/films/nih_test.csv
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import cxw_monai
from benchmarks.command import ended
from cxw_monai.data.manifest import ALL_SECTIONS
from cxw_monai.inference.api import ClassificationModel
from cxw_monai.metrics.classification import Score

from .experiment import MAPS, Row, boxed_films, localise, map_of


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="file of a classifier")
    parser.add_argument("--datalist", type=Path, required=True, help="manifest with bbox_xywh")
    parser.add_argument("--section", default=ALL_SECTIONS, help="split of the manifest (default all)")
    parser.add_argument("--films", type=Path, help="a CSV with a column image: only films of these names")
    parser.add_argument("--maps", nargs="+", choices=tuple(MAPS), default=list(MAPS), help="default: all")
    parser.add_argument("--share", type=float, default=0.5, help="of a map's maximum, for its boxes (default 0.5)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    a = parse_arguments(argv)
    return ended(lambda: _work(a))


def _work(a: argparse.Namespace) -> None:
    model = cxw_monai.load(a.model)
    if not isinstance(model, ClassificationModel):
        raise ValueError(f"{a.model}: not a classifier; give model.pt of a classification run")
    stems = None
    if a.films:
        with a.films.open(newline="", encoding="utf-8") as stream:
            stems = {Path(row["image"]).stem for row in csv.DictReader(stream)}
    films = boxed_films(a.datalist, a.section, list(model.classes), stems)
    print(table(localise(films, {name: map_of(model, name) for name in a.maps}, a.share)))


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    head = ("finding", "films", "from", "point in a box", "at random", "difference", "IoU", "at random", "difference")
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for finding, source, s in rows:
        cells = [s.hits, s.chance_hits, s.hit_difference, s.overlap, s.chance_overlap, s.overlap_difference]
        numbers = [f"{c.value:.2f}" if at in (1, 4) else _shown(c) for at, c in enumerate(cells)]
        lines.append(f"| {finding} | {s.films} | {source} | " + " | ".join(numbers) + " |")
    return "\n".join(lines)


def _shown(score: Score) -> str:
    interval = "" if score.low is None else f" [{score.low:.2f}, {score.high:.2f}]"
    return f"{score.value:.2f}{interval}"


if __name__ == "__main__":
    sys.exit(main())
