"""Locates landmarks with the landmark bundle: a table of points on the films' own pixels, pictures and measurements.

The input is a film (DICOM, PNG, JPEG, TIFF, NIfTI, NRRD), a folder with everything below it, or a manifest.

Examples:
    cxw-monai locate film.dcm --ckpt RUN/model.pt --output points
    cxw-monai locate hands/ --ckpt RUN/model.pt --output points --set "formats=['csv','json','overlay']"

Exit status: 0 done, 1 some films could not be done (failures.csv), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from .bundle_command import add_inference_arguments, run_inference


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("input", type=Path, help="a film, a folder of films, or a manifest")
    add_inference_arguments(parser, "chexworld_landmarks")


def run(a: argparse.Namespace) -> int:
    """Runs the bundle's inference."""
    return run_inference(a, ["configs/inference.json"], {"input": a.input, "output": a.output})
