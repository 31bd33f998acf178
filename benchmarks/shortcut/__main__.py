"""Does a classifier cheat? Its AUROC on whole films, without the region that it should read, and on that alone.

Example:
    python -m benchmarks.shortcut --model RUN/model.pt --datalist films/manifest.csv --section test \\
        --masks mask_lung_field_left mask_lung_field_right --output shortcut
    python -m benchmarks.shortcut --model RUN/model.pt --datalist films/manifest.csv --section test \\
        --segmenter chexworld_segmentation --structures lung_field_left lung_field_right --output shortcut
    python -m benchmarks.shortcut --model my_package.models:classify --datalist films/manifest.csv ...

A classifier of another package is a function that takes a film, float [H, W] in [0, 1], bone bright, to a dictionary of
probabilities by label.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import cxw_monai
from benchmarks.command import ended

from .experiment import Classify, Region, listed_region, show, write_matrix
from .figure import draw
from .matrix import label_matrices


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="what cxw_monai.load takes, or a function as MODULE:NAME")
    parser.add_argument("--datalist", type=Path, required=True, help="manifest with label_* columns")
    parser.add_argument("--section", default="test", help="of the manifest (default test)")
    mapped = 'column of a label that is not label_<name>, or {column: value}: {"AP": {"view": "AP"}}'
    parser.add_argument("--label-map", type=json.loads, default={}, metavar="JSON", help=mapped)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--masks", nargs="+", metavar="COLUMN", help="the manifest's masks that make up the region")
    where.add_argument("--segmenter", metavar="MODEL", help="a segmenter that finds the region")
    parser.add_argument("--structures", nargs="+", default=["lung_field_left", "lung_field_right"], metavar="NAME",
                        help="of the segmenter (default: both lung fields)")  # fmt: skip
    parser.add_argument("--output", type=Path, required=True, help="folder for matrix.csv and shortcut.png")
    parser.add_argument("--limit", type=int, help="most films (default all)")
    parser.add_argument("--draws", type=int, default=1000, help="resamplings of the patients (default 1000)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    a = parse_arguments(argv)
    return ended(lambda: _work(a))


def _classifier(name: str) -> Classify:
    """A function of another package, or what the package's model says of any film, also of one without lungs."""
    module, _, function = name.partition(":")
    if function and not Path(name).exists():
        try:
            return getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"--model {name}: {error}; give MODULE:FUNCTION that Python finds from here.") from None
    model: Any = cxw_monai.load(name)
    return lambda film: model.classify(film, on_implausible="keep")


def _segmented(name: str, structures: Sequence[str]) -> Region:
    model: Any = cxw_monai.load(name)
    if unknown := [structure for structure in structures if structure not in model.structures]:
        raise ValueError(f"{name} has no {', '.join(unknown)}; it has {', '.join(model.structures)}.")

    def region(film: np.ndarray, item: Mapping[str, Any]) -> np.ndarray:
        masks = model.segment(film, on_implausible="keep")
        return np.any([masks[structure] for structure in structures], axis=0)

    return region


def _work(a: argparse.Namespace) -> None:
    region = listed_region(a.masks) if a.masks else _segmented(a.segmenter, a.structures)
    shown = show(a.datalist, a.section, _classifier(a.model), region, a.limit, a.label_map)
    matrices = label_matrices(shown.probability, shown.label, shown.names, shown.patients, a.draws)
    if not matrices:
        raise ValueError(f"{a.datalist}: no label that some of the {len(shown.patients)} films have and some haven't.")
    a.output.mkdir(parents=True, exist_ok=True)
    write_matrix(a.output / "matrix.csv", matrices)
    draw(matrices, shown.film, shown.region).savefig(a.output / "shortcut.png", dpi=110)
    for matrix in matrices:
        print(f"{matrix.label} ({matrix.films} films): {matrix.verdict}")


if __name__ == "__main__":
    sys.exit(main())
