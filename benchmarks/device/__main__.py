"""Check a device: `python scripts/check_device.py --device cuda [--minutes 8] [--output DIR]`.

First whether it computes what the CPU does (networks, perturbations, crops, steps, resuming, several processes), then
how fast. It needs torch, MONAI, Ignite and this package, no films and no weights. Prints a table and writes JSON; run
again, it repeats nothing that is done. Exit status: 0 if all is right, 1 if something is not, 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial

import torch

from cxw_monai.io.files.printable import printable


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, ... or cpu (default cuda)")
    parser.add_argument("--minutes", type=float, default=8, help="no measurement begins after so many (default 8)")
    parser.add_argument("--output", default="device_check", help="folder of the results (default device_check)")
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, help="torch.compile too (default: on CUDA only)"
    )
    arguments = parser.parse_args(argv)
    try:
        device = torch.device(arguments.device)
    except RuntimeError:
        parser.error(f"--device must be cuda, cuda:N or cpu, got {arguments.device!r}")
    if device.type not in ("cuda", "cpu"):
        parser.error(f"--device must be cuda, cuda:N or cpu, got {arguments.device!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        there = torch.cuda.device_count()
        print(f"error: {device} is not here, PyTorch sees {there} CUDA devices; try --device cpu", file=sys.stderr)
        return 2
    if device.type == "cuda":
        device = torch.device("cuda", device.index or 0)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for kernels that repeat their bits
    from .run import Run, format_table  # after what CUDA reads when it starts

    compiling = device.type == "cuda" if arguments.compile is None else arguments.compile
    tell = partial(print, file=sys.stderr, flush=True)
    try:
        run = Run(device, arguments.output, arguments.minutes, compiling, tell)
        results = run()
    except OSError as error:
        print(f"error: {printable(error)}", file=sys.stderr)
        return 2
    print(format_table(run.about, results))
    return 1 if any(result.status == "failed" and result.kind == "right" for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
