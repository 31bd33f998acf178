"""Trains segmentation on rendered films, tests it on real ones, with and without pretraining; resumes where it stopped.

Example:
    cxw-monai render --output drr --patients 140 --views PA AP --seed 101 --bits 16 --deform 20
    python -m benchmarks.sim_to_real --rendered drr/manifest.csv --real films/manifest.csv --output sim_to_real \\
        --encoder mae=runs/mae/model.pt --encoder world_model=runs/world_model/model.pt
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.command import ended
from benchmarks.sim_to_real.experiment import few_shot_runs, from_rendered_runs, run_all, summarise
from cxw_monai.cli import name_and_value
from cxw_monai.weights.bundles import find_bundle


def _setting(text: str) -> tuple[str, int | float | str]:
    """A setting, its value a number where it is one."""
    name, value = name_and_value(text)
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            continue
    return name, value


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rendered", type=Path, help="manifest of rendered films; without it, few-shot runs only")
    parser.add_argument("--real", type=Path, required=True, help="manifest of real films with outlines")
    parser.add_argument("--output", type=Path, required=True, help="folder to make or continue")
    parser.add_argument(
        "--encoder",
        type=name_and_value,
        action="append",
        default=[],
        metavar="ARM=CKPT",
        help="checkpoint of a pretraining; repeatable",
    )
    parser.add_argument("--appearance", nargs="*", default=["random"], help="arms to run with domain perturbations too")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each arm on rendered films (default 3)")
    parser.add_argument("--shots", type=int, nargs="*", default=[4, 8, 16], help="real training films (default 4 8 16)")
    parser.add_argument("--splits", type=int, default=5, help="splits of the few-shot runs (default 5)")
    parser.add_argument("--steps", type=int, default=150, help="steps of a few-shot run (default 150)")
    parser.add_argument(
        "--set", type=_setting, action="append", default=[], metavar="NAME=VALUE", help="setting for all runs"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    a = parse_arguments(argv)
    return ended(lambda: _work(a))


def _work(a: argparse.Namespace) -> None:
    encoders: dict[str, str | None] = {"random": None, **dict(a.encoder)}
    runs = few_shot_runs(a.real, encoders, a.output, a.shots, a.splits, a.steps)
    if a.rendered:
        runs = from_rendered_runs(a.rendered, a.real, encoders, a.output, a.seeds, a.appearance) + runs
    results = run_all(runs, find_bundle("chexworld_segmentation").resolve(), a.output, dict(a.set))
    table = summarise(runs, results, a.output)
    (a.output / "table.md").write_text(table, encoding="utf-8")
    print(table)


if __name__ == "__main__":
    sys.exit(main())
