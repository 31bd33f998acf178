"""Compares two classifiers on the same films: difference of AUROC, DeLong's test, and paired intervals by patient.

The files are films.csv of a training's test/ or of an evaluation's evaluation/.

Examples:
    cxw-monai compare A/test/films.csv B/test/films.csv
    cxw-monai compare A/test/films.csv B/test/films.csv --output comparison.json
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("first", type=Path, help="films.csv of one classifier")
    parser.add_argument("second", type=Path, help="films.csv of the other, with the same films and labels")
    parser.add_argument("--output", type=Path, help="JSON to write too")
    parser.add_argument("--bootstrap", type=int, default=1000, help="resamplings of the patients (default 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the resamplings (default 0)")


def run(a: argparse.Namespace) -> int:
    """Prints the table and writes the JSON."""
    from cxw_monai.metrics.comparison import compare_files, format_comparisons

    found = compare_files(a.first, a.second, a.bootstrap, a.seed)
    print(format_comparisons(found))
    if a.output:
        a.output.parent.mkdir(parents=True, exist_ok=True)
        a.output.write_text(json.dumps([asdict(one) for one in found], indent=2) + "\n")
    return 0
