"""Neighbours of vectors in an index, by the cosine of standardised vectors: exact, shard by shard, in torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch

from .index import FilmIndex

__all__ = ["ExactSearch", "Neighbours", "Search", "same_films"]

_AT_ONCE = 1 << 27  # similarities in memory, 512 MiB


class Neighbours(NamedTuple):
    """The most similar films of each query, best first.

    Attributes:
        similarity: float32 `[Q, k]` in [-1, 1]; -inf where there are fewer.
        place: int64 `[Q, k]`, places in the index; -1 where there are fewer.
    """

    similarity: np.ndarray
    place: np.ndarray


class Search(Protocol):
    """What finds neighbours."""

    index: FilmIndex

    def search(
        self,
        vectors: np.ndarray,
        count: int,
        allowed: np.ndarray | None = None,
        left_out: Sequence[np.ndarray] | None = None,
    ) -> Neighbours:
        """Neighbours of vectors.

        Args:
            vectors: `[Q, D]`, as the index's encoder gives them.
            count: k, at least 1.
            allowed: bool `[N]`, films that may be found; None for all.
            left_out: of each query, places of further films that are not to be found.

        Raises:
            ValueError: vectors of another width, or that are no numbers.
        """


class ExactSearch:
    """Compares each query with all films.

    Args:
        index: is read from the disk, or from the system's cache of it; nothing else is held but a number a film.
    """

    def __init__(self, index: FilmIndex) -> None:
        self.index = index
        self._scale = torch.from_numpy(1 / index.deviation)
        mean = torch.from_numpy(index.mean)
        self._inverse = torch.empty(len(index))  # 1 / length of each standardised vector
        start = 0
        for vectors in index.vectors:
            values = (torch.from_numpy(vectors).float() - mean) * self._scale
            self._inverse[start : start + len(vectors)] = 1 / values.norm(dim=1).clamp(min=1e-12)
            start += len(vectors)

    def search(
        self,
        vectors: np.ndarray,
        count: int,
        allowed: np.ndarray | None = None,
        left_out: Sequence[np.ndarray] | None = None,
    ) -> Neighbours:
        queries = checked_queries(self.index, vectors, count)
        size = max(1, _AT_ONCE // max(1, len(self.index)))
        parts = []
        for start in range(0, len(queries), size):
            block = self.similarities(queries[start : start + size])
            if allowed is not None:
                block[:, torch.from_numpy(~allowed)] = -torch.inf
            for row, places in enumerate(left_out[start : start + size] if left_out else ()):
                block[row, torch.from_numpy(np.asarray(places, np.int64))] = -torch.inf
            parts.append(_best(block, count))
        return Neighbours(*(np.concatenate([part[one] for part in parts]) for one in (0, 1)))

    def similarities(self, vectors: np.ndarray) -> torch.Tensor:
        """Similarity of vectors `[Q, D]` to all films, float32 `[Q, N]`."""
        queries = torch.from_numpy(self.index.standardised(vectors)) * self._scale  # [Q, D]
        offset = queries @ torch.from_numpy(self.index.mean)
        found = torch.empty(len(queries), len(self.index))
        start = 0
        for own in self.index.vectors:
            part = found[:, start : start + len(own)]
            torch.sub(queries @ torch.from_numpy(own).float().T, offset[:, None], out=part)
            start += len(own)
        return found.mul_(self._inverse)


def checked_queries(index: FilmIndex, vectors: np.ndarray, count: int) -> np.ndarray:
    """Queries as float32 `[Q, D]`; raises what `Search.search` says."""
    if count < 1:
        raise ValueError(f"the number of neighbours must be at least 1, got {count}")
    queries = np.asarray(vectors, np.float32)
    if queries.ndim != 2 or queries.shape[1] != len(index.mean) or not np.isfinite(queries).all():
        raise ValueError(f"queries must be finite, of the shape [Q, {len(index.mean)}]; got {list(queries.shape)}")
    return queries


def _best(similarity: torch.Tensor, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest `count` of each row, of equal ones the first place first."""
    values, places = (found.numpy() for found in similarity.topk(min(count, similarity.shape[1])))
    order = np.lexsort((places, -values), axis=1)
    values, places = np.take_along_axis(values, order, 1), np.take_along_axis(places, order, 1)
    places = np.where(np.isneginf(values), -1, places)
    missing = (0, 0), (0, count - values.shape[1])
    return np.pad(values, missing, constant_values=-np.inf), np.pad(places, missing, constant_values=-1)


def same_films(index: FilmIndex, sha256: Sequence[str], patients: Sequence[str | None] = ()) -> list[np.ndarray]:
    """Places of the films that are a query itself, by the content of the file, or are of its patient.

    Args:
        index: is looked through.
        sha256: of the queries' files.
        patients: of the queries (`patient_id`), where these are to be left out too; None or empty for not known.

    Raises:
        ValueError: patients are given, and the index has no column `patient_id`.
    """
    found: list[list[int]] = [[] for _ in sha256]
    _add_equal(found, index.column("file_sha256"), list(sha256))
    if patients:
        _add_equal(found, index.column("patient_id"), [patient or "" for patient in patients])
    return [np.array(sorted(set(places)), np.int64) for places in found]


def _add_equal(found: list[list[int]], column: Sequence[str], wanted: Sequence[str]) -> None:
    places: dict[str, list[int]] = {value: [] for value in wanted if value}
    for place, value in enumerate(column):
        if value in places:
            places[value].append(place)
    for own, value in zip(found, wanted, strict=True):
        own += places.get(value, [])
