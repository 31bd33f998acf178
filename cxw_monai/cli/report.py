"""One self-contained page on a checkpoint: verdict, curves, tests with controls, what it sees and what it expects.

CKPT is a world model (model.pt of a run), or an encoder, for which what needs a predictor is left out; a bundle's name
is its encoder. DATA is a folder of films, or a manifest. The preset is that of the run. Again with the same OUT, what
is done is not done again.

Example: cxw-monai report RUN/model.pt films/ report --set world_films=100
"""

from __future__ import annotations

import argparse
from pathlib import Path

from .bundle_command import run_bundle, set_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    add_seeing_arguments(parser)


def add_seeing_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that `report` and `explore` have."""
    parser.add_argument("ckpt", type=Path, help="weights of a world model or an encoder, or a bundle's name")
    parser.add_argument("data", type=Path, help="a folder of films, or a manifest")
    parser.add_argument("output", type=Path, help="where the page goes, and what is kept")
    parser.add_argument(
        "--preset", default="cpu_tiny", help="preset of the run that made the weights (default cpu_tiny)"
    )
    parser.add_argument("--bundle", default="chexworld_pretraining", help="name or folder of the bundle")
    set_argument(parser)


def run_seeing(a: argparse.Namespace, command: str, config: str) -> int:
    """Runs one of the two commands."""
    from cxw_monai.weights.bundles import find_bundle

    configs = ["configs/train.json", f"configs/presets/{a.preset}.yaml", f"configs/{config}.json"]
    source = "dataset_dir" if a.data.is_dir() else "datalist"
    given = {
        source: a.data.resolve(),
        "ckpt": find_bundle(a.ckpt).resolve(),
        "output_dir": a.output.resolve(),
        "amp": "none",
    }
    return run_bundle(a, command, configs, given)


def run(a: argparse.Namespace) -> int:
    """Writes the page and prints its path."""
    status = run_seeing(a, "reporting", "report")
    if status == 0:
        print(a.output / "report.html")
    return status
