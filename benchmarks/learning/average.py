"""The average of encoders that went on from one another: weights between two of them are often better than either.

Source: model soups (arXiv 2203.05482), WiSE-FT (arXiv 2109.01903).

Example:
    python -m benchmarks.learning.average before.pt after.pt --output average.pt
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.command import ended
from cxw_monai.training.checkpoint_files import write_checkpoint
from cxw_monai.weights.encoder import load_encoder

__all__ = ["average_encoders", "main"]


def average_encoders(paths: Sequence[str | Path]) -> dict[str, Tensor]:
    """The mean of each tensor over encoder files, under the names of `encoder.pt`.

    Raises:
        ValueError: for encoders of different sizes.
    """
    states = [load_encoder(path).state_dict() for path in paths]
    shapes = [{name: value.shape for name, value in state.items()} for state in states]
    if any(one != shapes[0] for one in shapes):
        raise ValueError(f"{', '.join(map(str, paths))} are encoders of different sizes: they have no average.")
    return {name: torch.stack([state[name] for state in states]).mean(dim=0) for name in states[0]}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoders", nargs="+", type=Path, help="encoder files")
    parser.add_argument("--output", type=Path, required=True, help="file to write")
    a = parser.parse_args(argv)
    return ended(lambda: write_checkpoint(average_encoders(a.encoders), a.output))


if __name__ == "__main__":
    sys.exit(main())
