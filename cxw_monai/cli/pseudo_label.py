"""Makes masks of unlabelled films where several segmenters agree, and a manifest to train the next one on.

Example:
    cxw-monai pseudo-label --films nih/manifest.csv --model a/model.pt b/model.pt --output pseudo \\
        --labelled drr/manifest.csv --columns lung_field_left=left_lung lung_field_right=right_lung
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from . import name_and_value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("--films", type=Path, required=True, help="manifest of the unlabelled films")
    parser.add_argument("--model", type=Path, nargs="+", required=True, help="model.pt of segmentation runs")
    parser.add_argument("--output", type=Path, required=True, help="folder to make")
    parser.add_argument("--agreement", type=float, default=0.9, help="least Dice with the models' mean (default 0.9)")
    parser.add_argument("--labelled", type=Path, help="manifest with masks, to go into the new manifest too")
    parser.add_argument(
        "--columns", type=name_and_value, nargs="*", default=[], metavar="STRUCTURE=MASK", help="its other mask names"
    )
    parser.add_argument("--no-adapt", action="store_true", help="keep the models' own batch statistics")
    parser.add_argument(
        "--augmented", action="store_true", help="models must agree on the film mirrored, nearer and further, too"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")


def run(a: argparse.Namespace) -> int:
    """Makes the masks and prints the new manifest's path."""
    from cxw_monai.inference.pseudo_labels import make_pseudo_labels

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    made = make_pseudo_labels(
        a.films,
        a.model,
        a.output,
        agreement=a.agreement,
        labelled=a.labelled,
        columns=dict(a.columns),
        adapt=not a.no_adapt,
        augmented=a.augmented,
        device=a.device,
    )
    print(made)
    return 0
