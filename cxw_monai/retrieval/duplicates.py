"""Films that are there twice, in one set or in two: a check that no test film was trained on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from os import PathLike

import numpy as np
import torch

from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.files.csv_files import write_rows

from .copies import AGREEMENT, compare, descriptors, variants
from .index import FilmIndex
from .pages import film_tile, write_page

__all__ = ["NEIGHBOURS", "Pair", "find_copies", "write_pairs", "write_pairs_page"]

NEIGHBOURS = 5
"""Films that each film is compared with."""

_BLOCK = 2048  # films whose descriptors are compared at once


@dataclass(frozen=True)
class Pair:
    """Two films that are one.

    Attributes:
        first, second: places in the first index, and in the second one, or the same one.
        same_file: whether the files have the same content.
        agreement: of the fine structure, see `cxw_monai.retrieval.copies.Copy`.
        scale: (rows, columns) of the part of the second film that the first shows, in sizes of the second.
    """

    first: int
    second: int
    same_file: bool
    agreement: float
    scale: tuple[float, float]


def find_copies(
    first: FilmIndex,
    second: FilmIndex | None = None,
    least: float = AGREEMENT,
    neighbours: int = NEIGHBOURS,
    progress: Callable[[str], None] = lambda line: None,
) -> list[Pair]:
    """Pairs of films that are one: copies, also re-encoded, resized, cropped a little, brighter or darker.

    Each film is compared with those nearest to it by `copies.descriptors`, whole and cropped, and with the films whose
    files are equal. Mirrored and turned copies are not found.

    Args:
        first, second: pairs have a film of each; without a second index both are of the first.
        least: agreement of a pair, in (0, 1].
        neighbours: films that each film is compared with, at least 1.
        progress: is told what is done.

    Returns:
        The pairs, of the highest agreement first.

    Raises:
        ValueError: a number is out of its range.
    """
    if not 0 < least <= 1 or neighbours < 1:
        raise ValueError(f"least must lie in (0, 1] and neighbours be at least 1, got {least} and {neighbours}")
    equal = _equal_files(first, second)
    near = _near(first, second, neighbours)
    progress(f"{len(near)} pairs of films are compared")
    pairs = []
    for one, two in sorted(equal | near):
        if (one, two) in equal:
            pairs.append(Pair(one, two, True, 1.0, (1.0, 1.0)))
            continue
        found = compare(_fine(first, one), _fine(second or first, two))
        if found.agreement >= least:
            pairs.append(Pair(one, two, False, found.agreement, found.scale))
    return sorted(pairs, key=lambda pair: (-pair.agreement, pair.first, pair.second))


def _fine(index: FilmIndex, place: int) -> np.ndarray:
    shard, row = index.place(place)
    return index.fine[shard][row]


def _equal_files(first: FilmIndex, second: FilmIndex | None) -> set[tuple[int, int]]:
    """Pairs of places whose files have the same content."""
    places = defaultdict(list)
    for place, digest in enumerate(first.column("file_sha256")):
        places[digest].append(place)
    others = first.column("file_sha256") if second is None else second.column("file_sha256")
    found = {(one, two) for two, digest in enumerate(others) for one in places.get(digest, ())}
    return {pair for pair in found if second is not None or pair[0] < pair[1]}


def _blocks(index: FilmIndex) -> Iterator[tuple[int, list[torch.Tensor]]]:
    """The first place of some films, and their descriptors in all variants, `[n, 256]` each."""
    start = 0
    for fine in index.fine:
        for at in range(0, len(fine), _BLOCK):
            part = fine[at : at + _BLOCK]
            yield start + at, [torch.from_numpy(descriptors(part, *one)) for one in variants()]
        start += len(fine)


def _near(first: FilmIndex, second: FilmIndex | None, neighbours: int) -> set[tuple[int, int]]:
    """Pairs of places whose descriptors are nearest, either film whole and the other cropped or whole."""
    found = set()
    for start, ours in _blocks(second or first):
        best, best_place = torch.zeros(len(ours[0]), 0), torch.zeros(len(ours[0]), 0, dtype=torch.int64)
        for other, theirs in _blocks(first):
            similarity = torch.stack([o @ theirs[0].T for o in ours] + [ours[0] @ t.T for t in theirs]).amax(dim=0)
            if second is None and start == other:
                similarity.fill_diagonal_(-torch.inf)
            places = torch.arange(other, other + similarity.shape[1]).expand_as(similarity)
            both = torch.cat([best, similarity], dim=1), torch.cat([best_place, places], dim=1)
            best, order = both[0].topk(min(neighbours, both[0].shape[1]))
            best_place = both[1].gather(1, order)
        for row, places in enumerate(torch.where(best.isfinite(), best_place, -1).tolist()):
            mine = start + row
            found |= {
                (one, mine) if second is not None else (min(one, mine), max(one, mine)) for one in places if one >= 0
            }
    return found


def write_pairs(
    path: str | PathLike[str], pairs: list[Pair], first: FilmIndex, second: FilmIndex | None = None
) -> None:
    """Write a row a pair: the films' names, whether their patient is the same, and how far they agree.

    `same_patient` is 1 or 0, and empty where a film's `patient_id` isn't known.
    """
    columns = ("first", "second", "agreement", "same_file", "rows_shown", "columns_shown", "same_patient")
    rows = []
    for pair in pairs:
        one, two = first.film(pair.first), (second or first).film(pair.second)
        patients = one.get("patient_id"), two.get("patient_id")
        same = int(patients[0] == patients[1]) if all(patients) else ""
        shown = (f"{scale:.3f}" for scale in pair.scale)
        cells = (one["image"], two["image"], f"{pair.agreement:.3f}", int(pair.same_file), *shown, same)
        rows.append(dict(zip(columns, cells, strict=True)))
    with atomic_file(path, "w", newline="", encoding="utf-8") as stream:
        write_rows(stream, columns, rows)


def write_pairs_page(
    path: str | PathLike[str], pairs: list[Pair], first: FilmIndex, second: FilmIndex | None = None
) -> None:
    """Write a page of pairs, side by side."""
    rows = []
    for pair in pairs:
        how = "same file" if pair.same_file else f"agreement {pair.agreement:.3f}"
        tiles = [film_tile(second or first, pair.second, how)]
        rows.append({"query": film_tile(first, pair.first, "first"), "neighbours": tiles})
    notes = [f"Pairs: {len(pairs)}, those of the highest agreement first. pairs.csv has all of them."]
    write_page(path, "Films that are there twice", notes, rows)
