"""Searches an index for films like a film, or like a part of it; or scores how well neighbours share a column's value.

The query is a film, a folder, or a manifest. Writes neighbours.csv, and search.html with each query beside its
neighbours. The query itself is never among them (by the content of its file).

Examples:
    cxw-monai search index film.dcm --output found --where view=PA --where sex=F
    cxw-monai search index film.png --box 120 200 80 90 --output found
    cxw-monai search index --score view label_Effusion --output scores

Exit status: 0 done, 1 some queries could not be read, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from . import name_and_value

if TYPE_CHECKING:
    from cxw_monai.retrieval.index import FilmIndex


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("index", type=Path, help="folder that cxw-monai index made")
    parser.add_argument("query", type=Path, nargs="?", help="a film, a folder of films, or a manifest")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where the results go")
    parser.add_argument("--ckpt", default="chexworld_pretraining", help="encoder that the index was made with")
    parser.add_argument("--count", type=int, default=10, help="neighbours of a film (default 10)")
    parser.add_argument(
        "--where",
        type=name_and_value,
        action="append",
        default=[],
        metavar="COLUMN=VALUE",
        help="only films of this value; repeatable: any of a column's values, and all of the columns",
    )
    parser.add_argument("--other-patients", action="store_true", help="leave out films of the query's patient")
    parser.add_argument(
        "--box", type=float, nargs=4, metavar=("X", "Y", "WIDTH", "HEIGHT"), help="part of the film to look for, in px"
    )
    parser.add_argument("--candidates", type=int, default=200, help="films compared with a box (default 200)")
    parser.add_argument("--faiss", action="store_true", help="search by faiss: approximate, for millions of films")
    parser.add_argument("--pictures", type=int, default=50, help="most queries on the page (default 50)")
    parser.add_argument("--show", nargs="+", default=[], metavar="COLUMN", help="columns that the page shows")
    parser.add_argument("--score", nargs="+", default=[], metavar="COLUMN", help="score the index itself on these")
    parser.add_argument("--device", default="cpu", help="of the encoder: cpu or cuda (default cpu)")


def run(a: argparse.Namespace) -> int:
    """Searches, or scores; 1 where queries could not be read."""
    if (a.query is None) == (not a.score):
        raise ValueError("give a query, or --score with columns of the index")
    from cxw_monai.io.results.folders import mark_own
    from cxw_monai.retrieval.index import FilmIndex

    index = FilmIndex(a.index)
    mark_own(a.output)
    return _score(a, index) if a.score else _search(a, index)


def _score(a: argparse.Namespace, index: FilmIndex) -> int:
    from cxw_monai.retrieval.scores import format_scores, score_columns, write_scores

    found = score_columns(index, a.score, progress=lambda line: print(line, file=sys.stderr))
    write_scores(a.output, index, found)
    print(format_scores(found))
    return 0


def _search(a: argparse.Namespace, index: FilmIndex) -> int:
    from cxw_monai.io import RadiographError
    from cxw_monai.retrieval.faiss_search import FaissSearch
    from cxw_monai.retrieval.pages import found_rows, write_page
    from cxw_monai.retrieval.queries import Query, checked_encoder, read_queries, run_queries, write_found
    from cxw_monai.retrieval.search import ExactSearch, Search

    index.where(a.where)  # wrong ones show before films are read
    encoder = checked_encoder(index, a.ckpt, a.device)
    box = (a.box[0], a.box[1], a.box[2], a.box[3]) if a.box else None
    read = list(read_queries(a.query, encoder, box))
    failed = [one for one in read if isinstance(one, RadiographError)]
    queries = [one for one in read if isinstance(one, Query)]
    if not queries:
        raise failed[0]
    for error in failed:
        print(f"not searched: {error}", file=sys.stderr)
    search: Search = FaissSearch(index) if a.faiss else ExactSearch(index)
    found = run_queries(search, queries, a.count, encoder, a.where, a.other_patients, a.candidates)
    write_found(a.output / "neighbours.csv", index, queries, found)
    notes = [
        f"Queries: {len(queries)}, films: {len(index)}. Similarity lies in [-1, 1]. neighbours.csv has all neighbours."
    ]
    if a.where:
        notes.append("Only films with " + ", ".join(f"{name} = {value}" for name, value in a.where) + ".")
    shown = slice(0, a.pictures)
    page = a.output / "search.html"
    write_page(page, "Films like these", notes, found_rows(index, queries[shown], found[shown], a.show))
    for query, neighbours in zip(queries[:1], found[:1], strict=True):
        for one in neighbours:
            print(f"{query.name}\t{one.rank}\t{one.similarity:.4f}\t{index.film(one.place)['image']}")
    print(f"queries: {len(queries)}; see {page}")
    return int(bool(failed))
