"""Make a bundle into a versioned package, and verify it.

`python scripts/package_bundle.py NAME --output DIR [--ckpt RUN/encoder.pt] [--format zip|hf]`
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

# TorchScript writes sets in the order of their hashes: with a fixed seed the same input gives the same bytes.
if __name__ == "__main__" and os.environ.get("PYTHONHASHSEED") != "0":
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONHASHSEED": "0"})

from cxw_monai.io.files.printable import printable
from cxw_monai.packaging import hugging_face_folder, package_bundle
from cxw_monai.weights.bundles import find_bundle


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", metavar="NAME", help="a bundle of this project by name, or any bundle's folder")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the result")
    parser.add_argument("--ckpt", type=Path, help="weights of a run instead of the bundle's models/model.pt")
    parser.add_argument(
        "--format", choices=("zip", "hf"), default="zip", help="a zip, or a folder for the Hugging Face Hub"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    make = package_bundle if arguments.format == "zip" else hugging_face_folder
    try:
        made = make(find_bundle(arguments.name), arguments.output, arguments.ckpt)
    except (ValueError, OSError) as error:
        print(f"error: {printable(error)}", file=sys.stderr)
        return 2
    print(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
