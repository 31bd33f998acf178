"""Trains segmentation on rendered films, tests it on real ones, with and without pretraining; goes on where it stopped.

Example:
    python scripts/make_drr.py --output drr --patients 140 --views PA AP --seed 101 --bits 16 --deform 20
    python scripts/sim_to_real.py --rendered drr/manifest.csv --real films/manifest.csv --output sim_to_real \\
        --encoder mae=runs/mae/model.pt --encoder world_model=runs/world_model/model.pt
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # benchmarks/ stands beside scripts/, in no wheel

from benchmarks.sim_to_real.experiment import few_shot_runs, from_rendered_runs, run_all, summarise
from cxw_monai.io.files.printable import printable
from cxw_monai.training.errors import plain_message, root_cause
from cxw_monai.weights.bundles import find_bundle

BUNDLE = find_bundle("chexworld_segmentation").resolve()


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rendered", type=Path, help="manifest of rendered films; without it, few-shot runs only")
    parser.add_argument("--real", type=Path, required=True, help="manifest of real films with outlines")
    parser.add_argument("--output", type=Path, required=True, help="folder to make or continue")
    parser.add_argument(
        "--encoder", action="append", default=[], metavar="ARM=CKPT", help="checkpoint of a pretraining; repeatable"
    )
    parser.add_argument("--appearance", nargs="*", default=["random"], help="arms to run with domain perturbations too")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each arm on rendered films (default 3)")
    parser.add_argument("--shots", type=int, nargs="*", default=[4, 8, 16], help="real training films (default 4 8 16)")
    parser.add_argument("--splits", type=int, default=5, help="splits of the few-shot runs (default 5)")
    parser.add_argument("--steps", type=int, default=150, help="steps of a few-shot run (default 150)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="setting for all runs")
    arguments = parser.parse_args(argv)
    for given in (*arguments.encoder, *arguments.set):
        if "=" not in given:
            parser.error(f"expected NAME=VALUE, got {given!r}")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    a = parse_arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    encoders: dict[str, str | None] = {"random": None}
    encoders.update(pair.split("=", 1) for pair in a.encoder)
    settings = {name: _value(text) for name, text in (pair.split("=", 1) for pair in a.set)}
    try:
        runs = []
        if a.rendered:
            runs += from_rendered_runs(a.rendered, a.real, encoders, a.output, a.seeds, a.appearance)
        runs += few_shot_runs(a.real, encoders, a.output, a.shots, a.splits, a.steps)
        results = run_all(runs, BUNDLE, a.output, settings)
    except (OSError, ValueError, RuntimeError) as error:  # MONAI's RuntimeError around what a bundle raises
        message = plain_message(root_cause(error))
        if message is None:
            raise
        print(f"error: {printable(message)}", file=sys.stderr)
        return 2
    table = summarise(runs, results, a.output)
    (a.output / "table.md").write_text(table, encoding="utf-8")
    print(table)
    return 0


def _value(text: str) -> int | float | str:
    """A number where it is one."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


if __name__ == "__main__":
    sys.exit(main())
