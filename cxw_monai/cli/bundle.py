"""Prints a bundle's folder, for the bundle's own commands from anywhere.

Example:
    bundle="$(cxw-monai bundle chexworld_pretraining)"
    python -m monai.bundle run training --config_file "$bundle/configs/train.json" --bundle_root "$bundle" ...
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("name", help="of a bundle, such as chexworld_segmentation")


def run(a: argparse.Namespace) -> int:
    """Prints the folder."""
    from cxw_monai.weights.bundles import find_bundle

    print(find_bundle(a.name).resolve())
    return 0
