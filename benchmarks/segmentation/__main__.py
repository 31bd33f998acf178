"""The shipped segmenter: its training films, and its scores on manual masks.

Example:
    python -m benchmarks.segmentation films --output films --source wingspan=wingspan/manifest.csv \\
        --source kermany=pool/manifest.csv --source rendered=drr/manifest.csv
    python -m benchmarks.segmentation score --model OUT/model.pt --output scores \\
        --source wingspan=wingspan/manifest.csv --split validation --worst 16
    python -m benchmarks.segmentation calibrate --model OUT/model.pt --films films/manifest.csv --output calibrated
    python -m benchmarks.segmentation ship --model calibrated/model.pt --output shipped
    python -m benchmarks.segmentation compare --films films/manifest.csv --output compare --encoder new=NEW/model.pt \\
        --source wingspan=wingspan/manifest.csv --source shenzhen=shenzhen/manifest.csv --share 0.05 1 --seeds 3
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.command import ended
from cxw_monai.cli import name_and_value
from cxw_monai.inference.api import SegmentationModel, load
from cxw_monai.weights.segmenter import read_segmenter, save_segmenter

from .calibrate import calibration_table, scale_logits, validation_films, write_table
from .compare import RANDOM, UNET, Comparison
from .films import STRUCTURES, write_films
from .pictures import draw_films, worst_first
from .score import OUTLINES, read_scores, score_films, summary

SHOWN = [name for name in STRUCTURES if name not in ("lung_left", "lung_right", "mediastinum")]


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    films = commands.add_parser("films", help="write one manifest of the training films of several sources")
    score = commands.add_parser("score", help="score a segmenter on manual masks; sources that have a table are kept")
    ship = commands.add_parser("ship", help="write model.pt with weights of 16 bits, half as large")
    calibrate = commands.add_parser("calibrate", help="fit temperatures on validation films, write model.pt with them")
    compare = commands.add_parser("compare", help="train from several starts on parts of the films; rows are kept")
    for command in (films, score, calibrate, ship, compare):
        command.add_argument("--output", type=Path, required=True, help="folder to make or continue")
    for command in (score, calibrate, ship):
        command.add_argument("--model", required=True, help="file, bundle or zip of a segmenter")
    for command in (films, score, compare):
        command.add_argument(
            "--source",
            type=name_and_value,
            action="append",
            required=True,
            metavar="NAME=MANIFEST",
            help="manifest of a source, such as wingspan; repeatable",
        )
    score.add_argument("--split", help="only the films of this split")
    score.add_argument("--worst", type=int, default=0, help="draw so many films, the worst first (default none)")
    for command in (calibrate, compare):
        command.add_argument("--films", type=Path, required=True, help="manifest of the command films")
    calibrate.add_argument("--per-source", type=int, default=100, help="validation films of a source (default 100)")
    compare.add_argument(
        "--encoder", type=name_and_value, action="append", default=[], metavar="ARM=FILE", help="a start; repeatable"
    )
    compare.add_argument("--share", type=float, nargs="+", default=[0.01, 0.05, 0.2, 1.0], help="shares of the films")
    compare.add_argument("--seeds", type=int, default=3, help="runs of each (default 3)")
    compare.add_argument("--arm", nargs="+", help="only these arms: unet, random, those of --encoder (default all)")
    compare.add_argument("--steps", type=int, default=600, help="steps of a run (default 600)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    a = parse_arguments(argv)
    return ended(lambda: _work(a))


def _work(a: argparse.Namespace) -> None:
    sources = {name: Path(manifest) for name, manifest in getattr(a, "source", [])}
    if a.command == "films":
        print(write_films(sources, a.output))
        return
    if a.command == "compare":
        comparison = Comparison(a.films, next(iter(sources)), dict(a.encoder), sources, a.output, a.steps)
        for seed in range(a.seeds):
            for share in a.share:
                for arm in a.arm or (UNET, RANDOM, *comparison.encoders):
                    comparison.run(arm, share, seed)
        return
    if a.command == "ship":
        settings, network = read_segmenter(a.model)
        for parameter in network.parameters():
            parameter.data = parameter.data.half()
        save_segmenter(network, settings, a.output / "model.pt")
        return
    model = load(a.model)
    if not isinstance(model, SegmentationModel):
        raise ValueError(f"{a.model} is no segmenter.")
    if a.command == "calibrate":
        rows = calibration_table(validation_films(model, a.films, a.per_source))
        settings, network = read_segmenter(a.model)
        scale_logits(network, settings.structures, {row["structure"]: row["temperature"] for row in rows})
        save_segmenter(network, settings, a.output / "model.pt")
        write_table(rows, a.output / "calibration.csv")
        for row in rows:
            print(", ".join(f"{k} {v:.4f}" if isinstance(v, float) else str(v) for k, v in row.items()))
        return
    for source, manifest in sources.items():
        table = a.output / f"{source}.csv"
        rows = read_scores(table) if table.exists() else score_films(model, source, manifest, table, a.split)
        print(f"{source}: {len(rows)} films")
        for name, (mean, low, high, worst) in summary(rows).items():
            print(f"  {name}: {mean:.4f} [{low:.4f}, {high:.4f}], worst {worst:.4f}")
        if a.worst:
            ids, picture = worst_first(rows)[: a.worst], a.output / f"{source}_worst.png"
            drawn = [name for name in STRUCTURES if not name.startswith("lung_field")] if source == "kermany" else SHOWN
            draw_films(model, manifest, ids, OUTLINES[source], drawn, picture)


if __name__ == "__main__":
    sys.exit(main())
