"""Makes an index of films for search: a vector a film, and the manifest's columns beside it.

The input is a folder with everything below it, or a manifest (CSV or datalist JSON). The same command continues a run
that was killed. With --shard I/N each of N machines makes its share, and --merge completes the index.

Examples:
    cxw-monai index films.csv --output index --workers 4
    cxw-monai index films.csv --output share2 --shard 2/3
    cxw-monai index --merge share1 share2 share3 --output index

Exit status: 0 done, 1 some films could not be read (failures.csv), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path


def share(text: str) -> tuple[int, int]:
    """A `type` for argparse: `I/N` as two numbers."""
    number, _, total = text.partition("/")
    if not (number.isdigit() and total.isdigit() and 1 <= int(number) <= int(total)):
        raise argparse.ArgumentTypeError(f"expected I/N with I from 1 to N, such as 2/3, got {text!r}")
    return int(number), int(total)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("films", type=Path, nargs="?", help="a folder of films, or a manifest")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to make or continue")
    parser.add_argument("--ckpt", default="chexworld_pretraining", help="encoder: a bundle, or weights of a run")
    parser.add_argument(
        "--shard", type=share, default=(1, 1), metavar="I/N", help="make the I-th of N machines' shares"
    )
    parser.add_argument("--merge", type=Path, nargs="+", metavar="DIR", help="complete an index from machines' shares")
    parser.add_argument("--workers", type=int, default=1, help="processes on this machine (default 1)")
    parser.add_argument("--shard-films", type=int, default=1000, metavar="N", help="films in a shard (default 1000)")
    parser.add_argument("--dtype", choices=("float32", "float16"), default="float32", help="of the stored vectors")
    parser.add_argument("--tokens", action="store_true", help="store the tokens too: search by region reads no film")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")


def run(a: argparse.Namespace) -> int:
    """Makes or completes the index; 1 where films failed."""
    if (a.films is None) == (a.merge is None):
        raise ValueError("give films to embed, or --merge with the folders of the shares")
    from cxw_monai.retrieval.build import FAILURES, build_index, merge_index

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if a.merge:
        done = merge_index(a.merge, a.output)
    else:
        done = build_index(
            a.films,
            a.output,
            a.ckpt,
            dtype=a.dtype,
            tokens=a.tokens,
            shard_films=a.shard_films,
            share=a.shard,
            workers=a.workers,
            device=a.device,
        )
    print(", ".join(f"{name}: {count}" for name, count in done.items()))
    if done["failed"] and a.shard[1] == 1:
        print(f"{done['failed']} films were not embedded; see {a.output / FAILURES}")
    return int(done["failed"] > 0)
