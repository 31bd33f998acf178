"""Finds films that are there twice, in one set or in two: a check that no test film was trained on.

Found are copies that are re-encoded, resized, brighter or darker, or cropped by some percent, and never two films of a
patient for being alike. A and B are indexes, folders or manifests; of the latter two an index is made in OUTPUT first
(resumable, and embedded by --ckpt). Writes OUTPUT/pairs.csv, and pairs.html with the pairs side by side.

Examples:
    cxw-monai duplicates films/ --output copies
    cxw-monai duplicates training.csv test.csv --output leak --workers 4

Exit status: 0 no pair, 1 pairs were found or films could not be read, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("first", type=Path, metavar="A", help="an index, a folder of films, or a manifest")
    parser.add_argument("second", type=Path, nargs="?", metavar="B", help="another one: pairs have a film of each")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where the results go")
    parser.add_argument("--least", type=float, default=0.78, help="agreement of a pair, 0 to 1 (default 0.78)")
    parser.add_argument("--neighbours", type=int, default=5, help="films that each film is compared with (default 5)")
    parser.add_argument("--pictures", type=int, default=100, help="most pairs on the page (default 100)")
    parser.add_argument("--ckpt", default="chexworld_pretraining", help="encoder of an index that is made")
    parser.add_argument("--workers", type=int, default=1, help="processes that make it (default 1)")


def run(a: argparse.Namespace) -> int:
    """Looks for copies and writes them; 1 where there are some."""
    from cxw_monai.io.results.folders import mark_own
    from cxw_monai.retrieval.build import INDEX, build_index
    from cxw_monai.retrieval.duplicates import find_copies, write_pairs, write_pairs_page
    from cxw_monai.retrieval.index import FilmIndex

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    mark_own(a.output)
    opened, failed = [], 0
    for name, source in (("first", a.first), ("second", a.second)):
        if source is None:
            continue
        made = a.output / f"index_{name}"
        if not (source / INDEX).is_file():
            failed += build_index(source, made, a.ckpt, workers=a.workers)["failed"]
        opened.append(FilmIndex(source if (source / INDEX).is_file() else made))
    first, second = opened[0], opened[1] if len(opened) > 1 else None
    pairs = find_copies(first, second, a.least, a.neighbours, lambda line: print(line, file=sys.stderr))
    table = a.output / "pairs.csv"
    write_pairs(table, pairs, first, second)
    write_pairs_page(a.output / "pairs.html", pairs[: a.pictures], first, second)
    print(f"pairs: {len(pairs)}; films: {' and '.join(str(len(index)) for index in opened)}; see {table}")
    if failed:
        print(f"{failed} films could not be read; see failures.csv in {a.output}/index_*", file=sys.stderr)
    return int(bool(pairs) or failed > 0)
