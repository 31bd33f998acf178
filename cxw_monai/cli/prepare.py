"""Prepares a public data set: from the folder it was unpacked to, to manifests with official or patient-wise splits.

Example: cxw-monai prepare nih /data/ChestXray-NIHCC prepared/nih
All sets: cxw-monai prepare --list      Options of one: cxw-monai prepare nih --help

OUT gets manifest.csv, datalist.json (for the bundles' --datalist), summary.json and the masks that had to be made; ROOT
is only read. Safe to run again after a kill or when more was downloaded. What each set becomes: docs/datasets.md.
Damaged films and masks are left out: left_out.csv lists them, the last line counts them, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cxw_monai.datasets.registry import Option

_NOT_SETTINGS = ("list", "name", "verb", "version", "print_completion")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments: one subcommand per data set, with its own options."""
    from cxw_monai.datasets import datasets

    parser.add_argument("--list", action="store_true", help="list the data sets and exit")
    commands = parser.add_subparsers(dest="name", metavar="NAME")
    for dataset in datasets().values():
        facts = ((fact, getattr(dataset, fact)) for fact in ("url", "terms", "split", "makes"))
        command = commands.add_parser(
            dataset.name,
            help=dataset.title,
            description="\n".join([dataset.title, "", *(f"{fact:<6} {text}" for fact, text in facts)]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        _add_common(command)
        for option in dataset.options:
            _add_option(command, option)


def _add_common(command: argparse.ArgumentParser) -> None:
    command.add_argument("root", metavar="ROOT", help="the folder as published; only read")
    command.add_argument("out", metavar="OUT", help="the folder to make; not in ROOT")
    command.add_argument("--seed", type=int, default=0, help="of splits made here (default 0)")
    command.add_argument(
        "--validation",
        type=float,
        default=0.1,
        help="share of the training patients held out where no validation split is published (default 0.1)",
    )
    command.add_argument(
        "--test",
        type=float,
        default=0.2,
        help="share of the patients held out where no test split is published (default 0.2)",
    )
    command.add_argument("--allow-missing", action="store_true", help="leave out images that aren't there")
    command.add_argument("--relative", action="store_true", help="list images by their path from OUT")
    command.add_argument("--workers", type=int, default=8, help="threads (default 8)")


def _add_option(command: argparse.ArgumentParser, option: Option) -> None:
    flag = f"--{option.name.replace('_', '-')}"
    if isinstance(option.default, bool):
        command.add_argument(flag, action="store_true", help=option.help)
        return
    text = f"{option.help} (default {option.default})" if option.default != "" else option.help
    kind = type(option.default) if option.default is not None else str
    command.add_argument(flag, type=kind, default=option.default, choices=option.choices or None, help=text)


def run(a: argparse.Namespace) -> int:
    """Prepares the data set; 1 where damaged files were left out."""
    from cxw_monai.datasets import datasets, format_counts, prepare_dataset

    if a.list:
        known = datasets()
        width = max(map(len, known))
        print("\n".join(f"{name:<{width}}  {each.title}: {each.makes}" for name, each in known.items()))
        return 0
    if a.name is None:
        raise ValueError("which data set? give its name, ROOT and OUT; --list shows the names")
    settings = {name: value for name, value in vars(a).items() if name not in _NOT_SETTINGS}
    summary = prepare_dataset(a.name, progress=sys.stderr.isatty(), **settings)
    print(format_counts(summary))
    return 1 if any(summary["left_out"].values()) else 0
