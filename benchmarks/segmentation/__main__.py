"""The shipped segmenter: its training films, and its scores on manual masks.

Example:
    python -m benchmarks.segmentation films --output films --source wingspan=wingspan/manifest.csv \\
        --source kermany=pool/manifest.csv --source rendered=drr/manifest.csv
    python -m benchmarks.segmentation score --model OUT/model.pt --output scores \\
        --source wingspan=wingspan/manifest.csv --split validation
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.command import ended
from cxw_monai.cli import name_and_value
from cxw_monai.inference.api import SegmentationModel, load

from .films import write_films
from .score import read_scores, score_films, summary


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    films = commands.add_parser("films", help="write one manifest of the training films of several sources")
    score = commands.add_parser("score", help="score a segmenter on manual masks; sources that have a table are kept")
    for command in (films, score):
        command.add_argument("--output", type=Path, required=True, help="folder to make or continue")
        command.add_argument(
            "--source",
            type=name_and_value,
            action="append",
            required=True,
            metavar="NAME=MANIFEST",
            help="manifest of a source, such as wingspan; repeatable",
        )
    score.add_argument("--model", required=True, help="file, bundle or zip of a segmenter")
    score.add_argument("--split", help="only the films of this split")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    a = parse_arguments(argv)
    return ended(lambda: _work(a))


def _work(a: argparse.Namespace) -> None:
    sources = {name: Path(manifest) for name, manifest in a.source}
    if a.command == "films":
        print(write_films(sources, a.output))
        return
    model = load(a.model)
    if not isinstance(model, SegmentationModel):
        raise ValueError(f"{a.model} is no segmenter.")
    for source, manifest in sources.items():
        table = a.output / f"{source}.csv"
        rows = read_scores(table) if table.exists() else score_films(model, source, manifest, table, a.split)
        print(f"{source}: {len(rows)} films")
        for name, (mean, low, high, worst) in summary(rows).items():
            print(f"  {name}: {mean:.4f} [{low:.4f}, {high:.4f}], worst {worst:.4f}")


if __name__ == "__main__":
    sys.exit(main())
