"""Reads an official checkpoint, without executing anything in it, and writes this package's weights.

Example: cxw-monai import-weights chexworld_pretrained.tar weights/ --one-channel
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("official", type=Path, metavar="OFFICIAL", help="checkpoint to read; nothing in it is executed")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for model.pt and model.safetensors")
    parser.add_argument(
        "--one-channel", action="store_true", help="fold the three-channel stem into a grey one, exactly"
    )
    parser.add_argument("--num-heads", type=int, help="attention heads, where width and depth are of no named ViT size")


def run(a: argparse.Namespace) -> int:
    """Converts the file and prints what was found in it."""
    from cxw_monai.weights.official import import_official

    print(_readable(import_official(a.official, a.out, a.one_channel, a.num_heads), a.out))
    return 0


def _readable(found: Mapping[str, Any], out: Path) -> str:
    """What `import_official` found, one fact a line."""
    geometry = found["geometry"]
    return "\n".join(
        (
            f"image      {geometry['image_size']} px, patches of {geometry['patch_size']} px, "
            f"{geometry['in_channels']} channel(s)",
            f"encoder    {geometry['embed_dim']}-d, {geometry['depth']} blocks, {geometry['num_heads']} heads",
            f"predictor  {geometry['predictor_embed_dim']}-d, {geometry['predictor_depth']} blocks, "
            f"{geometry['predictor_num_heads']} heads, conditioning {geometry['conditioning']}, "
            f"actions of {geometry['action_dim']}",
            f"positions  {found['position_tables']}",
            f"contents   {found['tensors']} tensors, {found['scalars']:,} numbers",
            f"epoch      {'not stated' if found['epoch'] is None else found['epoch']}",
            f"arguments  {', '.join(found['official_arguments']) or 'none stored'}",
            f"written    {out / 'model.pt'}, {out / 'model.safetensors'}",
        )
    )
