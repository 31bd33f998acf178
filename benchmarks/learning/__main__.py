"""Is an encoder worth having? Trains arms at equal processor time, probes them frozen, a CSV row each.

Example:
    python -m benchmarks.learning --nih nih_cxr14_subset/manifest.csv --rendered drr/manifest.csv \\
        --real covid_ieee8023_cc/manifest.csv --output learning --minutes 6 --runs random pixels16 hog mae wm_anchor

Runs are `random`, `pixels16`, `pixels32`, `hog`, `supervised`, any arm of --arms, or NAME=FILE for an encoder file. A
run that has its row is left as it is, a training that was stopped is resumed. `--compare A B` prints the paired
difference of the frozen probes of two runs, `--all-films A B ...` probes runs in five patient-disjoint folds of
training and test films together: narrower intervals, at the price that the trainings saw two thirds of the films,
without their labels.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.command import ended
from benchmarks.learning.benchmark import read_rows
from benchmarks.learning.experiment import BUNDLE, Experiment
from benchmarks.learning.table import draw_curves, draw_rows, markdown


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nih", type=Path, required=True, help="manifest with the NIH films of the split")
    parser.add_argument("--rendered", type=Path, required=True, help="manifest of rendered films with outlines")
    parser.add_argument("--real", type=Path, required=True, help="manifest of real films with outlines, never learnt")
    parser.add_argument("--output", type=Path, required=True, help="folder to make or continue")
    parser.add_argument("--table", type=Path, help="CSV of the rows (default: OUTPUT/learning.csv)")
    parser.add_argument("--arms", type=Path, default=BUNDLE / "configs" / "learning_arms.yaml")
    parser.add_argument("--runs", nargs="+", default=[], help="what to run, in order")
    parser.add_argument("--minutes", type=float, default=6.0, help="processor minutes of a training (default 6)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compare", nargs=2, metavar=("A", "B"), help="two run folders' names in OUTPUT/scores")
    parser.add_argument("--all-films", nargs="+", default=[], metavar="RUN", help="runs to probe in folds of all films")
    parser.add_argument("--show", type=Path, metavar="PNG", help="print all rows as Markdown and draw them")
    parser.add_argument(
        "--curves", type=Path, metavar="PNG", help="draw the trainings of --runs instead of making them"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    a = parse_arguments(argv)
    table = a.table or a.output / "learning.csv"
    experiment = Experiment(a.nih, a.rendered, a.real, a.output, table, a.arms, a.minutes, a.seed)
    return ended(lambda: _work(a, experiment))


def _work(a: argparse.Namespace, experiment: Experiment) -> None:
    for name in (*a.runs, *a.all_films):
        experiment.settings_of(name)  # a wrong name is refused before anything is trained
    if a.curves:
        draw_curves({name: experiment.folder_of(name) / "metrics.csv" for name in a.runs}, a.curves)
        return
    for name in a.runs:
        experiment.run(name)
    if a.compare:
        experiment.compare(*a.compare)
    if a.all_films:
        experiment.probe_all_films(a.all_films)
    if a.show:
        rows = read_rows(experiment.table)
        print(markdown(rows))
        draw_rows(rows, a.show)


if __name__ == "__main__":
    sys.exit(main())
