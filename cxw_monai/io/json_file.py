"""JSON files whose errors name them."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any

__all__ = ["read_json"]


def read_json(path: str | PathLike[str]) -> Any:
    """What a UTF-8 JSON file holds.

    Raises:
        ValueError: it is no JSON, or not in UTF-8; the message names the file.
        OSError: it cannot be opened.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: not readable JSON ({error or type(error).__name__}); fetch or write it again"
        ) from error
