"""An index that was built, opened for search: vectors stay on the disk, and are read as they are needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from cxw_monai.io.files.identity import file_identity
from cxw_monai.io.files.json_files import read_json
from cxw_monai.io.results.film_names import film_path

from .build import FORMAT, INDEX
from .copies import SIDE
from .shards import FILM_COLUMNS, IndexSettings, array_of, shard_files, table_of

__all__ = ["DamagedIndexError", "FilmIndex"]

LEAST_FILMS = 32
"""Of fewer films, mean and deviation say little: their vectors are compared as they are."""

_REMEDY = "run the cxw-monai index command that made it again: it makes this shard anew and keeps the others"


class DamagedIndexError(ValueError):
    """A file of an index is missing or damaged; names it, and says what to do."""

    def __init__(self, path: str | PathLike[str], reason: str) -> None:
        super().__init__(f"{path}: {reason}; {_REMEDY}")
        self.path, self.reason = Path(path), reason

    def __reduce__(self) -> tuple[type[DamagedIndexError], tuple[Path, str]]:
        return type(self), (self.path, self.reason)


class FilmIndex:
    """The films of an index: a vector and the columns of each.

    Args:
        folder: that `build_index` made.
        check: read all files and compare them with their digests, rather than only their sizes.

    Attributes:
        settings: what the vectors depend on.
        root: folder of the films.
        vectors: float `[n, D]` of each shard, on the disk.
        fine: int8 `[n, 128, 128]` of each shard, on the disk, see `cxw_monai.retrieval.copies`.
        tokens: float16 `[n, T, D]` of each shard, on the disk; empty where none were stored.
        mean, deviation: float32 `[D]`, of all vectors; 0 and 1 for an index of fewer than `LEAST_FILMS` films.
        columns: names of the table's columns; `image` is the film's name below `root`.

    Raises:
        ValueError: the folder holds no index, or one that isn't complete.
        DamagedIndexError: a file is missing or damaged.
    """

    def __init__(self, folder: str | PathLike[str], check: bool = True) -> None:
        self.folder = Path(folder)
        about = self._about()
        self.settings, self.root = IndexSettings.of(about["made_with"]), str(about["root"])
        self._counts = [int(shard["films"]) for shard in about["shards"]]
        self._starts = np.concatenate([[0], np.cumsum(self._counts)])  # first place of each shard
        if check:
            for shard in about["shards"]:
                self._check(shard["sha256"])
        self.mean = np.array(about["mean"], np.float32)
        self.deviation = np.maximum(np.array(about["deviation"], np.float32), np.float32(1e-6))
        if len(self) < LEAST_FILMS:
            self.mean, self.deviation = np.zeros_like(self.mean), np.ones_like(self.deviation)
        width, grid = len(self.mean), self.settings.grid[0] * self.settings.grid[1]
        names = [shard_files(number, self.settings.tokens) for number in range(len(self._counts))]
        arrays = list(zip(names, self._counts, strict=True))
        self.vectors = [self._array(own[1], (n, width)) for own, n in arrays]
        self.fine = [self._array(own[2], (n, SIDE, SIDE)) for own, n in arrays]
        self.tokens = [self._array(own[3], (n, grid, width)) for own, n in arrays if own[3:]]
        self._table = lru_cache(maxsize=64)(self._read_table)

    def _about(self) -> dict[str, Any]:
        path = self.folder / INDEX
        if not path.is_file():
            if list(self.folder.glob("shard-?????.json")):
                remedy = "run the same cxw-monai index command again, or merge the shares with cxw-monai index --merge"
                raise ValueError(f"{self.folder}: an index that isn't complete; {remedy}")
            raise ValueError(f"{self.folder}: no index; make one with cxw-monai index FILMS --output {self.folder}")
        about = read_json(path)
        if not isinstance(about, dict) or about.get("format") != FORMAT:
            raise ValueError(f"{path}: not an index of this version; make it anew, in another folder")
        return about

    def _check(self, digests: Mapping[str, str]) -> None:
        for name, wanted in digests.items():
            try:
                found = file_identity(self.folder / name).sha256
            except OSError as error:
                raise DamagedIndexError(self.folder / name, error.strerror or type(error).__name__) from None
            if found != wanted:
                raise DamagedIndexError(self.folder / name, "damaged: not the content that was written")

    def _array(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        try:
            array = array_of(self.folder / name)
        except (OSError, ValueError, EOFError) as error:
            raise DamagedIndexError(self.folder / name, f"can't be read ({error})") from None
        if array.shape != shape:
            reason = f"damaged: an array of the shape {list(array.shape)}, not {list(shape)}"
            raise DamagedIndexError(self.folder / name, reason)
        return array

    def __len__(self) -> int:
        return int(self._starts[-1])

    @cached_property
    def columns(self) -> list[str]:
        return self._table(0)[0]

    def _read_table(self, shard: int) -> tuple[list[str], list[list[str]]]:
        path = self.folder / shard_files(shard, False)[0]
        try:
            columns, rows = table_of(path)
        except (OSError, ValueError, IndexError) as error:
            raise DamagedIndexError(path, f"can't be read ({error})") from None
        if len(rows) != self._counts[shard] or tuple(columns[:2]) != FILM_COLUMNS:
            raise DamagedIndexError(path, f"damaged: {len(rows)} rows, not {self._counts[shard]}")
        return columns, rows

    def place(self, place: int) -> tuple[int, int]:
        """Shard of a film, and its row there."""
        shard = int(np.searchsorted(self._starts, place, side="right")) - 1
        return shard, place - int(self._starts[shard])

    def film(self, place: int) -> dict[str, str]:
        """The columns of a film."""
        shard, row = self.place(place)
        return dict(zip(self.columns, self._table(shard)[1][row], strict=True))

    def path(self, place: int) -> str:
        """The file of a film."""
        return film_path(self.film(place)["image"], self.root)

    def column(self, name: str) -> list[str]:
        """A column, a text a film; empty where nothing is known.

        Raises:
            ValueError: there is none of this name.
        """
        if name not in self.columns:
            raise ValueError(f"{self.folder}: no column {name!r}; it has {', '.join(self.columns)}")
        at = self.columns.index(name)
        return [row[at] for shard in range(len(self._counts)) for row in self._table(shard)[1]]

    def where(self, filters: Sequence[tuple[str, str]]) -> np.ndarray | None:
        """Films that match the filters, bool `[N]`; None for all where there is no filter.

        Args:
            filters: columns and values. A film matches one of the values of each column that is named.

        Raises:
            ValueError: there is no such column, or no film that matches.
        """
        if not filters:
            return None
        chosen = np.ones(len(self), bool)
        for name in dict(filters):
            wanted = {value for column, value in filters if column == name}
            found = self.column(name)
            chosen &= np.array([value in wanted for value in found])
            if not wanted & set(found):
                have = ", ".join(repr(value) for value in sorted(set(found))[:6])
                raise ValueError(
                    f"{self.folder}: no film with {name} {' or '.join(map(repr, sorted(wanted)))}; it has {have}"
                )
        if not chosen.any():
            raise ValueError(f"{self.folder}: no film matches all of {', '.join(f'{n}={v}' for n, v in filters)}")
        return chosen

    def standardised(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors `[..., D]` as they are compared, float32 of length 1: their dot products are similarities."""
        values = (np.asarray(vectors, np.float32) - self.mean) / self.deviation
        length = np.linalg.norm(values, axis=-1, keepdims=True)
        return values / np.maximum(length, np.float32(1e-12))

    def vectors_of(self, places: Sequence[int] | np.ndarray) -> np.ndarray:
        """Vectors of some films, float32 `[n, D]`, as they were stored."""
        found = [self.vectors[shard][row] for shard, row in map(self.place, map(int, places))]
        return np.array(found, np.float32).reshape(len(found), len(self.mean))

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """The vectors of each shard as they are compared, and their places."""
        for shard, vectors in enumerate(self.vectors):
            yield slice(int(self._starts[shard]), int(self._starts[shard + 1])), self.standardised(vectors)
