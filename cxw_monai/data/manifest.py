"""Reads and writes manifests: CSV, or MONAI datalist JSON.

The one parser for every task. :func:`load_items` and :func:`read_datalist` give items in MONAI's form, ``{"image":
absolute path, ...}``, with the manifest's other columns beside it. :func:`read_records` gives typed records one by one,
their paths as written. Any CSV with a column ``image`` will do; what its columns mean is in
:mod:`cxw_monai.data.schema`.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.files.csv_files import CsvWriter
from cxw_monai.io.files.json_files import read_json
from cxw_monai.io.files.printable import shown
from cxw_monai.io.formats.pictures import refuse_unless_file

from .film_search import IMAGE_EXTENSIONS, find_images
from .schema import (
    FINDING_MASK,
    LABEL,
    LANDMARK,
    MASK,
    NUMBERS,
    SPLITS,
    UNASSIGNED,
    Record,
    check_fields,
    columns_of,
    fields_of,
    record_of,
    row_parser,
)
from .splits import split_by_patient
from .tables import csv_rows

__all__ = [
    "ALL_SECTIONS",
    "IMAGE_EXTENSIONS",
    "find_images",
    "load_items",
    "read_datalist",
    "read_records",
    "split_by_patient",
    "write_csv",
    "write_datalist",
]

ALL_SECTIONS = "all"
"""As a ``section``: every image of a manifest, whatever its split."""

_SHOWN = 5  # missing files, or fields, named in an error
_LONGEST = 300  # characters of a path in an error

_logger = logging.getLogger(__name__)


class _Row(NamedTuple):
    """An item of a manifest, and where in the file it is."""

    where: str
    fields: dict[str, Any]
    split: str | None
    wanted: bool = True


def load_items(
    dataset_dir: str | PathLike[str] | None = None,
    datalist: str | PathLike[str] | None = None,
    section: str | None = None,
) -> list[dict[str, Any]]:
    """The items of a data set given either way.

    Args:
        dataset_dir: a folder for :func:`find_images`.
        datalist: a manifest for :func:`read_datalist`.
        section: which part of the manifest (see there); a folder has only one.

    Returns:
        At least one item.

    Raises:
        ValueError: both or neither is given, or the data set is empty.
    """
    if dataset_dir and datalist:
        raise ValueError(f"two data sets: dataset_dir={dataset_dir} and datalist={datalist}; give only one")
    if dataset_dir:
        items = find_images(dataset_dir)
    elif datalist:
        items = read_datalist(datalist, section=section)
    else:
        raise ValueError("no data set: give dataset_dir (a folder) or datalist (a .csv or .json manifest)")
    if not items:
        detail = f"no file with {', '.join(IMAGE_EXTENSIONS)} and no DICOM" if dataset_dir else "no rows"
        raise ValueError(f"{dataset_dir or datalist}: the data set is empty ({detail})")
    return items


def read_datalist(path: str | PathLike[str], section: str | None = None) -> list[dict[str, Any]]:
    """Read a manifest.

    - CSV with a header: the column ``image`` and any others, kept as strings, empty cells as None. Columns ``label_*``,
      ``landmark_*`` and ``bbox_xywh`` become numbers and lists, as they are in a JSON.
    - JSON: a list of items, or MONAI's datalist, a dictionary of such lists. An item is a dictionary with ``image`` or
      a bare path; its other fields are kept as they are.

    In the whole file each film is listed once and each patient is in one split; numbers are finite, and boxes lie in
    their images.

    Args:
        path: the manifest, ``.csv`` or ``.json``; paths in it are relative to its folder.
        section: which list of a JSON dictionary, or which ``split`` of a CSV, to take; ``"all"`` for all of them. None
            takes a dictionary's ``training`` and all rows of a CSV. A bare list, and a CSV without splits, have only
            one section.

    Returns:
        The items in the manifest's order, ``image``, ``mask_*`` and ``finding_mask_*`` made absolute.

    Raises:
        ValueError: the manifest is malformed; the message names the file and the row or section.
        FileNotFoundError: the manifest, or images that it lists, don't exist; the first few are named.
    """
    manifest = Path(os.path.abspath(path))
    if not manifest.is_file():
        what = "a folder" if manifest.is_dir() else "no such manifest"
        raise FileNotFoundError(f"{path}: {what}; give a .csv or .json file that lists the films")
    extension = manifest.suffix.lower()
    if extension not in (".csv", ".json"):
        raise ValueError(f"{path}: a manifest is a .csv or .json file, not {extension or 'one without extension'}")
    rows = list(_csv_rows(manifest, ())) if extension == ".csv" else _datalist_rows(manifest, section)
    for row in rows:
        _set_paths(manifest, row)
    _refuse_contradictions(manifest, rows)
    chosen = _of_split(manifest, rows, section) if extension == ".csv" else [row for row in rows if row.wanted]
    items = [row.fields for row in chosen]
    missing = [item["image"] for item in items if not os.path.isfile(item["image"])]
    if missing:
        named = ", ".join(map(_named, missing[:_SHOWN])) + (", ..." if len(missing) > _SHOWN else "")
        slashes = "write / for the backslashes, and " if os.sep == "/" and "\\" in missing[0] else ""
        raise FileNotFoundError(
            f"{path}: {len(missing)} of {len(items)} images don't exist ({named}); {slashes}"
            f"relative paths are taken from {manifest.parent}"
        )
    return items


def read_records(path: str | PathLike[str]) -> Iterator[Record]:
    """Read a manifest record by record; paths stay as they are written.

    A ``.csv`` is streamed. A ``.json`` is loaded whole: prefer the CSV for a million images.

    Yields:
        The records in the file's order (JSON: training, validation, test, unassigned).

    Raises:
        ValueError: the file is malformed; the message names it and the line or item.
        FileNotFoundError: there is no such file.
    """
    path = Path(path)
    if path.exists():
        refuse_unless_file(path, "manifest")
    for row in _json_rows(path) if path.suffix.lower() == ".json" else _csv_rows(path, NUMBERS):
        try:
            record = record_of(row.fields)
        except ValueError as error:
            raise _at(path, row.where, error) from None
        yield record


def _at(path: Path, where: str, error: ValueError) -> ValueError:
    return ValueError(f"{path}, {where}: {error}")


def _named(path: str) -> str:
    """A path for an error: blanks at its ends and control characters are seen, and it isn't of any length."""
    plain = path.isprintable() and len(path) < _LONGEST and all(part == part.strip() for part in path.split(os.sep))
    return path if plain else shown(path)


def _csv_rows(path: Path, numbers: Sequence[str]) -> Iterator[_Row]:
    """The rows of a CSV, read as :func:`~cxw_monai.data.schema.row_parser` says."""
    parse = None
    for where, columns, cells in csv_rows(path, ("image",)):
        parse = parse or row_parser(columns, numbers)
        try:
            fields = parse(cells)
        except ValueError as error:
            raise _at(path, where, error) from None
        yield _Row(where, fields, fields.get("split"))


def _json_rows(path: Path) -> Iterator[_Row]:
    """The items of all lists of the JSON form, each field checked."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a dictionary with the lists {', '.join(SPLITS)}")  # noqa: TRY004
    for section in (*SPLITS, UNASSIGNED):
        split = section if section in SPLITS else None
        for number, item in enumerate(_list(path, content.get(section, []), section)):
            where = f"{section}[{number}]"
            if not isinstance(item, dict) or item.get("split") not in (None, split):
                raise ValueError(f"{path}, {where}: expected a dictionary whose split is {split!r}, got {shown(item)}")
            _check(path, where, item, NUMBERS)
            yield _Row(where, {**item, "split": split}, split)


def _list(path: Path, items: Any, section: str) -> list[Any]:
    if not isinstance(items, list):
        raise ValueError(f"{path}: {section or 'the file'} must be a list of items, got {shown(items)}")  # noqa: TRY004
    return items


def _check(path: Path, where: str, fields: dict[str, Any], numbers: Sequence[str]) -> None:
    try:
        check_fields(fields, numbers)
    except ValueError as error:
        raise _at(path, where, error) from None


def _datalist_rows(manifest: Path, section: str | None) -> list[_Row]:
    """The items of a section, and (not wanted) those of the other splits."""
    content = read_json(manifest)
    lists = {"": content}
    wanted: tuple[str, ...] = ("",)
    if isinstance(content, dict):
        wanted = (section or "training",)
        if section == ALL_SECTIONS:
            wanted = tuple(name for name in (*SPLITS, UNASSIGNED) if name in content)
        if not wanted or wanted[0] not in content:
            raise ValueError(f"{manifest}: no section {(wanted or (section,))[0]!r} among {shown(sorted(content))}")
        others = tuple(name for name in SPLITS if name not in wanted and isinstance(content.get(name), list))
        lists = {name: content[name] for name in (*wanted, *others)}
    rows: list[_Row] = []
    count = 0
    for name, items in lists.items():
        for number, item in enumerate(_list(manifest, items, name)):
            where = f"item {count}" if name in wanted else f"{name}[{number}]"
            count += name in wanted
            rows += _datalist_row(manifest, where, item, name if name in SPLITS else None, name in wanted)
    return rows


def _datalist_row(manifest: Path, where: str, item: Any, split: str | None, wanted: bool) -> list[_Row]:
    """The row of an item; none of one in another section that can't be understood."""
    fields = {"image": item} if isinstance(item, str) else item
    if not isinstance(fields, dict):
        if not wanted:
            return []
        kind = type(item).__name__
        raise ValueError(f"{manifest}, {where}: expected a dictionary or a path, got {kind}")  # noqa: TRY004
    said = fields.get("split")
    if wanted:
        _check(manifest, where, fields, ())
        if split and said not in (None, "", split):
            raise ValueError(
                f"{manifest}, {where}: its split is {shown(said)}, in the list {split!r}; correct one of them"
            )
    return [_Row(where, fields, split or (said if isinstance(said, str) else None), wanted)]


def _set_paths(manifest: Path, row: _Row) -> None:
    """Make the paths of image and masks absolute."""
    image = row.fields.get("image")
    if row.wanted and (not isinstance(image, str) or not image or "\0" in image):
        raise ValueError(f"{manifest}, {row.where}: 'image' must be a path, got {shown(image)}")
    for name, value in row.fields.items():
        if isinstance(value, str) and (name == "image" or name.startswith((MASK, FINDING_MASK))):
            row.fields[name] = os.path.abspath(os.path.join(manifest.parent, value))


def _refuse_contradictions(manifest: Path, rows: Sequence[_Row]) -> None:
    """Refuse a film with two labels or splits, and a patient in two splits, in the whole file."""
    splits: dict[str, tuple[str, str]] = {}
    for where, fields, split, _ in rows:
        patient = fields.get("patient_id")
        if split in SPLITS and patient not in (None, ""):
            first, before = splits.setdefault(str(patient), (split, where))
            if first != split:
                raise ValueError(
                    f"{manifest}, {where}: a patient is in two splits, {split} here and {first} in {before}; "
                    "put all of a patient's films into one"
                )
    images = [row.fields["image"] for row in rows if isinstance(row.fields.get("image"), str)]
    if len(set(images)) == len(images):
        return
    seen: dict[str, _Row] = {}
    for row in rows:
        image = row.fields.get("image")
        if not isinstance(image, str):
            continue
        earlier = seen.setdefault(image, row)
        names = dict.fromkeys((*earlier.fields, *row.fields))
        other = [name for name in names if _must_agree(name) and earlier.fields.get(name) != row.fields.get(name)]
        other += ["split"] if earlier.split != row.split else []
        if other:
            raise ValueError(
                f"{manifest}, {row.where}: the film {_named(image)} is listed in {earlier.where} already with another "
                f"{', '.join(shown(name)[1:-1] for name in other[:_SHOWN])}; list each film once"
            )


def _must_agree(name: str) -> bool:
    """Whether two rows of one film must agree on a column. A table of findings may list a film once for each."""
    return name == "patient_id" or name.startswith((LABEL, MASK))


def _of_split(manifest: Path, rows: list[_Row], section: str | None) -> list[_Row]:
    """The rows of one split; all where none is given, or no row has one."""
    found = {row.split for row in rows if row.split}
    if section is None and len(found) > 1:
        _logger.warning("%s: rows of all splits are taken (%s)", manifest, ", ".join(sorted(found)))
    if not found or section in (None, ALL_SECTIONS):
        return rows
    if section not in found:
        raise ValueError(f"{manifest}: no split {section!r} among {shown(sorted(found))}")
    return [row for row in rows if row.split == section]


def write_csv(path: str | PathLike[str], records: Sequence[Record]) -> None:
    """Write the CSV form, whole or not at all: training first, then validation, test, and those without a split."""
    columns = columns_of(records)
    rank = {name: number for number, name in enumerate(SPLITS)}
    ordered = sorted(records, key=lambda record: rank.get(record.split or "", len(rank)))
    with atomic_file(path, "w", newline="", encoding="utf-8") as stream:
        writer = CsvWriter(stream)
        writer.writerow(columns)
        writer.writerows([_cell(value) for value in fields_of(record, columns).values()] for record in ordered)


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False) if isinstance(value, list) else str(value)


def write_datalist(path: str | PathLike[str], records: Sequence[Record], name: str = "") -> None:
    """Write the JSON form, whole or not at all; every item has every field, null where it isn't known."""
    columns = columns_of(records)
    about: dict[str, Any] = {"name": name}
    for kind, prefix in (("labels", LABEL), ("masks", MASK), ("landmarks", LANDMARK)):
        about[kind] = [column.removeprefix(prefix) for column in columns if column.startswith(prefix)]
    lists: dict[str, list[Record]] = {section: [] for section in SPLITS}
    for record in records:
        lists.setdefault(record.split or UNASSIGNED, []).append(record)
    with atomic_file(path, "w", encoding="utf-8") as stream:
        stream.write(json.dumps(about, ensure_ascii=False, indent=1)[:-2])
        for section, members in lists.items():
            lines = (json.dumps(fields_of(record, columns), ensure_ascii=False) for record in members)
            stream.write(f",\n {json.dumps(section)}: [")
            stream.writelines(("," if number else "") + "\n  " + line for number, line in enumerate(lines))
            stream.write("]")
        stream.write("\n}\n")
