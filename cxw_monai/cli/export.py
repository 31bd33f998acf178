"""Writes a model by itself: a film of any size in, probabilities (or an embedding) out.

model.ts needs only torch, model.onnx only onnxruntime. Both are also in what `cxw-monai package` makes.

Examples:
    cxw-monai export chexworld_segmentation --output exported
    cxw-monai export RUN/model.pt --formats ts --output exported
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("model", help="a bundle's name, folder or zip, or a file of weights")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the files")
    parser.add_argument("--formats", nargs="+", choices=("ts", "onnx"), default=["ts", "onnx"], help="default: both")


def run(a: argparse.Namespace) -> int:
    """Writes the files and prints their paths."""
    from cxw_monai.inference.api import load
    from cxw_monai.packaging.contents import read_metadata
    from cxw_monai.packaging.export import export_onnx, export_torchscript
    from cxw_monai.weights.bundles import open_bundle

    with open_bundle(a.model) as place:
        model = load(place).film_model()
        metadata = read_metadata(place) if place.is_dir() and (place / "configs").is_dir() else None
    a.output.mkdir(parents=True, exist_ok=True)
    for name in dict.fromkeys(a.formats):
        write = {"ts": export_torchscript, "onnx": export_onnx}[name]
        path = a.output / f"model.{name}"
        write(model, path, metadata)
        print(path)
    return 0
