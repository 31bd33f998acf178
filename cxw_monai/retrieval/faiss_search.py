"""Neighbours by faiss, for more than a million films: approximate, from 16-bit vectors in memory.

`pip install "cxw-monai[faiss]"`. Films are sorted into cells around centres; a query looks into the nearest `probes`
cells only (Johnson, Douze and Jegou, arXiv 1702.08734).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .index import FilmIndex
from .search import Neighbours, checked_queries

__all__ = ["PROBES", "FaissSearch"]

PROBES = 32
_PER_CELL = 64  # films that centres are fitted to, for each


class FaissSearch:
    """The same as `ExactSearch`, by faiss.

    Args:
        index: its vectors are copied into memory, at 2 D + 8 bytes a film.
        cells: 0 for four times the root of the number of films.
        probes: cells that a query looks into; more of them find more of the true neighbours, and take longer.

    Raises:
        ValueError: faiss isn't installed, or a number is out of its range.
    """

    def __init__(self, index: FilmIndex, cells: int = 0, probes: int = PROBES) -> None:
        try:
            import faiss
        except ImportError as error:
            raise ValueError('faiss is not installed: pip install "cxw-monai[faiss]", or search exactly') from error
        if cells < 0 or probes < 1:
            raise ValueError(f"cells must be at least 0 and probes at least 1, got {cells} and {probes}")
        self.index, self._faiss = index, faiss
        self.cells = min(cells or round(4 * math.sqrt(len(index))), max(1, len(index) // 39))  # faiss wants 39 a cell
        self.probes = min(probes, self.cells)
        self._found = self._filled(len(index.mean))

    def _filled(self, width: int) -> Any:
        faiss = self._faiss
        centres = faiss.IndexFlatIP(width)
        found = faiss.IndexIVFScalarQuantizer(
            centres, width, self.cells, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT, False
        )
        drawn = np.random.default_rng(0).permutation(len(self.index))[: self.cells * _PER_CELL]
        found.train(self.index.standardised(self.index.vectors_of(np.sort(drawn))))
        for _, vectors in self.index.blocks():
            if len(vectors):
                found.add(vectors)
        return found

    def search(
        self,
        vectors: np.ndarray,
        count: int,
        allowed: np.ndarray | None = None,
        left_out: Sequence[np.ndarray] | None = None,
    ) -> Neighbours:
        """See `Search.search`; films in cells that are not looked into are missed."""
        queries = self.index.standardised(checked_queries(self.index, vectors, count))
        more = max((len(places) for places in left_out or ()), default=0)
        chosen = {}
        if allowed is not None:
            chosen["sel"] = self._faiss.IDSelectorBatch(np.flatnonzero(allowed).astype(np.int64))
        given = self._faiss.SearchParametersIVF(nprobe=self.probes, **chosen)  # type: ignore[call-arg,unused-ignore]
        similarity, place = self._found.search(queries, count + more, params=given)
        similarity = np.where(place < 0, -np.inf, similarity).astype(np.float32)
        for row, places in enumerate(left_out or ()):
            out = np.isin(place[row], places)
            order = np.argsort(out, kind="stable")  # those to leave out last
            similarity[row], place[row] = (
                np.where(out, -np.inf, similarity[row])[order],
                np.where(out, -1, place[row])[order],
            )
        return Neighbours(similarity[:, :count], place[:, :count].astype(np.int64))
