"""The classification bundle's real runs: how they are trained, chosen, tested and shipped. All of it resumes.

Example:
    python -m benchmarks.classification films --data DATA --output cls
    python -m benchmarks.classification run --output cls --start shipped=bundles/chexworld_pretraining \\
        --start random=none --task paediatric --how finetuned --fraction 0.1 1 --seeds 0 1 2
    python -m benchmarks.classification probe --output cls --start shipped=bundles/chexworld_pretraining \\
        --start hog=hog --task nih --fraction 0.1 1 --seeds 0 1 2
    python -m benchmarks.classification test --output cls
    python -m benchmarks.classification table --output cls
    python -m benchmarks.classification ship --model cls/runs/RUN/average/model.pt --output models/model.pt
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.command import ended
from cxw_monai.cli import name_and_value

from .films import TASKS, write_tasks
from .probes import Films, probe
from .runs import Run, ship, test, train
from .table import probe_table, run_table


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    films = commands.add_parser("films", help="write the manifests of all tasks")
    films.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    run = commands.add_parser("run", help="train with the bundle, a run a start, share and seed")
    run.add_argument("--how", choices=("frozen", "finetuned"), default="finetuned")
    read = commands.add_parser("probe", help="logistic regression and neighbours on frozen starts; tests too")
    for command in (run, read):
        command.add_argument("--start", type=name_and_value, action="append", required=True, metavar="ARM=FILE",
                             help="file or bundle of an encoder, or none; repeatable")  # fmt: skip
        command.add_argument("--task", nargs="+", choices=TASKS, required=True)
        command.add_argument("--fraction", type=float, nargs="+", default=[1.0], help="shares of the training patients")
        command.add_argument("--seeds", type=int, nargs="+", default=[0])
    tested = commands.add_parser("test", help="score all runs on their test films, each once")
    shown = commands.add_parser("table", help="print the tables as Markdown")
    shipped = commands.add_parser("ship", help="write weights of 16 bits, half as large")
    shipped.add_argument("--model", type=Path, required=True, help="file of a classifier")
    for command in (films, run, read, tested, shown, shipped):
        command.add_argument("--output", type=Path, required=True, help="folder to make or continue; of ship, the file")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    a = parse_arguments(argv)
    return ended(lambda: _work(a))


def _work(a: argparse.Namespace) -> None:
    films, runs, probes = (a.output / name for name in ("films", "runs", "probes.csv"))
    if a.command == "films":
        for name, count in write_tasks(a.data, films).items():
            print(f"{name}: {count} films")
    elif a.command == "run":
        for task in a.task:
            for seed in a.seeds:
                for fraction in a.fraction:
                    for arm, start in a.start:
                        train(Run(task, arm, a.how, fraction, seed), start, films, runs)
    elif a.command == "probe":
        for task in a.task:
            for arm, start in a.start:
                probe(Films(task, films), arm, start, probes, a.fraction, a.seeds)
    elif a.command == "test":
        test(films, runs)
    elif a.command == "table":
        print(run_table(runs))
        print(probe_table(probes))
    else:
        ship(a.model, a.output)


if __name__ == "__main__":
    sys.exit(main())
