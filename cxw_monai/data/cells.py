"""The typed fields of a manifest: from a CSV's text to a value, and what a value must be in either form.

Typed are ``age``, ``width``, ``height``, ``label_*`` (numbers), ``bbox_xywh`` (boxes) and ``landmark_*`` (points).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from cxw_monai.io.files.csv_files import unguarded
from cxw_monai.io.files.json_files import parse_json
from cxw_monai.io.files.printable import shown

from .tables import finite

__all__ = [
    *("BOXES", "SLACK", "CellError", "cell_types", "cell_values", "check_boxes", "check_fields", "checked_columns"),
    "plain",
]

BOXES = "bbox_xywh"
SLACK = 1.0
"""Pixels that a box may lie outside its image: published coordinates are rounded, and often scaled."""

_NUMBERS = ("age", "width", "height")
_WORDS = ("view", "sex", "split")
_UNKNOWN = "leave it empty (JSON: null) where it isn't known"


class CellError(ValueError):
    """A cell of a CSV that isn't of its column's type."""


def cell_types(columns: Sequence[str]) -> list[Callable[[str], Any]]:
    """What turns the text of a CSV's cell into its value, by column: a number for ``age``, ``width``, ``height`` and
    labels, a list for boxes and landmarks, else the text. Not for empty cells, which are None."""
    types: list[Callable[[str], Any]] = []
    for column in columns:
        if column in _NUMBERS or column.startswith("label_"):
            types.append(_number)
        elif column == BOXES or column.startswith("landmark_"):
            types.append(parse_json)
        else:
            types.append(sys.intern if column in _WORDS else str)  # a million rows, a few words
    return types


def cell_values(columns: Sequence[str], types: Sequence[Callable[[str], Any]], cells: Sequence[str]) -> list[Any]:
    """The values of a CSV's row.

    Args:
        columns: their names.
        types: of :func:`cell_types`.
        cells: the texts, as many, as they stand in the file.

    Raises:
        CellError: a text isn't of its column's type; names the column.
    """
    cells = [unguarded(cell) for cell in cells]
    try:
        return [kind(cell) if cell else None for kind, cell in zip(types, cells, strict=True)]
    except ValueError:
        for column, kind, cell in zip(columns, types, cells, strict=True):
            try:
                kind(cell or "0")
            except ValueError as error:
                why = "no finite number" if kind is _number else str(error)
                raise CellError(
                    f"column {shown(column)[1:-1]}: cannot read {shown(cell)} ({why}; {_UNKNOWN})"
                ) from None
        raise


def plain(value: Any) -> Any:
    """One text per number: 57, not 57.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


@lru_cache(maxsize=4096)
def _number(cell: str) -> float:
    """An int where the text is whole, else a float."""
    value = float(cell)
    if not finite(value):
        raise ValueError(cell)
    return plain(value)


def checked_columns(columns: Sequence[str]) -> list[str]:
    """The columns whose typed values :func:`check_fields` still has to look at; none of most manifests."""
    kept = [name for name in columns if name == BOXES or name.startswith("landmark_")]
    return kept + [name for name in ("width", "height") if kept and name in columns]


def check_fields(fields: Mapping[str, Any], numbers: Sequence[str] = _NUMBERS) -> None:
    """Check the typed fields of an item.

    Args:
        fields: of one item; None where not known.
        numbers: which of the plain fields must be numbers.

    Raises:
        ValueError: a field isn't what its name says.
    """
    for name, value in fields.items():
        if value is None or not isinstance(name, str):
            continue
        if (name.startswith("label_") or name in numbers) and not finite(value):
            raise ValueError(f"{shown(name)[1:-1]} must be a finite number, got {shown(value)}; {_UNKNOWN}")
        if name.startswith("landmark_") and not _is_point(value):
            raise ValueError(f"{shown(name)[1:-1]} must be [x, y] of finite numbers, got {shown(value)}; {_UNKNOWN}")
    if fields.get(BOXES) is not None:
        check_boxes(fields[BOXES], fields.get("width"), fields.get("height"))


def _is_point(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(map(finite, value))


def check_boxes(boxes: Any, width: Any = None, height: Any = None) -> None:
    """Check boxes: finite, not empty or inverted, and within the image as far as its size is known.

    Args:
        boxes: a list of ``[label, x, y, width, height]``.
        width, height: of the image in pixels; anything that is no number is taken as not known.

    Raises:
        ValueError: one isn't so.
    """
    if not isinstance(boxes, (list, tuple)):
        raise ValueError(f"{BOXES} must be a list of boxes, got {shown(boxes)}")  # noqa: TRY004
    across, down = (_side(side) for side in (width, height))
    for box in boxes:
        if not (isinstance(box, (list, tuple)) and len(box) == 5 and all(map(finite, box[1:]))):
            raise ValueError(f"a box is [label, x, y, width, height], got {shown(box)}; its numbers must be finite")
        label, x, y, w, h = box
        inside = min(x, y) >= -SLACK and x + w <= across + SLACK and y + h <= down + SLACK
        if not inside or min(w, h) <= 0:
            limits = "the image" if float("inf") in (across, down) else f"{width} x {height} pixels"
            raise ValueError(f"box {shown(label)} {shown([x, y, w, h])} is empty or not within {limits}")


def _side(value: Any) -> float:
    """A side of the image in pixels; infinite where it isn't known."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return float("inf")
    return number if number > 0 else float("inf")
