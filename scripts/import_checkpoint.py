"""Convert an official checkpoint.

`python scripts/import_checkpoint.py OFFICIAL OUT [--one-channel] [--num-heads N]`
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cxw_monai.io.files.printable import printable
from cxw_monai.weights.encoder import CheckpointError, import_official


def readable(found: Mapping[str, Any], out: Path) -> str:
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("official", type=Path, metavar="OFFICIAL", help="checkpoint to read; nothing in it is executed")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for model.pt and model.safetensors")
    parser.add_argument(
        "--one-channel", action="store_true", help="fold the three-channel stem into a grey one, exactly"
    )
    parser.add_argument("--num-heads", type=int, help="attention heads, where width and depth are of no named ViT size")
    arguments = parser.parse_args()
    try:
        found = import_official(arguments.official, arguments.out, arguments.one_channel, arguments.num_heads)
    except (CheckpointError, OSError) as error:
        print(f"error: {printable(error)}", file=sys.stderr)
        return 2
    print(readable(found, arguments.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
