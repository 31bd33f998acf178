"""Holds the networks against golden tensors: `python -m benchmarks.parity --golden FILE.npz [--dtype float32]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import torch

from benchmarks.parity.golden import check_parity
from cxw_monai.io.files.printable import printable


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status: 1 where something is out of tolerance, 2 for wrong usage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--golden", required=True, help="npz with sd.*, in.*, out.*; its json lies beside it")
    parser.add_argument("--dtype", choices=("float64", "float32"), default="float64")
    a = parser.parse_args(argv)
    try:
        lines = check_parity(a.golden, getattr(torch, a.dtype))
    except (OSError, ValueError) as error:
        print(f"error: {printable(error)}", file=sys.stderr)
        return 2
    print("\n".join(map(str, lines)))
    failed = sum(not line.passed for line in lines)
    print(f"{len(lines) - failed} of {len(lines)} within tolerance ({a.dtype})")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
