"""Films that are looked for in an index: a file, a folder or a manifest, and what is found for each."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from cxw_monai.data.film_search import find_images
from cxw_monai.data.manifest import ALL_SECTIONS, read_datalist
from cxw_monai.inference.reading import read_ahead, read_whole
from cxw_monai.io import Radiograph, RadiographError
from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.files.csv_files import write_rows
from cxw_monai.io.results.film_names import film_name

from .encoder import FilmEncoder
from .index import FilmIndex
from .regions import Box, film_box, region_neighbours, stored_box
from .search import Neighbours, Search, same_films

__all__ = ["Found", "Query", "checked_encoder", "query_items", "read_queries", "run_queries", "write_found"]

_AT_ONCE = 256  # queries that are searched at once
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Query:
    """A film that is looked for.

    Attributes:
        name: as tables show it.
        path: its file.
        sha256: of the file's content.
        tokens: float32 `[T, D]`.
        patient: its `patient_id`, where one is known.
        box: the part that is looked for, in fractions of the upright film; None for the whole.
    """

    name: str
    path: str
    sha256: str
    tokens: np.ndarray
    patient: str | None = None
    box: Box | None = None


@dataclass(frozen=True)
class Found:
    """A neighbour of a query.

    Attributes:
        rank: from 1 on.
        similarity: in [-1, 1].
        place: in the index.
        box: the part that is most like the query's, in fractions of the upright film; None of whole films.
    """

    rank: int
    similarity: float
    place: int
    box: Box | None = None


def checked_encoder(index: FilmIndex, ckpt: str | PathLike[str], device: str = "cpu") -> FilmEncoder:
    """The encoder that an index was made with.

    Raises:
        ValueError: it is another one.
        BundleError, CheckpointError: it can't be used.
    """
    encoder = FilmEncoder(ckpt, device)
    if encoder.sha256 != index.settings.encoder_sha256 or encoder.image_size != index.settings.image_size:
        raise ValueError(
            f"{index.folder}: made with another encoder (SHA-256 {index.settings.encoder_sha256[:12]}..., "
            f"{index.settings.image_size} px) than {ckpt} ({encoder.sha256[:12]}..., {encoder.image_size} px); "
            "give --ckpt the weights that cxw-monai index had, or make another index with these"
        )
    return encoder


def query_items(source: str | PathLike[str]) -> tuple[str, list[tuple[str, str | None]]]:
    """The films of a query: the folder that names are relative to, and each one's path and patient.

    Raises:
        ValueError, FileNotFoundError: there is no such film, folder or manifest, or no film in it.
    """
    path = os.path.abspath(source)
    if not os.path.exists(path):
        raise FileNotFoundError(f"{source}: no such file or folder; give a film, a folder of films, or a manifest")
    if os.path.isdir(path):
        items = find_images(path)
    elif Path(path).suffix.lower() in (".csv", ".json"):
        items = read_datalist(path, ALL_SECTIONS)
    else:
        items = [{"image": path}]
    if not items:
        raise ValueError(f"{source}: no film in it; give a film, a folder of films, or a manifest")
    unique = {item["image"]: item.get("patient_id") for item in items}
    return path if os.path.isdir(path) else os.path.dirname(path), list(unique.items())


def read_queries(
    source: str | PathLike[str],
    encoder: FilmEncoder,
    box: Box | None = None,
) -> Iterator[Query | RadiographError]:
    """The films of a query one by one, encoded, or why one can't be used.

    Args:
        source: a film, a folder, or a manifest.
        encoder: of the index.
        box: part of the film that is looked for, in px of the stored image; of a single film.

    Raises:
        ValueError, FileNotFoundError: see `query_items` and `film_box`; a box of several films.
    """
    root, items = query_items(source)
    if box is not None and len(items) > 1:
        raise ValueError(f"{source}: a box is of one film, and there are {len(items)}; give the film itself")
    paths, patients = [path for path, _ in items], dict(items)
    for path, found in zip(paths, read_ahead(paths, lambda one: read_whole(one, encoder.reader), 2, 4), strict=True):
        if isinstance(found, RadiographError):
            yield found
        elif found is not None:
            film, identity = found
            part = None if box is None else film_box(box, film.meta["pixel_map"])
            tokens = encoder.tokens(film.array)
            yield Query(film_name(path, root), path, identity.sha256, tokens, patients[path], part)


def run_queries(
    search: Search,
    queries: Sequence[Query],
    count: int,
    encoder: FilmEncoder,
    filters: Sequence[tuple[str, str]] = (),
    other_patients: bool = False,
    candidates: int = 200,
) -> list[list[Found]]:
    """Neighbours of each query; the query's own film is none.

    Args:
        search: finds them.
        queries: with or without a box.
        count: most neighbours of each.
        encoder: of the index, for the tokens of films with which a box is compared.
        filters: see `FilmIndex.where`.
        other_patients: leave out films of the query's patient.
        candidates: of a box, see `region_neighbours`.

    Raises:
        ValueError: a wrong filter, or patients that aren't known.
    """
    index = search.index
    allowed = index.where(filters)
    patients = [query.patient for query in queries] if other_patients else []
    if other_patients and not any(patients):
        patients = _patients_in(index, queries)
    left_out = same_films(index, [query.sha256 for query in queries], patients)
    found = []
    for start in range(0, len(queries), _AT_ONCE):
        part, out = queries[start : start + _AT_ONCE], left_out[start : start + _AT_ONCE]
        if part[0].box is None:
            vectors = np.stack([query.tokens.mean(axis=0) for query in part])
            found += _whole(search.search(vectors, count, allowed, out))
            continue
        for query, own in zip(part, out, strict=True):
            assert query.box is not None
            regions = region_neighbours(
                search, query.tokens, query.box, count, encoder.read, max(candidates, count), allowed, own
            )
            found.append([Found(n, r.similarity, r.place, r.box) for n, r in enumerate(regions, start=1)])
    return found


def _patients_in(index: FilmIndex, queries: Sequence[Query]) -> list[str | None]:
    """Patients of queries that are films of the index themselves."""
    own = same_films(index, [query.sha256 for query in queries])
    patients = [index.film(int(places[0])).get("patient_id") if len(places) else None for places in own]
    if not any(patients):
        raise ValueError(
            "the patients of the queries are not known, so their films can't be left out; give a manifest with "
            "patient_id as the query"
        )
    return patients


def _whole(neighbours: Neighbours) -> list[list[Found]]:
    return [
        [Found(rank, float(s), int(p)) for rank, (s, p) in enumerate(zip(*row, strict=True), start=1) if p >= 0]
        for row in zip(neighbours.similarity, neighbours.place, strict=True)
    ]


def write_found(
    path: str | PathLike[str], index: FilmIndex, queries: Sequence[Query], found: Sequence[Sequence[Found]]
) -> None:
    """Write a row a neighbour: the query's name, rank, similarity, the box in px of the neighbour's stored image where
    there is one, and the columns of the index."""
    columns = [name for name in index.columns if name != "file_sha256"]
    boxes = ["box_x", "box_y", "box_width", "box_height"] if any(query.box for query in queries) else []
    rows = []
    for query, neighbours in zip(queries, found, strict=True):
        for one in neighbours:
            film = index.film(one.place)
            row = {"query": query.name, "rank": one.rank, "similarity": f"{one.similarity:.4f}"}
            row |= {name: film[name] for name in columns}
            if one.box is not None:
                row |= dict(zip(boxes, _stored(index, one), strict=True))
            rows.append(row)
    with atomic_file(path, "w", newline="", encoding="utf-8") as stream:
        write_rows(stream, ["query", "rank", "similarity", *boxes, *columns], rows)


def _stored(index: FilmIndex, found: Found) -> list[str]:
    film = read_whole(index.path(found.place), {"min_size": 1})
    if found.box is None or not isinstance(film, tuple):
        return [""] * 4
    radiograph: Radiograph = film[0]
    return [f"{value:.0f}" for value in stored_box(found.box, radiograph.meta["pixel_map"])]
