"""JSON files, read strictly, whose errors name them.

What could be understood in two ways is refused: a key that is there twice, and NaN and infinity, which are no JSON.
"""

from __future__ import annotations

import json
from collections import Counter
from os import PathLike
from pathlib import Path
from typing import Any

from .printable import shown

__all__ = ["parse_json", "read_json"]


def read_json(path: str | PathLike[str]) -> Any:
    """Read a JSON file in UTF-8, with or without a byte order mark.

    Raises:
        ValueError: it isn't such a file, a key is there twice, or a number is NaN or infinite; names the file.
        OSError: it can't be opened.
    """
    content = Path(path).read_bytes()
    try:
        return parse_json(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise ValueError(f"{path}: not readable JSON (not UTF-8: byte 0x{byte:02x}); save it as UTF-8") from None
    except ValueError as error:
        raise ValueError(f"{path}: not readable JSON ({error}); mend it, or fetch or write it again") from None


def parse_json(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: no JSON, a key that is there twice, NaN or infinity, or nested too deep.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {shown(twice)} is there twice in one object; keep one of them")
    return found


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number; write null where a value isn't known")
