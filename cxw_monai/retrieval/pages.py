"""One page that needs nothing else: each query beside its neighbours, as small pictures."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from cxw_monai.io import RadiographError, read_radiograph
from cxw_monai.tasks.pages import data_url, write_html

from .index import FilmIndex
from .queries import Found, Query
from .regions import Box

__all__ = ["Tile", "film_tile", "found_rows", "thumbnail", "write_page"]

_TEMPLATE = Path(__file__).with_name("search.html.j2")
_SIDE = 176  # px of the longer side
_FRAME = (255, 140, 0)
_SHOWN = ("view", "sex", "age", "source", "finding_labels")


class Tile(NamedTuple):
    """A film on the page.

    Attributes:
        picture: source of an `img`; empty where the film can't be read.
        title: in bold below it.
        name: of the film.
        facts: further lines.
    """

    picture: str
    title: str
    name: str
    facts: Sequence[str]


def thumbnail(path: str | PathLike[str], box: Box | None = None) -> str:
    """A film as the source of an `img`, a box in fractions of it drawn in orange; empty where it can't be read."""
    try:
        grey = read_radiograph(path, min_size=1).array[0]
    except RadiographError:
        return ""
    scale = min(_SIDE / max(grey.shape), 1.0)
    size = max(round(grey.shape[1] * scale), 1), max(round(grey.shape[0] * scale), 1)
    picture = Image.fromarray(np.rint(grey * 255).astype(np.uint8)).resize(size, Image.Resampling.BOX)
    if box is not None:
        picture = picture.convert("RGB")
        x, y, width, height = box
        edges = [x * size[0], y * size[1], (x + width) * size[0] - 1, (y + height) * size[1] - 1]
        ImageDraw.Draw(picture).rectangle(edges, outline=_FRAME, width=2)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=80, optimize=True)
    return data_url(stream.getvalue(), "jpeg")


def facts_of(film: Mapping[str, str], show: Sequence[str] = ()) -> list[str]:
    """Lines about a film: the columns to show, by default view, sex, age and source, and labels that are present."""
    lines = [f"{name}: {film[name]}" for name in show or _SHOWN if film.get(name)]
    present = [
        name.removeprefix("label_") for name, value in film.items() if name.startswith("label_") and value == "1"
    ]
    return lines if show or not present else [*lines, ", ".join(present)]


def film_tile(index: FilmIndex, place: int, title: str, box: Box | None = None, show: Sequence[str] = ()) -> Tile:
    """A film of an index."""
    film = index.film(place)
    return Tile(thumbnail(index.path(place), box), title, film["image"], facts_of(film, show))


def found_rows(
    index: FilmIndex, queries: Sequence[Query], found: Sequence[Sequence[Found]], show: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """What the page shows of queries and their neighbours."""
    rows = []
    for query, neighbours in zip(queries, found, strict=True):
        tiles = [film_tile(index, one.place, f"{one.rank}: {one.similarity:.3f}", one.box, show) for one in neighbours]
        rows.append({"query": Tile(thumbnail(query.path, query.box), "query", query.name, []), "neighbours": tiles})
    return rows


def write_page(path: str | PathLike[str], title: str, notes: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the page.

    Args:
        path: of the HTML file.
        title: its heading.
        notes: paragraphs below it.
        rows: each with a tile `query`, tiles `neighbours` and, to begin a section, a text `heading`.
    """
    write_html(path, _TEMPLATE, title=title, notes=notes, rows=rows)
