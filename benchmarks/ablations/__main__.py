"""Which parts of the world model matter? The rows of the paper's Table 3 and mended against official details.

Example:
    python -m benchmarks.ablations --nih nih_cxr14_subset/manifest.csv --output ablations --seeds 3
    python -m benchmarks.ablations --nih nih_cxr14_subset/manifest.csv --output ablations --rows row1_local row4_all \\
        --set epochs=20

Every row is a pretraining of a few epochs on 499 films, the same for all, frozen probes on 251 others, and the tests of
a world model on some of these. Rows go to OUTPUT/ablations.csv and, as means with their spread over seeds, to
OUTPUT/ablations.md. A row that is there is left as it is; a training that was stopped is resumed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from benchmarks.ablations.ablation import ROWS, Ablations
from benchmarks.ablations.table import markdown
from benchmarks.command import ended
from cxw_monai.cli import name_and_value
from cxw_monai.io.files.atomic import atomic_file


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nih", type=Path, required=True, help="manifest with the NIH films of the split")
    parser.add_argument("--output", type=Path, required=True, help="folder to make or continue")
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="rows to run, in order (default: all)")
    parser.add_argument("--rows-file", type=Path, default=ROWS, help="YAML of the rows")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of a row (default 3)")
    parser.add_argument("--world-films", type=int, default=24, help="films of the tests of a world model (default 24)")
    parser.add_argument(
        "--set",
        type=name_and_value,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any setting of the pretraining, for all rows; repeatable",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    a = parse_arguments(argv)
    overrides = {name: yaml.safe_load(value) for name, value in a.set}
    return ended(lambda: _work(a, Ablations(a.nih, a.output, a.rows_file, overrides, a.world_films)))


def _work(a: argparse.Namespace, ablations: Ablations) -> None:
    ablations.run(a.rows or list(ablations.rows), a.seeds)
    table = markdown(ablations.finished())
    with atomic_file(a.output / "ablations.md", "w", encoding="utf-8") as stream:
        stream.write(table + "\n")
    print(table)


if __name__ == "__main__":
    sys.exit(main())
