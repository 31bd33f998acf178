"""CSV files that a spreadsheet opens without running what is in them, and that read back as they were.

A text that a spreadsheet would take for a formula (one that begins with ``=``, ``+``, ``-``, ``@``, their full-width
forms, a tabulator or a line end, and is no number) gets an apostrophe in front, as OWASP advises
(https://owasp.org/www-community/attacks/CSV_Injection). :func:`unguarded` takes it off again.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any

from .printable import printable

__all__ = ["CsvWriter", "read_rows", "unguarded", "write_rows"]

_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")  # noqa: RUF001
_GUARDED = re.compile(r"'+[=+\-@\t\r\n＝＋－＠]")  # noqa: RUF001
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|nan)")


class CsvWriter:
    """Writes rows of UTF-8 with ``\\n`` at their ends, to a stream that is opened for text with ``newline=""``."""

    def __init__(self, stream: IO[str]) -> None:
        self._writer = csv.writer(stream, lineterminator="\n")
        self._quoting = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL)

    def writerow(self, cells: Iterable[Any]) -> None:
        """Write a row: texts guarded, numbers as Python writes them, None as an empty cell."""
        row = [_cell(cell) for cell in cells]
        if any(isinstance(cell, str) and "\r" in cell for cell in row):  # before Python 3.13 csv doesn't quote it
            self._quoting.writerow(row)
        else:
            self._writer.writerow(row)

    def writerows(self, rows: Iterable[Iterable[Any]]) -> None:
        """Write rows."""
        for row in rows:
            self.writerow(row)


def write_rows(stream: IO[str], columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a header and a row for each mapping; a column that a mapping lacks stays empty.

    Raises:
        ValueError: a mapping has other columns too.
    """
    writer = CsvWriter(stream)
    writer.writerow(columns)
    known = set(columns)
    for row in rows:
        if unknown := row.keys() - known:
            raise ValueError(f"columns {sorted(unknown)} are not among {list(columns)}")
        writer.writerow([row.get(name, "") for name in columns])


def unguarded(cell: str) -> str:
    """The text that was written; of any other cell, the cell itself."""
    return cell[1:] if _GUARDED.match(cell) else cell


def read_rows(stream: IO[str]) -> list[dict[str, str]]:
    """The rows of a CSV with a header that was written here, texts as they were; incomplete rows are left out."""
    rows = [[unguarded(cell) for cell in row] for row in csv.reader(stream) if row]
    columns = rows[0] if rows else []
    return [dict(zip(columns, row, strict=True)) for row in rows[1:] if len(row) == len(columns)]


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value if value is None or isinstance(value, (int, float)) else _cell(str(value))
    if _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        value = f"'{value}"
    try:
        value.encode()
    except UnicodeEncodeError:  # bytes of a file's name that are no character
        return printable(value)
    return value
