"""Embeds films with the pretraining bundle: embeddings.npz and embeddings.csv, one row per film.

The input is a folder with everything below it, or a manifest (CSV or datalist JSON).

Examples:
    cxw-monai embed films/ --output embeddings
    cxw-monai embed films.csv --ckpt RUN/encoder.pt --preset vit_base_paper --output embeddings --set embedding=patches

Exit status: 0 done, 1 an error, 2 wrong usage. Films that can't be read are listed in skipped_inference.csv.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from .bundle_command import add_inference_arguments, run_inference


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("input", type=Path, help="a folder of films, or a manifest")
    parser.add_argument("--preset", help="preset of the run that made the encoder, where it isn't of the shipped size")
    add_inference_arguments(parser, "chexworld_pretraining")


def run(a: argparse.Namespace) -> int:
    """Runs the bundle's inference."""
    configs = ["configs/inference.json", *([f"configs/presets/{a.preset}.yaml"] if a.preset else [])]
    source = "dataset_dir" if a.input.is_dir() else "datalist"
    return run_inference(a, configs, {source: a.input, "output_dir": a.output})
