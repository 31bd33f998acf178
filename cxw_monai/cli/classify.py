"""Classifies films with the classification bundle: calibrated probabilities, and decisions at the operating points.

The input is a film (DICOM, PNG, JPEG, TIFF, NIfTI, NRRD), a folder with everything below it, or a manifest. Shipped
weights are named with --ckpt: model (pneumonia of children; the default), shenzhen_tuberculosis, view_position.

Examples:
    cxw-monai classify film.dcm --ckpt shenzhen_tuberculosis --output found
    cxw-monai classify films/ --ckpt RUN/model.pt --output found --set "formats=['csv','json','heatmap']"

Exit status: 0 done, 1 some films could not be classified (failures.csv), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from .bundle_command import add_inference_arguments, run_inference


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("input", type=Path, help="a film, a folder of films, or a manifest")
    add_inference_arguments(parser, "chexworld_classification")


def run(a: argparse.Namespace) -> int:
    """Runs the bundle's inference."""
    return run_inference(a, ["configs/inference.json"], {"input": a.input, "output": a.output})
