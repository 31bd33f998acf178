"""Indexes of made-up vectors, and films that are easily told apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from cxw_monai.retrieval.build import finish_index
from cxw_monai.retrieval.copies import SIDE
from cxw_monai.retrieval.index import FilmIndex
from cxw_monai.retrieval.shards import FILM_COLUMNS, IndexSettings, Shard, write_shard


def textured(seed: int, side: int = 160) -> np.ndarray:
    """A film `[side, side]` in [0, 1] with structure of all sizes."""
    rng = np.random.default_rng(seed)
    layers = [gaussian_filter(rng.standard_normal((side, side)), sigma) * sigma for sigma in (1, 2, 4, 10)]
    total = np.sum(layers, axis=0)
    return ((total - total.min()) / np.ptp(total)).astype(np.float32)


def save_film(path: Path, film: np.ndarray, **how: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.rint(255 * film).astype(np.uint8)).save(path, **how)


def made_index(
    folder: Path,
    vectors: np.ndarray,
    cells: dict[str, Sequence[str]] | None = None,
    tokens: np.ndarray | None = None,
    size: int = 7,
    dtype: str = "float32",
) -> FilmIndex:
    """An index of vectors `[N, D]` and columns, in shards of `size` films."""
    cells, grid = cells or {}, (1, 1) if tokens is None else (int(tokens.shape[1] ** 0.5),) * 2
    settings = IndexSettings("0" * 64, (32, 32), grid, dtype, tokens is not None, size)
    total = -(-len(vectors) // size)
    folder.mkdir()
    for number in range(total):
        part = range(number * size, min((number + 1) * size, len(vectors)))
        rows = [[f"{n:04}.png", f"digest{n}", *(column[n] for column in cells.values())] for n in part]
        arrays = [vectors[part].astype(dtype), np.zeros((len(part), SIDE, SIDE), np.int8)]
        arrays += [] if tokens is None else [tokens[part].astype(np.float16)]
        shard = Shard(number, total, str(folder), settings.plain(), "plan", "state", len(part), [], {})
        write_shard(folder, shard, [*FILM_COLUMNS, *cells], rows, arrays)
    finish_index(folder, total)
    return FilmIndex(folder)
