"""``python -m tests.label.selftest``, in the environment that ``scripts/monailabel.sh`` makes."""

from __future__ import annotations

import argparse
import sys

from cxw_monai.io.files.printable import printable
from cxw_monai.weights.bundles import BundleError, find_bundle

from .journey import run_selftest


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="monailabel.sh --selftest", description="Try all that the label server does.")
    parser.add_argument("--selftest", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--bundle", default="chexworld_segmentation", help="name or folder of the bundle to serve")
    try:
        return run_selftest(find_bundle(parser.parse_args(argv).bundle))
    except BundleError as error:
        print(f"error: {printable(error)}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
