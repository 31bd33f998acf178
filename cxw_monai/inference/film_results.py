"""Where a run's results go: a folder a film, and a table whose rows say which films are done.

A film's row comes last, after its files: after a killed run, the films that have a row are done, unless their file is
another by now.
"""

from __future__ import annotations

import csv
import io
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import Any

from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.files.csv_files import CsvWriter, read_rows, write_rows
from cxw_monai.io.files.identity import FileIdentity, file_identity
from cxw_monai.io.radiograph import Radiograph, RadiographError
from cxw_monai.io.results.film_names import film_name, result_folders
from cxw_monai.io.results.folders import is_result_folder

__all__ = ["FILE_COLUMNS", "FilmResults"]

FILE_COLUMNS = {
    "image": "the film's name: its path below the input",
    "folder": "the film's folder in the output",
    "file": "path of the file that the results were made from",
    "file_bytes": "its size",
    "file_modified_ns": "its time of change, in ns since 1970",
    "file_sha256": "SHA-256 of its content",
}
"""Columns that every table begins with, and what they are."""

_logger = logging.getLogger(__name__)


class FilmResults(ABC):
    """Folders and table of a run's films; what is written into them is a subclass's.

    One process writes to a folder at a time (the caller holds
    an :func:`~cxw_monai.io.results.folders.output_lock`).

    Args:
        output_dir: is made.
        sources: paths of all films of the run.
        root: the folder that the user gave as input, below which films are named; None takes the folder that all films
            share, which is another one when films are added elsewhere.
        table: file of the table in `output_dir`; None for none.
        columns: of the table; `FILE_COLUMNS` come first.
        reserved: names that no part of a film's folder may have.
        resume: keep the rows of a table that is there (of the same columns); otherwise it is begun anew.

    Raises:
        ValueError: a table of other columns.
    """

    PATTERNS: tuple[str, ...]
    """Files in a film's folder that go before the film is written anew."""

    def __init__(
        self,
        output_dir: str | PathLike[str],
        sources: Iterable[str | PathLike[str]],
        root: str | PathLike[str] | None,
        table: str | None,
        columns: Sequence[str],
        reserved: Sequence[str],
        resume: bool,
    ) -> None:
        self.output_dir = Path(output_dir)
        paths = sorted({os.path.abspath(path) for path in sources})
        if root is None and paths:
            root = os.path.commonpath([os.path.dirname(path) for path in paths])
        self._names = {path: film_name(path, root) for path in paths}
        self._table = None if table is None else _Table(self.output_dir / table, columns, resume)
        self._rows = {} if self._table is None else {row["image"]: row for row in self._table.rows}
        kept = {name: row["folder"] for name, row in self._rows.items()}
        self._folders = result_folders(paths, root, reserved, kept)
        self._replaced: set[str] = set()

    @abstractmethod
    def files(self, row: Mapping[str, str]) -> list[str]:
        """What a film's folder holds when it is done."""

    def is_written(self, path: str | PathLike[str]) -> bool:
        """Whether a film is done: it has its row in the table, its file has the content that the row records, and all
        `files` are there.

        The film is read for that, since size and time alone don't tell one from another.

        Raises:
            RadiographError: the row is that of another file with this name, from another input.
        """
        row = self._rows.get(self._names.get(os.path.abspath(path), ""))
        if row is None or row["folder"] != self._relative(path).as_posix():
            return False
        try:
            found = file_identity(path)
        except OSError:  # the reader says what is wrong with it
            return False
        if found.sha256 == row["file_sha256"]:
            folder = self.folder(path)
            missing = [name for name in self.files(row) if not (folder / name).is_file()]
            if missing:
                more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
                _logger.info("done again, since its %s is missing%s: %s", missing[0], more, path)
                self._replaced.add(os.path.abspath(path))
            return not missing
        if row["file"] != film_name(path):
            reason = f"the output has results of another film of this name, {row['file']}"
            raise RadiographError(path, reason, "give another --output")
        _logger.info("done again, since the film is another than before: %s", path)
        self._replaced.add(os.path.abspath(path))
        return False

    def leave_out(self, path: str | PathLike[str]) -> None:
        """Take away what there is of the film that was in the place of one that failed."""
        if os.path.abspath(path) in self._replaced:
            self.clear(path)

    def clear(self, path: str | PathLike[str]) -> None:
        """Leave nothing of an earlier run in a film's folder, and no row of it in the table."""
        if self._table is not None:
            self._table.drop(self._names[os.path.abspath(path)])
        if is_result_folder(folder := self.folder(path)):
            for pattern in self.PATTERNS:
                for file in folder.glob(pattern):
                    file.unlink()

    def folder(self, path: str | PathLike[str]) -> Path:
        """A film's own folder.

        Raises:
            ValueError: the film isn't one of ``sources``.
        """
        return self.output_dir / self._relative(path)

    def _relative(self, path: str | PathLike[str]) -> PurePosixPath:
        try:
            return self._folders[os.path.abspath(path)]
        except KeyError as error:
            raise ValueError(f"{path} is not one of the {len(self._folders)} sources given to the writer") from error

    def file_cells(self, film: Radiograph, identity: FileIdentity) -> dict[str, Any]:
        """A film's cells of `FILE_COLUMNS`."""
        path = film.meta["path"]
        cells = (self._names[os.path.abspath(path)], self._relative(path).as_posix(), film_name(path), *identity)
        return dict(zip(FILE_COLUMNS, cells, strict=True))

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a film's row, on the disk when this returns."""
        if self._table is not None:
            self._table.append(row)


class _Table:
    """A CSV that grows by whole rows; one that was cut off at the end is dropped when the run is resumed.

    Attributes:
        rows: those that were kept.
    """

    def __init__(self, path: Path, columns: Sequence[str], resume: bool) -> None:
        self.path, self.columns = path, list(columns)
        kept = self._rows_there() if resume and path.is_file() else []
        self.rows = list({row["image"]: row for row in kept}.values())
        self._write(self.rows)

    def _rows_there(self) -> list[dict[str, str]]:
        text = self.path.read_bytes().decode("utf-8", "replace")
        whole = text[: text.rfind("\n") + 1]
        if next(csv.reader(io.StringIO(whole, newline="")), []) != self.columns:
            raise ValueError(f"{self.path} has other columns; give another output_dir, or don't resume")
        return read_rows(io.StringIO(whole, newline=""))

    def _write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._images = {row["image"] for row in rows}
        with atomic_file(self.path, "w", newline="", encoding="utf-8") as stream:
            write_rows(stream, self.columns, rows)

    def drop(self, image: str) -> None:
        """Leave out a film's row, where it has one."""
        if image in self._images:
            self._write([row for row in self._rows_there() if row["image"] != image])

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row, on the disk when this returns."""
        text = io.StringIO()
        cells = {name: f"{cell:.6g}" if isinstance(cell, float) else cell for name, cell in row.items()}
        CsvWriter(text).writerow(cells[name] for name in self.columns)
        with open(self.path, "ab") as stream:
            stream.write(text.getvalue().encode())
            stream.flush()
            os.fsync(stream.fileno())
        self._images.add(row["image"])
