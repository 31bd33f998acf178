"""The manifest: one record an image, as CSV or as MONAI datalist JSON.

Both forms hold the same flat fields. A CSV has a column a field; a JSON has an item an image, in the lists
``training``, ``validation``, ``test`` (and ``unassigned``, for records without a split) of one dictionary, beside the
set's ``name`` and the names of its ``labels``, ``masks`` and ``landmarks``.

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
``landmark_<name>``   ``[x, y]`` (column, row) in pixels of the stored image; the centre of the first pixel is 0, 0
any other             kept as text
====================  ===============================================================================================

An empty cell (null in JSON) means "not known": an empty label is not a 0, an empty ``bbox_xywh`` is not ``[]`` ("looked
for, none found"). In a CSV, lists are written as JSON, and a text that a spreadsheet would take for a formula has an
apostrophe in front (:mod:`cxw_monai.io.files.csv_files`). Left and right are the patient's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.files.csv_files import CsvWriter
from cxw_monai.io.files.json_files import read_json
from cxw_monai.io.files.printable import shown
from cxw_monai.io.formats.pictures import refuse_unless_file

from .cells import BOXES, cell_types, cell_values, check_fields, checked_columns, plain
from .tables import csv_rows

__all__ = ["SPLITS", "UNASSIGNED", "Box", "Record", "read_records", "write_csv", "write_datalist"]

SPLITS = ("training", "validation", "test")
"""The splits, and the lists of a datalist JSON."""

UNASSIGNED = "unassigned"
"""The list of a datalist JSON that holds the records without a split."""

_TEXT = ("image", "patient_id", "study", "view", "sex", "split")
_FIXED = ("image", "patient_id", "study", "view", "sex", "age", "split", "width", "height")
_PREFIXES = {"label_": "labels", "mask_": "masks", "landmark_": "landmarks"}


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


def _record(columns: tuple[str, ...], values: Sequence[Any]) -> Record:
    """The record of typed and checked values."""
    record = Record(image="")
    for (attribute, name), value in zip(_plan(columns), values, strict=True):
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


def read_records(path: str | PathLike[str]) -> Iterator[Record]:
    """Read a manifest record by record; paths stay as they are written.

    A CSV is streamed. A JSON is loaded whole: prefer the CSV for a million images.

    Args:
        path: ``.csv`` or ``.json``.

    Yields:
        The records in the file's order (JSON: training, validation, test, unassigned).

    Raises:
        ValueError: the file is malformed; the message names it and the line or item.
        FileNotFoundError: there is no such file.
    """
    path = Path(path)
    if path.exists():
        refuse_unless_file(path, "manifest")
    for where, columns, values in _json_rows(path) if path.suffix.lower() == ".json" else _csv_rows(path):
        try:
            record = _record(columns, values)
        except ValueError as error:
            raise ValueError(f"{path}, {where}: {error}") from None
        yield record


def _csv_rows(path: Path) -> Iterator[tuple[str, tuple[str, ...], list[Any]]]:
    types = checked = None
    for where, columns, cells in csv_rows(path, ("image",)):
        types, checked = (cell_types(columns), checked_columns(columns)) if types is None else (types, checked)
        try:
            values = cell_values(columns, types, cells)
            if checked:
                check_fields(dict(zip(columns, values, strict=True)))
        except ValueError as error:
            raise ValueError(f"{path}, {where}: {error}") from None
        yield where, columns, values


def _json_rows(path: Path) -> Iterator[tuple[str, tuple[str, ...], list[Any]]]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a dictionary with the lists {', '.join(SPLITS)}")  # noqa: TRY004
    for section in (*SPLITS, UNASSIGNED):
        split = section if section in SPLITS else None
        items = content.get(section, [])
        if not isinstance(items, list):
            raise ValueError(f"{path}: {section} must be a list of items, got {shown(items)}")  # noqa: TRY004
        for number, item in enumerate(items):
            where = f"{section}[{number}]"
            if not isinstance(item, dict) or item.get("split") not in (None, split):
                raise ValueError(f"{path}, {where}: expected a dictionary whose split is {split!r}, got {shown(item)}")
            try:
                check_fields(item)
            except ValueError as error:
                raise ValueError(f"{path}, {where}: {error}") from None
            fields = {**item, "split": split}
            yield where, tuple(fields), list(fields.values())


def _columns(records: Sequence[Record]) -> list[str]:
    """The fields that any of the records has: the fixed ones in their order, then the others as first met."""

    def names(attribute: str, prefix: str = "") -> list[str]:
        return list(dict.fromkeys(f"{prefix}{name}" for record in records for name in getattr(record, attribute)))

    columns = [name for name in _FIXED if any(getattr(record, name) not in (None, "") for record in records)]
    columns += names("labels", "label_")
    columns += [BOXES] if any(record.boxes is not None for record in records) else []
    return columns + names("masks", "mask_") + names("landmarks", "landmark_") + names("extra")


def _in_order(records: Sequence[Record]) -> list[Record]:
    """By split, else in the order given: that of both files."""
    rank = {name: number for number, name in enumerate((*SPLITS, None))}
    return sorted(records, key=lambda record: rank.get(record.split, len(rank)))


def write_csv(path: str | PathLike[str], records: Sequence[Record]) -> None:
    """Write the CSV form, whole or not at all: training first, then validation, test, and those without a split."""
    columns = _columns(records)
    with atomic_file(path, "w", newline="", encoding="utf-8") as stream:
        writer = CsvWriter(stream)
        writer.writerow(columns)
        writer.writerows([_cell(value) for value in _values(record, columns)] for record in _in_order(records))


def _values(record: Record, columns: Sequence[str]) -> list[Any]:
    """The record's fields in the order of the columns; None where not known."""
    values = []
    for attribute, name in _plan(tuple(columns)):
        value = getattr(record, attribute)
        if name:
            value = value.get(name)
        elif attribute == "boxes" and value is not None:
            value = [[label, *map(plain, numbers)] for label, *numbers in value]
        if attribute == "landmarks" and value is not None:
            value = [*map(plain, value)]
        values.append(plain(value) if value != "" else None)
    return values


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False) if isinstance(value, list) else str(value)


def write_datalist(path: str | PathLike[str], records: Sequence[Record], name: str = "") -> None:
    """Write the JSON form, whole or not at all; every item has every field, null where it isn't known.

    Args:
        path: the ``.json``.
        records: of the data set.
        name: of the data set.
    """
    columns = _columns(records)
    about = {"name": name}
    about |= {kind: [c[len(p) :] for c in columns if c.startswith(p)] for p, kind in _PREFIXES.items()}
    lists: dict[str, list[Record]] = {section: [] for section in SPLITS}
    for record in records:
        lists.setdefault(record.split or UNASSIGNED, []).append(record)
    with atomic_file(path, "w", encoding="utf-8") as stream:
        stream.write(json.dumps(about, ensure_ascii=False, indent=1)[:-2])
        for section, members in lists.items():
            stream.write(f",\n {json.dumps(section)}: [")
            for number, record in enumerate(members):
                item = dict(zip(columns, _values(record, columns), strict=True))
                text = json.dumps(item, ensure_ascii=False)
                stream.write(("," if number else "") + "\n  " + text)
            stream.write("]")
        stream.write("\n}\n")
