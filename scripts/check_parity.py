"""Hold the networks against golden tensors: `python scripts/check_parity.py --golden FILE.npz [--dtype float32]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # benchmarks/ stands beside scripts/, in no wheel

from benchmarks.parity.parity import check_parity
from cxw_monai.io.files.printable import printable


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--golden", required=True, help="npz with sd.*, in.*, out.*; its json lies beside it")
    parser.add_argument("--dtype", choices=("float64", "float32"), default="float64")
    arguments = parser.parse_args()
    try:
        lines = check_parity(arguments.golden, getattr(torch, arguments.dtype))
    except (OSError, ValueError) as error:
        print(f"error: {printable(error)}", file=sys.stderr)
        return 2
    print("\n".join(map(str, lines)))
    failed = sum(not line.passed for line in lines)
    print(f"{len(lines) - failed} of {len(lines)} within tolerance ({arguments.dtype})")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
