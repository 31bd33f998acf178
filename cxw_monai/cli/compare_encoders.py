"""Compares encoders of radiographs with ours on your own films: probes of labels, and tests of places.

Examples:
    cxw-monai compare-encoders films.csv --encoder hf:microsoft/rad-dino --output encoders
    cxw-monai compare-encoders films.csv --ours ours:RUN/encoder.pt,size=160 --labels view label_effusion \\
        --encoder timm:vit_small_patch16_224 xrv:densenet121-res224-all python:my.module:make_encoder \\
        onnx:model.onnx,size=224,channels=3,mean=0.5,std=0.5 --output encoders

Writes comparison.csv, .md, .html and .json. An encoder is KIND:WHAT with settings after commas. Kinds: ours (weights of
this package, a bundle), timm, hf (Hugging Face, a name or a folder), xrv (torchxrayvision), torchscript, onnx, and
python (module:function; what it returns takes images and gives vectors, tokens or maps). Settings: size=224 or
size=224/192, channels=3, range=0/255, mean=, std= (one number, or one each with / between), pool=mean or cls, prefix=1
(tokens before those of patches). A timm, Hugging Face or torchxrayvision model brings its own; of the others the
defaults are 224 px, 1 channel, values 0 to 1. The libraries: pip install "cxw-monai[rivals]". torchxrayvision unpickles
what it fetches.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("films", type=Path, help="a manifest, or a folder of films")
    parser.add_argument("--encoder", nargs="+", required=True, metavar="KIND:WHAT", help="what is compared with ours")
    parser.add_argument(
        "--ours",
        default="ours:chexworld_pretraining",
        metavar="KIND:WHAT",
        help="what the others are compared with (default: the shipped encoder)",
    )
    parser.add_argument("--labels", nargs="+", help="binary columns of the manifest (default: all there are)")
    parser.add_argument("--count", type=int, default=500, help="films, drawn at random; 0 for all (default 500)")
    parser.add_argument(
        "--world-count", type=int, default=100, help="how many of them the tests of places look at (default 100)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of all draws (default 0)")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to make or continue")


def run(a: argparse.Namespace) -> int:
    """Compares, writes the files and prints the table."""
    from cxw_monai.io.files.printable import printable_lines
    from cxw_monai.tasks.compare_encoders import compare_encoders

    for name in ("count", "world_count", "seed"):
        if getattr(a, name) < 0:
            raise ValueError(f"--{name.replace('_', '-')} must be 0 or more, got {getattr(a, name)}")
    compare_encoders(a.encoder, a.films, a.output, a.ours, a.labels, a.count or None, a.world_count, a.seed)
    print(printable_lines((a.output / "comparison.md").read_text(encoding="utf-8")))
    return 0
