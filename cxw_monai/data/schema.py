"""What a manifest's columns may be: one record per image, as CSV or as MONAI datalist JSON.

Both forms hold the same flat fields. A CSV has a column per field; a JSON has an item per image, in the lists
``training``, ``validation``, ``test`` (and ``unassigned``, for records without a split) of one dictionary, beside the
set's ``name`` and the names of its ``labels``, ``masks`` and ``landmarks``. :mod:`cxw_monai.data.manifest` reads and
writes them.

====================  ===============================================================================================
field                 what
====================  ===============================================================================================
``image``             path, absolute or relative to the manifest's folder; the only field that must be there
``patient_id``        text; what must not be on two sides of a split
``study``             text; one examination of a patient
``view``              ``PA``, ``AP``, ``LAT``, or the source's own word where it is none of these
``sex``               ``M``, ``F`` or ``O``
``age``               years
``split``             ``training``, ``validation`` or ``test``
``width, height``     of the stored image, in pixels
``label_<name>``      a number: 1 present, 0 absent; or a measurement, its unit in the name (``bone_age_months``)
``bbox_xywh``         a list of ``[label, x, y, width, height]`` in pixels of the stored image, x to the right; the
                      whole image is 0, 0, width, height
``mask_<structure>``  path of a PNG, 0 or 255, of exactly the image's size
``finding_mask_<f>``  the same for a finding
``landmark_<name>``   ``[x, y]`` (column, row) in pixels of the stored image; the centre of the first pixel is 0, 0
``pixel_spacing_mm``  of the stored image's square pixels, where the file itself declares none
any other             kept as text
====================  ===============================================================================================

An empty cell (null in JSON) means "not known": an empty label is not a 0, an empty ``bbox_xywh`` is not ``[]`` ("looked
for, none found"). In a CSV, lists are written as JSON, and a text that a spreadsheet would take for a formula has an
apostrophe in front (:mod:`cxw_monai.io.files.csv_files`). Left and right are the patient's.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from cxw_monai._moved import old_names
from cxw_monai.io.files.csv_files import unguarded
from cxw_monai.io.files.json_files import parse_json
from cxw_monai.io.files.printable import shown

__all__ = [
    *(
        "BOXES",
        "FINDING_MASK",
        "LABEL",
        "LANDMARK",
        "MASK",
        "NUMBERS",
        "SLACK",
        "SPLITS",
        "UNASSIGNED",
        "Box",
        "Record",
        "stored_spacing",
    ),
    *("check_boxes", "check_fields", "columns_of", "fields_of", "finite", "record_of", "row_parser"),
]

SPLITS = ("training", "validation", "test")
"""The splits, and the lists of a datalist JSON."""

UNASSIGNED = "unassigned"
"""The list of a datalist JSON that holds the records without a split."""

BOXES = "bbox_xywh"
LABEL, MASK, LANDMARK = "label_", "mask_", "landmark_"
FINDING_MASK = "finding_mask_"

NUMBERS = ("age", "width", "height")
"""Columns of numbers, beside the labels."""

SLACK = 1.0
"""Pixels that a box may lie outside its image: published coordinates are rounded, and often scaled."""

_TEXT = ("image", "patient_id", "study", "view", "sex", "split")
_FIXED = ("image", "patient_id", "study", "view", "sex", "age", "split", "width", "height")
_WORDS = ("view", "sex", "split")
_PREFIXES = {LABEL: "labels", MASK: "masks", LANDMARK: "landmarks"}
_UNKNOWN = "leave it empty (JSON: null) where it isn't known"


class Box(NamedTuple):
    """A labelled rectangle, in pixels of the stored image; ``x, y`` is its upper left corner."""

    label: str
    x: float
    y: float
    width: float
    height: float


@dataclass(slots=True)
class Record:
    """What is known of one image; the fields are the manifest's (see the module), None or absent where not known.

    Attributes:
        labels: value by name, without the column's prefix.
        boxes: None where nobody looked, empty where nothing was found.
        masks: path by structure.
        landmarks: ``(x, y)`` by name.
        extra: any other column.
    """

    image: str
    patient_id: str | None = None
    study: str | None = None
    view: str | None = None
    sex: str | None = None
    age: float | None = None
    split: str | None = None
    width: int | None = None
    height: int | None = None
    labels: dict[str, float] = field(default_factory=dict)
    boxes: list[Box] | None = None
    masks: dict[str, str] = field(default_factory=dict)
    landmarks: dict[str, tuple[float, float]] = field(default_factory=dict)
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the stored image in pixels.

        Raises:
            ValueError: they aren't known.
        """
        if self.width is None or self.height is None:
            raise ValueError(f"{self.image}: its width and height aren't known")
        return self.width, self.height


def row_parser(columns: Sequence[str], numbers: Sequence[str] = NUMBERS) -> Callable[[Sequence[str]], dict[str, Any]]:
    """What turns the texts of a CSV's row into its fields, checked.

    Args:
        columns: of the CSV.
        numbers: which of the plain columns are numbers; the others stay text.

    Returns:
        A function of a row's cells, as they stand in the file. It gives a number for ``numbers`` and labels, a list for
        boxes and landmarks, else the text; None for an empty cell. It raises ValueError for a cell that isn't what
        its column says; the message names the column.
    """
    types = [_cell_type(column, numbers) for column in columns]
    listed = any(column == BOXES or column.startswith(LANDMARK) for column in columns)

    def parse(cells: Sequence[str]) -> dict[str, Any]:
        texts = [unguarded(cell) for cell in cells]
        try:
            values = [kind(text) if text else None for kind, text in zip(types, texts, strict=True)]
        except ValueError:
            raise _cell_error(columns, types, texts) from None
        fields = dict(zip(columns, values, strict=True))
        if listed:
            check_fields(fields, numbers=())  # numbers are numbers by now
        return fields

    return parse


def _cell_type(column: str, numbers: Sequence[str]) -> Callable[[str], Any]:
    if column in numbers or column.startswith(LABEL):
        return _number
    if column == BOXES or column.startswith(LANDMARK):
        return parse_json
    return sys.intern if column in _WORDS else str  # a million rows, a few words


@lru_cache(maxsize=4096)
def _number(cell: str) -> float:
    """An int where the text is whole, else a float."""
    value = float(cell)
    if not finite(value):
        raise ValueError(cell)
    return _plain(value)


def _cell_error(columns: Sequence[str], types: Sequence[Callable[[str], Any]], texts: Sequence[str]) -> ValueError:
    """What is wrong with the first cell that can't be read."""
    for column, kind, text in zip(columns, types, texts, strict=True):
        try:
            kind(text or "0")
        except ValueError as error:
            why = "no finite number" if kind is _number else str(error)
            wanted = "1 is present, 0 absent; " if column.startswith(LABEL) else ""
            return ValueError(f"column {shown(column)[1:-1]}: cannot read {shown(text)} ({why}; {wanted}{_UNKNOWN})")
    raise AssertionError("all cells can be read")


def check_fields(fields: Mapping[str, Any], numbers: Sequence[str] = NUMBERS) -> None:
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
        if (name.startswith(LABEL) or name in numbers) and not finite(value):
            raise ValueError(f"{shown(name)[1:-1]} must be a finite number, got {shown(value)}; {_UNKNOWN}")
        if name.startswith(LANDMARK) and not _is_point(value):
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
            limits = "the image" if math.inf in (across, down) else f"{width} x {height} pixels"
            raise ValueError(f"box {shown(label)} {shown([x, y, w, h])} is empty or not within {limits}")


def _side(value: Any) -> float:
    """A side of the image in pixels; infinite where it isn't known."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return math.inf
    return number if number > 0 else math.inf


def finite(value: Any) -> bool:
    """Whether a value is a number, neither NaN nor infinite (and not too large for a float)."""
    try:
        return isinstance(value, (int, float)) and math.isfinite(value)
    except OverflowError:
        return False


def _plain(value: Any) -> Any:
    """One text per number: 57, not 57.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


@lru_cache(maxsize=64)
def _plan(columns: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Per column: the record's attribute that it fills, and the name in it ("" for a plain attribute)."""
    plan = []
    for column in columns:
        prefix = next((p for p in _PREFIXES if column.startswith(p) and len(column) > len(p)), "")
        if prefix:
            plan.append((_PREFIXES[prefix], column[len(prefix) :]))
        elif column in _FIXED:
            plan.append((column, ""))
        else:
            plan.append(("boxes", "") if column == BOXES else ("extra", column))
    return tuple(plan)


def record_of(fields: Mapping[str, Any]) -> Record:
    """The record of typed and checked fields.

    Raises:
        ValueError: ``image`` isn't a path.
    """
    record = Record(image="")
    for (attribute, name), value in zip(_plan(tuple(fields)), fields.values(), strict=True):
        if value is None:
            continue
        if name:
            getattr(record, attribute)[name] = value if attribute != "landmarks" else tuple(value)
        elif attribute == "boxes":
            record.boxes = [Box(str(label), *numbers) for label, *numbers in value]
        else:
            setattr(record, attribute, str(value) if attribute in _TEXT else value)
    if not record.image or "\0" in record.image:
        raise ValueError(f"'image' must be a path, got {shown(record.image) if record.image else 'nothing'}")
    return record


def columns_of(records: Sequence[Record]) -> list[str]:
    """The columns of a manifest of these records: the fixed ones in their order, then the others as first met."""

    def names(attribute: str, prefix: str = "") -> list[str]:
        return list(dict.fromkeys(f"{prefix}{name}" for record in records for name in getattr(record, attribute)))

    columns = [name for name in _FIXED if any(getattr(record, name) not in (None, "") for record in records)]
    columns += names("labels", LABEL)
    columns += [BOXES] if any(record.boxes is not None for record in records) else []
    return columns + names("masks", MASK) + names("landmarks", LANDMARK) + names("extra")


def fields_of(record: Record, columns: Sequence[str]) -> dict[str, Any]:
    """The record's value by column, as JSON keeps it; None where not known."""
    fields = {}
    for column, (attribute, name) in zip(columns, _plan(tuple(columns)), strict=True):
        value = getattr(record, attribute)
        if name:
            value = value.get(name)
        elif attribute == "boxes" and value is not None:
            value = [[label, *map(_plain, numbers)] for label, *numbers in value]
        if attribute == "landmarks" and value is not None:
            value = [*map(_plain, value)]
        fields[column] = _plain(value) if value != "" else None
    return fields


def stored_spacing(item: Mapping[str, Any]) -> tuple[float, float] | None:
    """Row and column spacing in mm of the stored image by its field `pixel_spacing_mm`; None where that is empty.

    Raises:
        ValueError: it is no number above 0.
    """
    cell = item.get("pixel_spacing_mm")
    if cell in (None, ""):
        return None
    try:
        value = float(str(cell))
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise ValueError(
            f"{item['image']}: pixel_spacing_mm is {cell!r}; give mm per px, a number above 0, or nothing."
        )
    return value, value


__getattr__ = old_names(__name__, {"read_records": "cxw_monai.data.manifest:read_records"})
