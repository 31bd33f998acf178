"""How long a query takes, and how much memory the search: on made-up vectors, since only their number matters."""

from __future__ import annotations

import resource
import time

import numpy as np

from cxw_monai.retrieval import ExactSearch, FilmIndex
from cxw_monai.retrieval.faiss_search import FaissSearch

__all__ = ["time_search"]

_SHARD = 10_000
_CLUSTERS = 2_000  # made-up films are near one of so many centres, as patients and views make them


class MadeIndex(FilmIndex):
    """An index of vectors in memory."""

    def __init__(self, films: int, width: int, dtype: str, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self._centres = rng.standard_normal((_CLUSTERS, width), np.float32)
        self.vectors = []
        for start in range(0, films, _SHARD):
            count = min(_SHARD, films - start)
            near = self._centres[rng.integers(_CLUSTERS, size=count)]
            self.vectors.append((near + rng.standard_normal((count, width), np.float32)).astype(dtype))
        self._counts = [len(part) for part in self.vectors]
        self._starts = np.concatenate([[0], np.cumsum(self._counts)])
        sample = self.vectors[0].astype(np.float32)
        self.mean, self.deviation = sample.mean(axis=0), sample.std(axis=0)

    def queries(self, count: int) -> np.ndarray:
        """Vectors `[count, D]` like those of the index."""
        rng = np.random.default_rng(1)
        near = self._centres[rng.integers(_CLUSTERS, size=count)]
        return near + rng.standard_normal(near.shape, np.float32)


def time_search(films: int, width: int, dtype: str, with_faiss: bool, queries: int = 20) -> dict[str, object]:
    """Milliseconds of a query for ten neighbours, seconds to open the search, and the process's memory.

    Args:
        films, width, dtype: of the index.
        with_faiss: compare `FaissSearch` with the exact search, by the share of the ten neighbours that it finds.
        queries: timed one by one.
    """
    index = MadeIndex(films, width, dtype)
    vectors = index.queries(queries)
    start = time.perf_counter()
    exact = ExactSearch(index)
    row: dict[str, object] = {"films": films, "width": width, "dtype": dtype}
    row["vectors, MB"] = round(sum(part.nbytes for part in index.vectors) / 1e6)
    row["open, s"] = f"{time.perf_counter() - start:.2f}"
    row["query, ms"], truth = _timed(exact, vectors)
    if with_faiss:
        start = time.perf_counter()
        search = FaissSearch(index)
        row["faiss build, s"] = f"{time.perf_counter() - start:.1f}"
        row["faiss query, ms"], found = _timed(search, vectors)
        shared = [len(set(a) & set(b)) for a, b in zip(truth, found, strict=True)]
        row["faiss finds"] = f"{np.mean(shared) / 10:.3f}"
    row["peak memory, MB"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return row


def _timed(search: ExactSearch | FaissSearch, vectors: np.ndarray) -> tuple[str, list[list[int]]]:
    """Least and median time, and median time of all processors together; and what was found."""
    wall, processor, places = [], [], []
    for vector in vectors:
        start, used = time.perf_counter(), time.process_time()
        found = search.search(vector[None], 10)
        wall.append(1000 * (time.perf_counter() - start))
        processor.append(1000 * (time.process_time() - used))
        places.append(found.place[0].tolist())
    return f"{min(wall):.0f}, {np.median(wall):.0f}; processor {np.median(processor):.0f}", places
