"""CSV files as this package reads them: one strict parser, whose errors name the file and the place.

What could be understood in two ways is refused: a column that is there twice, rows of another length than the header,
other encodings than UTF-8. JSON: :mod:`cxw_monai.io.files.json_files`.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import zlib
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path

from cxw_monai.io.files.csv_files import unguarded
from cxw_monai.io.files.printable import shown

__all__ = ["csv_rows"]

_AS_UTF8 = "save it as UTF-8 (in a spreadsheet: 'CSV UTF-8')"
_NAMES = 20  # columns named in an error


def csv_rows(
    path: str | PathLike[str], required: Sequence[str] = (), published: str = ""
) -> Iterator[tuple[str, tuple[str, ...], list[str]]]:
    """Read a CSV with a header, plain or gzipped (``.gz``), row by row.

    Args:
        path: UTF-8, with or without a byte order mark, commas between the cells. Empty lines are skipped.
        required: columns that must be there.
        published: where a table of a public data set is from; in such a table several columns may have no name.

    Yields:
        ``(where, columns, cells)``: ``line 7``, the header, and as many cells.

    Raises:
        ValueError: it isn't such a file; the message names it, the line and what to do.
        OSError: it can't be opened.
    """
    path = Path(path)
    where = "line 1"
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(_lines(path, stream), strict=True)
            columns = tuple(map(unguarded, next(reader, ())))
            _check_header(path, columns, required, published)
            for cells in filter(None, reader):
                where = f"line {reader.line_num}"
                if len(cells) != len(columns):
                    raise ValueError(f"{path}, {where}: not {len(columns)} fields like the header, but {len(cells)}")
                yield where, columns, cells
            where = f"after {where}"
    except csv.Error as error:
        raise ValueError(f"{path}, line {max(reader.line_num, 1)}: not a readable CSV ({error})") from None
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}{_bad_line(path)}: not UTF-8 (byte 0x{error.object[error.start]:02x}); {_AS_UTF8}"
        ) from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}, {where}: damaged ({type(error).__name__}); copy it again from its source") from None


def _lines(path: Path, stream: Iterable[str]) -> Iterator[str]:
    """Lines of text; other encodings that UTF-8 lets through, and binary files, are full of NUL."""
    for number, line in enumerate(stream, start=1):
        if "\0" in line:
            raise ValueError(f"{path}, line {number}: holds NUL characters: UTF-16, or no text; {_AS_UTF8}")
        yield line


def _bad_line(path: Path) -> str:
    """``, line 7`` of the first line that isn't UTF-8; nothing of UTF-16."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as stream:
        for number, line in enumerate(stream, start=1):
            if number == 1 and line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                return ", line 1, in UTF-16"
            try:
                line.decode()
            except UnicodeDecodeError:
                return f", line {number}"
    return ""


def _check_header(path: Path, columns: tuple[str, ...], required: Sequence[str], published: str) -> None:
    if not columns:
        named = f" with {', '.join(required)}" if required else ""
        raise ValueError(f"{path}: the file is empty; expected a header{named}, then a line for each row")
    absent = [name for name in required if name not in columns]
    if absent and len(columns) == 1 and (other := next((c for c in ";\t|" if c in columns[0]), None)):
        kind = {";": "semicolons", "\t": "tabulators", "|": "bars"}[other]
        raise ValueError(
            f"{path}, line 1: {kind} between the cells; save it with commas ({shown(columns[0])}). "
            "LibreOffice asks which; Excel takes the list separator of the system's region"
        )
    if absent:
        named = ", ".join(shown(name) for name in columns[:_NAMES]) + (", ..." if len(columns) > _NAMES else "")
        missing = ", ".join(map(repr, absent))
        alike = [shown(name) for name in columns if name.strip().lower() in absent]
        remedy = f"; see {published}" if published else f"; rename {', '.join(alike)}" if alike else ""
        raise ValueError(f"{path}: no column {missing} among [{named}]{remedy}")
    for number, name in enumerate(columns, start=1):
        first = columns.index(name) + 1
        if first != number and (name or not published):
            what = f"the column {shown(name)}" if name else "a column without a name"
            raise ValueError(f"{path}, line 1: {what} is there twice (columns {first} and {number}); keep one of them")
