"""Segments films with the segmentation bundle: masks, DICOM SEG, overlays and measurements on the films' own pixels.

The input is a film (DICOM, PNG, JPEG, TIFF, NIfTI, NRRD), a folder with everything below it, or a manifest.

Examples:
    cxw-monai segment film.dcm --output masks
    cxw-monai segment films/ --ckpt RUN/model.pt --output masks --set threshold=0.4 --set "formats=['png','csv']"

Exit status: 0 done, 1 some films could not be segmented (failures.csv), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from .bundle_command import add_inference_arguments, run_inference


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("input", type=Path, help="a film, a folder of films, or a manifest")
    add_inference_arguments(parser, "chexworld_segmentation")


def run(a: argparse.Namespace) -> int:
    """Runs the bundle's inference."""
    return run_inference(a, ["configs/inference.json"], {"input": a.input, "output": a.output})
