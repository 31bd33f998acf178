"""The files of an index, a shard at a time: each is made by one process and is there whole or not at all.

::

    DIR/index.json              what the index was made with, and its shards; written last
    DIR/failures.csv            films that could not be read: name, reason, remedy
    DIR/shard-00000.npy         float32 or float16 [n, D], a vector a film
    DIR/shard-00000-fine.npy    int8 [n, 128, 128], the films' fine structure, by which copies are found
    DIR/shard-00000-tokens.npy  float16 [n, T, D], on request
    DIR/shard-00000.csv         a row a film: its name, the SHA-256 of its file, the manifest's other columns
    DIR/shard-00000.json        what the shard was made with, and the digests of its files; written after them
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.files.csv_files import CsvWriter, unguarded
from cxw_monai.io.files.identity import file_identity
from cxw_monai.io.files.json_files import read_json

__all__ = ["FILM_COLUMNS", "IndexSettings", "Shard", "array_of", "read_shard", "shard_files", "table_of", "write_shard"]

FILM_COLUMNS = ("image", "file_sha256")
"""First columns of a shard's table."""

DTYPES = ("float32", "float16")


@dataclass(frozen=True)
class IndexSettings:
    """What the vectors of an index depend on.

    Attributes:
        encoder_sha256: of the file of weights.
        image_size: (height, width) in px that films are stretched to.
        grid: (rows, columns) of tokens.
        dtype: of the stored vectors, `float32` or `float16`.
        tokens: whether the tokens are stored too, in float16.
        shard_films: films in a shard, at least 1; the last has the rest.

    Raises:
        ValueError: one of them is out of its range.
    """

    encoder_sha256: str
    image_size: tuple[int, int]
    grid: tuple[int, int]
    dtype: str = "float32"
    tokens: bool = False
    shard_films: int = 1000

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")
        if self.shard_films < 1:
            raise ValueError(f"shard_films must be at least 1, got {self.shard_films}")

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> IndexSettings:
        """From the plain values of a JSON."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()
        }
        return cls(**values)

    def plain(self) -> dict[str, Any]:
        """As the plain values of a JSON."""
        return json.loads(json.dumps(asdict(self)))


@dataclass(frozen=True)
class Shard:
    """What `shard-00000.json` says.

    Attributes:
        number: its own, from 0 on.
        of: shards of the whole index.
        root: folder that the names of films are relative to.
        made_with: see `IndexSettings`, as plain values.
        plan: digest of the list of all films with their columns.
        state: digest of the sizes and times of change of its films' files.
        films: that could be read.
        failures: name, reason and remedy of each other film.
        sha256: of its files, by their names.
    """

    number: int
    of: int
    root: str
    made_with: dict[str, Any]
    plan: str
    state: str
    films: int
    failures: list[list[str]]
    sha256: dict[str, str]

    def damage(self, folder: Path) -> str | None:
        """The name of a file that is missing or has another content than was written, and which; None for none."""
        for name, wanted in self.sha256.items():
            try:
                found = file_identity(folder / name).sha256
            except OSError as error:
                return f"{folder / name}: {error.strerror or type(error).__name__}"
            if found != wanted:
                return f"{folder / name}: not what was written there"
        return None


def shard_files(number: int, tokens: bool) -> list[str]:
    """Names of a shard's files beside its JSON: table, vectors, fine structure and, where they are stored, tokens."""
    stem = f"shard-{number:05}"
    return [f"{stem}.csv", f"{stem}.npy", f"{stem}-fine.npy", *([f"{stem}-tokens.npy"] if tokens else [])]


def read_shard(folder: Path, number: int) -> Shard | None:
    """What the JSON of a shard says; None where there is none, or it can't be read."""
    try:
        return Shard(**read_json(folder / f"shard-{number:05}.json"))
    except (OSError, ValueError, TypeError):
        return None


def write_shard(
    folder: Path,
    shard: Shard,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    arrays: Sequence[np.ndarray],
) -> None:
    """Write the files of a shard and then its JSON.

    Args:
        folder: of the index.
        shard: `sha256` is filled in here.
        columns, rows: of the table.
        arrays: of the types that are stored, in the order of `shard_files`.
    """
    names = shard_files(shard.number, bool(shard.made_with["tokens"]))
    for name, array in zip(names[1:], arrays, strict=True):
        with atomic_file(folder / name) as stream:
            np.save(stream, array, allow_pickle=False)
    with atomic_file(folder / names[0], "w", newline="", encoding="utf-8") as stream:
        writer = CsvWriter(stream)
        writer.writerow(columns)
        writer.writerows(rows)
    digests = {name: file_identity(folder / name).sha256 for name in names}
    with atomic_file(folder / f"shard-{shard.number:05}.json", "w", encoding="utf-8") as stream:
        json.dump({**asdict(shard), "sha256": digests}, stream, indent=1)


def array_of(path: Path) -> np.ndarray:
    """An array that stays on the disk; writes to it are not stored.

    Raises:
        ValueError, OSError: it can't be read.
    """
    return np.load(path, mmap_mode="c", allow_pickle=False)


def table_of(path: Path) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of a shard's table, texts as they were."""
    with path.open(newline="", encoding="utf-8") as stream:
        rows = [[unguarded(cell) for cell in row] for row in csv.reader(stream)]
    return rows[0], rows[1:]
