"""Measures search: neighbours beside random weights and pixels, planted copies, and the time of a query.

Example:
    cxw-monai index films.csv --output index
    python -m benchmarks.retrieval scores --index index --columns view sex --random 3 --pixels 16
    python -m benchmarks.retrieval leak --index index --output leak --copies 50
    python -m benchmarks.retrieval speed --films 100000 --width 192
    python -m benchmarks.retrieval speed --films 1000000 --width 192 --faiss
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.command import ended
from cxw_monai.metrics.descriptors import encoder_descriptors, pixel_descriptors
from cxw_monai.retrieval import FilmIndex
from cxw_monai.retrieval.scores import format_scores, score_columns, score_vectors

from .planted import leak_check
from .speed import time_search


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    scores = commands.add_parser("scores", help="precision and votes by column, beside random weights and pixels")
    scores.add_argument("--columns", nargs="+", required=True, help="of the index")
    scores.add_argument("--encoder", default="bundles/chexworld_pretraining", help="whose sizes random weights have")
    scores.add_argument("--random", type=int, default=1, help="networks of random weights (default 1)")
    scores.add_argument("--pixels", type=int, default=16, help="rows and columns of the shrunk films (default 16)")
    leak = commands.add_parser("leak", help="plant copies of films and look for them")
    leak.add_argument("--output", type=Path, required=True, help="folder of the copies")
    leak.add_argument("--copies", type=int, default=50, help="of each change (default 50)")
    for command in (scores, leak):
        command.add_argument("--index", type=Path, required=True, help="that cxw-monai index made")
    speed = commands.add_parser("speed", help="time of a query on made-up vectors")
    speed.add_argument("--films", type=int, default=100_000)
    speed.add_argument("--width", type=int, default=192)
    speed.add_argument("--dtype", choices=("float32", "float16"), default="float32")
    speed.add_argument("--faiss", action="store_true", help="compare faiss with the exact search")
    speed.add_argument("--threads", type=int, default=2, help="of torch (default 2)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    a = parse_arguments(argv)
    return ended(lambda: _work(a))


def _work(a: argparse.Namespace) -> None:
    if a.command == "speed":
        torch.set_num_threads(a.threads)
        _print([time_search(a.films, a.width, a.dtype, a.faiss)])
    elif a.command == "leak":
        _print(leak_check(FilmIndex(a.index), a.output, a.copies))
    else:
        _scores(FilmIndex(a.index), a)


def _print(rows: Sequence[dict[str, object]]) -> None:
    """A table in Markdown."""
    print("| " + " | ".join(rows[0]) + " |")
    print("|" + " --- |" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(map(str, row.values())) + " |")


def _scores(index: FilmIndex, a: argparse.Namespace) -> None:
    print(f"index\n{format_scores(score_columns(index, a.columns))}")
    images = [index.path(place) for place in range(len(index))]
    table = {name: index.column(name) for name in index.columns}
    others = [encoder_descriptors(a.encoder, images, random_seed=seed) for seed in range(a.random)]
    for found in (*others, pixel_descriptors(images, a.pixels)):
        values = torch.from_numpy(found.values).double()
        values = (values - values.mean(dim=0)) / values.std(dim=0, correction=0).clamp(min=1e-6)
        values /= values.norm(dim=1, keepdim=True).clamp(min=1e-12)
        scored = score_vectors(lambda q, f, v=values: (v[q] @ v[f].T).numpy(), table, a.columns)
        print(f"{found.name}\n{format_scores(scored)}")


if __name__ == "__main__":
    sys.exit(main())
