"""One manifest, without labels, of all films that an encoder may learn from.

Example:
    python -m benchmarks.learning.films --data FOLDER --rendered drr/manifest.csv --output films.csv
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.command import ended
from benchmarks.learning.data import read_split
from cxw_monai.data.manifest import read_datalist
from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.files.csv_files import CsvWriter

__all__ = ["POOL", "learnt_films", "write_manifest"]

POOL = {"open_cxr_pool": None, "shenzhen": "shenzhen", "wingspan_heart_lungs": "wingspan"}
"""Folders with a `split` column, of which the training part is taken, and the source's name (None: a column has it)."""
NIH = "nih_cxr14_subset"
Film = tuple[str, str, str]


def learnt_films(data: Path, rendered: Path | None = None) -> Iterator[Film]:
    """Image, patient and source of the films to learn from, no film of a validation or test part among them.

    Args:
        data: folder with the folders of `POOL` and `nih_cxr14_subset`, each with its `manifest.csv`.
        rendered: manifest of rendered films, all of which are taken.
    """
    for folder, source in POOL.items():
        for row in read_datalist(data / folder / "manifest.csv", section="all"):
            if row["split"] == "training":
                yield row["image"], _patient(row), source or row["source"]
    split = read_split()
    for row in read_datalist(data / NIH / "manifest.csv", section="all"):
        if split.get(Path(row["image"]).stem) == "train":
            yield row["image"], _patient(row), "nih"
    for row in read_datalist(rendered, section="all") if rendered else []:
        yield row["image"], f"rendered_{_patient(row)}", "rendered"


def _patient(row: dict[str, Any]) -> str:
    return str(row.get("patient_id") or Path(row["image"]).stem)


def write_manifest(path: Path, films: Sequence[Film]) -> Path:
    """Write `image`, `patient_id`, `source`."""
    with atomic_file(path, "w", newline="", encoding="utf-8") as stream:
        CsvWriter(stream).writerows([("image", "patient_id", "source"), *films])
    return path


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets")
    parser.add_argument("--rendered", type=Path, help="manifest of rendered films")
    parser.add_argument("--output", type=Path, required=True, help="CSV to write")
    a = parser.parse_args(argv)

    def work() -> None:
        films = list(learnt_films(a.data, a.rendered))
        write_manifest(a.output, films)
        print(f"{len(films)} films: {dict(Counter(source for _, _, source in films))}")

    return ended(work)


if __name__ == "__main__":
    sys.exit(main())
