"""Makes masks of unlabelled films where several segmenters agree, and a manifest to train the next one on.

Example:
    python scripts/pseudo_label.py --films nih/manifest.csv --model a/model.pt b/model.pt --output pseudo \\
        --labelled drr/manifest.csv --columns lung_left=lung_field_left lung_right=lung_field_right
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from cxw_monai.inference.pseudo_labels import make_pseudo_labels
from cxw_monai.io.files.printable import printable
from cxw_monai.weights.encoder import CheckpointError


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=Path, required=True, help="manifest of the unlabelled films")
    parser.add_argument("--model", type=Path, nargs="+", required=True, help="model.pt of segmentation runs")
    parser.add_argument("--output", type=Path, required=True, help="folder to make")
    parser.add_argument("--agreement", type=float, default=0.9, help="least Dice with the models' mean (default 0.9)")
    parser.add_argument("--labelled", type=Path, help="manifest with masks, to go into the new manifest too")
    parser.add_argument("--columns", nargs="*", default=[], metavar="STRUCTURE=MASK", help="its other mask names")
    parser.add_argument("--no-adapt", action="store_true", help="keep the models' own batch statistics")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    arguments = parser.parse_args(argv)
    for given in arguments.columns:
        if "=" not in given:
            parser.error(f"expected STRUCTURE=MASK, got {given!r}")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    a = parse_arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    columns = dict(given.split("=", 1) for given in a.columns)
    try:
        print(
            make_pseudo_labels(
                a.films,
                a.model,
                a.output,
                agreement=a.agreement,
                labelled=a.labelled,
                columns=columns,
                adapt=not a.no_adapt,
                device=a.device,
            )
        )
    except (CheckpointError, OSError, ValueError) as error:
        print(f"error: {printable(error)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
