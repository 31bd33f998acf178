"""Makes a bundle into a versioned package, and verifies it. The bundle's configs are executed.

Examples:
    cxw-monai package chexworld_segmentation --output dist
    cxw-monai package chexworld_pretraining --ckpt RUN/encoder.pt --format hf --output dist
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("name", metavar="NAME", help="a bundle of this project by name, or any bundle's folder")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the result")
    parser.add_argument("--ckpt", type=Path, help="weights of a run instead of the bundle's models/model.pt")
    parser.add_argument(
        "--format", choices=("zip", "hf"), default="zip", help="a zip, or a folder for the Hugging Face Hub"
    )


def run(a: argparse.Namespace) -> int:
    """Makes the package and prints its path."""
    if os.environ.get("PYTHONHASHSEED") != "0":
        # TorchScript writes sets in the order of their hashes: with a fixed seed the same input gives the same bytes.
        command = [sys.executable, "-m", "cxw_monai", "package", a.name, "--output", a.output, "--format", a.format]
        command += ["--ckpt", a.ckpt] if a.ckpt else []
        return subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": "0"}).returncode
    from cxw_monai.packaging import hugging_face_folder, package_bundle
    from cxw_monai.weights.bundles import find_bundle

    make = package_bundle if a.format == "zip" else hugging_face_folder
    print(make(find_bundle(a.name), a.output, a.ckpt))
    return 0
