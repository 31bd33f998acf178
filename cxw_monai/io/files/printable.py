"""Texts and values as messages show them: nothing in them moves a cursor, begins a line or turns the text around."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from os import PathLike, fspath
from reprlib import Repr
from typing import Any

__all__ = ["escape_log_records", "printable", "printable_lines", "shown"]

_PACKAGE = __name__.partition(".")[0]
_short = Repr()
_short.maxstring, _short.maxother, _short.maxlong, _short.maxlevel = 60, 60, 40, 3
_short.maxlist = _short.maxtuple = _short.maxdict = 6


def shown(value: Any) -> str:
    """A value as an error shows it: about 60 characters of each text in it, on one line, control characters escaped."""
    return _short.repr(value)


def printable(text: object, limit: int | None = None) -> str:
    """A text as one line that a terminal, a log or a browser shows as it is.

    Control characters, line ends, marks that change the direction of writing, and bytes that are no character of the
    file system's encoding (surrogates) become escapes as in Python's ``repr``: ``\\n``, ``\\x1b``, ``\\u202e``,
    ``\\udcff``. All else stays, the backslash too.

    Args:
        text: a text, a path, an error, or anything else that ``str`` takes.
        limit: most characters, for texts out of a stranger's file; what is left out shows as ``...``.
    """
    given = fspath(text) if isinstance(text, PathLike) else text
    whole = given.decode("utf-8", "surrogateescape") if isinstance(given, bytes) else str(given)
    whole = whole if limit is None else whole[: limit + 1]
    escaped = "".join(char if char.isprintable() else repr(char)[1:-1] for char in whole)
    return escaped if limit is None or len(escaped) <= limit else escaped[:limit] + "..."


def printable_lines(text: str) -> str:
    """A text of several lines, such as a traceback, each of them :func:`printable`; its line ends stay."""
    return "".join(printable(part) if part != "\n" else part for part in re.split("(\n)", text))


def escape_log_records() -> None:
    """From now on, names, errors and texts that this package's loggers are given are logged as :func:`printable`.

    Records of other packages stay as they are. Called when the package is imported; a second call changes nothing.
    """
    make = logging.getLogRecordFactory()
    if getattr(make, "escapes", False):
        return

    def made(*arguments: Any, **named: Any) -> logging.LogRecord:
        record = make(*arguments, **named)
        if record.name.partition(".")[0] == _PACKAGE:
            if not isinstance(record.msg, str):
                record.msg = _escaped(record.msg)
            if isinstance(record.args, Mapping):
                record.args = {name: _escaped(value) for name, value in record.args.items()}
            elif record.args:
                record.args = tuple(map(_escaped, record.args))
        return record

    made.escapes = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(made)


def _escaped(value: Any) -> Any:
    return printable(value) if isinstance(value, (str, bytes, PathLike, BaseException)) else value
