"""Finds the images of a data set: a folder searched recursively, or a manifest (CSV or MONAI datalist JSON).

Items are dictionaries in MONAI's form, ``{"image": absolute path, ...}``, with the manifest's other columns beside it.
Any CSV with a column ``image`` will do; what the columns of :mod:`cxw_monai.data.schema` mean is understood.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from cxw_monai.io.files.json_files import read_json
from cxw_monai.io.files.printable import shown
from cxw_monai.io.results.folders import is_result_folder

from .cells import cell_types, cell_values, check_fields, checked_columns
from .schema import SPLITS, UNASSIGNED
from .tables import csv_rows

__all__ = ["IMAGE_EXTENSIONS", "find_images", "load_items", "read_datalist", "split_by_patient"]

IMAGE_EXTENSIONS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom", ".nii", ".nii.gz", ".nrrd")
"""Extensions that :func:`find_images` takes, in any case."""

ALL_SECTIONS = "all"
"""As a ``section``: every image of a manifest, whatever its split."""

_MASK_FOLDER = "masks"
_MASK_PREFIX = "mask_"
_TYPED_PREFIXES = ("label_", "landmark_", "bbox_xywh")
_SHOWN = 5  # missing files, or fields, named in an error
_LONGEST = 300  # characters of a path in an error

_logger = logging.getLogger(__name__)


def find_images(folder: str | PathLike[str]) -> list[dict[str, Any]]:
    """Search a folder and everything below it for radiographs.

    Taken: files with one of :data:`IMAGE_EXTENSIONS` (any case), and files without an extension (or named by a UID,
    whose last part is a number) that carry DICOM's ``DICM`` mark. Left out: hidden files and folders (a leading dot),
    folders named ``masks``, and folders that hold results of this package
    (:mod:`cxw_monai.io.results.folders`); one line in the log counts these. Links to folders are followed, each
    folder once.

    Args:
        folder: where to search.

    Returns:
        ``{"image": absolute path}`` per file, sorted by the path below ``folder``.

    Raises:
        ValueError: ``folder`` isn't a folder.
    """
    root = Path(os.path.abspath(folder))
    if not root.is_dir():
        raise ValueError(f"{folder}: not a folder; give the folder that holds the radiographs")
    left_out: list[str] = []
    found = [path for path in _walk(root, left_out) if _is_image(path)]
    if left_out:
        named = ", ".join(repr(os.path.relpath(path, root)) for path in left_out[:_SHOWN])
        more = ", ..." if len(left_out) > _SHOWN else ""
        _logger.warning("%s: left out %d folders of masks or results, no films: %s%s", root, len(left_out), named, more)
    if is_result_folder(root):
        _logger.warning("%s: holds results of cxw_monai; pictures among them are taken for films", root)
    found.sort(key=lambda path: path.relative_to(root).as_posix())
    return [{"image": str(path)} for path in found]


def _walk(root: Path, left_out: list[str]) -> Iterator[Path]:
    """Every file below ``root`` that isn't hidden, a mask or a result; folders of these are added to ``left_out``."""
    seen: set[str] = set()
    for parent, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        if Path(parent) != root and (os.path.basename(parent).lower() == _MASK_FOLDER or is_result_folder(parent)):
            left_out.append(parent)
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in files if not name.startswith("."))


def _is_image(path: Path) -> bool:
    """By extension or, without one, by DICOM's mark."""
    if path.name.lower().endswith(IMAGE_EXTENSIONS):
        return True
    extension = path.suffix[1:]
    if (extension and not extension.isdigit()) or not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def read_datalist(
    path: str | PathLike[str], base_dir: str | PathLike[str] | None = None, section: str | None = None
) -> list[dict[str, Any]]:
    """Read a manifest.

    - CSV with a header: the column ``image`` and any others, kept as strings, empty cells as None. Columns ``label_*``,
      ``landmark_*`` and ``bbox_xywh`` become numbers and lists, as they are in a JSON.
    - JSON: a list of items, or MONAI's datalist, a dictionary of such lists. An item is a dictionary with ``image`` or
      a bare path; its other fields are kept as they are.

    In the whole file each film is listed once and each patient is in one split; numbers are finite, and boxes lie in
    their images.

    Args:
        path: the manifest, ``.csv`` or ``.json``.
        base_dir: what relative paths of images and masks are relative to; the manifest's folder by default.
        section: which list of a JSON dictionary, or which ``split`` of a CSV, to take; ``"all"`` for all of them. None
            takes a dictionary's ``training`` and all rows of a CSV. A bare list, and a CSV without splits, have only
            one section.

    Returns:
        The items in the manifest's order, ``image`` and ``mask_*`` made absolute.

    Raises:
        ValueError: the manifest is malformed; the message names the file and the row or section.
        FileNotFoundError: the manifest, or images that it lists, don't exist; the first few are named.
    """
    manifest = Path(os.path.abspath(path))
    if not manifest.is_file():
        raise FileNotFoundError(f"{path}: no such manifest; give a .csv or .json file")
    extension = manifest.suffix.lower()
    if extension not in (".csv", ".json"):
        raise ValueError(f"{path}: a manifest is a .csv or .json file, not {extension or 'one without extension'}")
    base = Path(os.path.abspath(base_dir)) if base_dir is not None else manifest.parent
    rows = _csv_rows(manifest) if extension == ".csv" else _json_rows(manifest, section)
    for row in rows:
        _set_paths(manifest, row, base)
    _refuse_contradictions(manifest, rows)
    chosen = _of_split(manifest, rows, section) if extension == ".csv" else [row for row in rows if row.wanted]
    items = [row.fields for row in chosen]
    missing = [item["image"] for item in items if not os.path.isfile(item["image"])]
    if missing:
        named = ", ".join(map(_named, missing[:_SHOWN])) + (", ..." if len(missing) > _SHOWN else "")
        raise FileNotFoundError(
            f"{path}: {len(missing)} of {len(items)} images don't exist ({named}); relative paths are taken from {base}"
        )
    return items


class _Row(NamedTuple):
    """An item of a manifest, and where in the file it is."""

    where: str
    fields: dict[str, Any]
    split: str | None
    wanted: bool = True


def _named(path: str) -> str:
    """A path for an error: blanks at its ends and control characters are seen, and it isn't of any length."""
    plain = path.isprintable() and len(path) < _LONGEST and all(part == part.strip() for part in path.split(os.sep))
    return path if plain else shown(path)


def _csv_rows(manifest: Path) -> list[_Row]:
    """All rows of a CSV."""
    rows: list[_Row] = []
    types = checked = None
    for where, columns, cells in csv_rows(manifest, ("image",)):
        if types is None:
            types = cell_types([name if name.startswith(_TYPED_PREFIXES) else "" for name in columns])
            checked = checked_columns(columns)
        try:
            fields = dict(zip(columns, cell_values(columns, types, cells), strict=True))
            if checked:
                check_fields(fields, numbers=())
        except ValueError as error:
            raise ValueError(f"{manifest}, {where}: {error}") from None
        rows.append(_Row(where, fields, fields.get("split")))
    return rows


def _set_paths(manifest: Path, row: _Row, base: Path) -> None:
    """Make the paths of image and masks absolute."""
    image = row.fields.get("image")
    if row.wanted and (not isinstance(image, str) or not image or "\0" in image):
        raise ValueError(f"{manifest}, {row.where}: 'image' must be a path, got {shown(image)}")
    for name, value in row.fields.items():
        if isinstance(value, str) and (name == "image" or name.startswith(_MASK_PREFIX)):
            row.fields[name] = os.path.abspath(os.path.join(base, value))


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
        first = seen.setdefault(image, row) if isinstance(image, str) else row
        names = dict.fromkeys((*first.fields, *row.fields))
        other = [name for name in names if _must_agree(name) and first.fields.get(name) != row.fields.get(name)]
        other += ["split"] if first.split != row.split else []
        if other:
            raise ValueError(
                f"{manifest}, {row.where}: the film {_named(image)} is listed in {first.where} already with another "
                f"{', '.join(shown(name)[1:-1] for name in other[:_SHOWN])}; list each film once"
            )


def _must_agree(name: str) -> bool:
    """Whether two rows of one film must agree on a column. A table of findings may list a film once for each."""
    return name == "patient_id" or name.startswith(("label_", _MASK_PREFIX))


def _of_split(manifest: Path, rows: list[_Row], section: str | None) -> list[_Row]:
    """The rows of one split; all where none is asked for, or no row has one."""
    found = {row.split for row in rows if row.split}
    if section is None and len(found) > 1:
        _logger.warning("%s: rows of all splits are taken (%s)", manifest, ", ".join(sorted(found)))
    if not found or section in (None, ALL_SECTIONS):
        return rows
    if section not in found:
        raise ValueError(f"{manifest}: no split {section!r} among {shown(sorted(found))}")
    return [row for row in rows if row.split == section]


def _json_rows(manifest: Path, section: str | None) -> list[_Row]:
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
        if not isinstance(items, list):
            raise ValueError(f"{manifest}: expected a list of items, got {type(items).__name__}")  # noqa: TRY004
        split = name if name in SPLITS else None
        for number, item in enumerate(items):
            where = f"item {count}" if name in wanted else f"{name}[{number}]"
            count += name in wanted
            rows += _json_row(manifest, where, item, split, name in wanted)
    return rows


def _json_row(manifest: Path, where: str, item: Any, split: str | None, wanted: bool) -> list[_Row]:
    """The row of an item; none of one in another section that can't be understood."""
    fields = {"image": item} if isinstance(item, str) else item
    if not isinstance(fields, dict):
        if not wanted:
            return []
        kind = type(item).__name__
        raise ValueError(f"{manifest}, {where}: expected a dictionary or a path, got {kind}")  # noqa: TRY004
    said = fields.get("split")
    if wanted:
        try:
            check_fields(fields, numbers=())
        except ValueError as error:
            raise ValueError(f"{manifest}, {where}: {error}") from None
        if split and said not in (None, "", split):
            raise ValueError(
                f"{manifest}, {where}: its split is {shown(said)}, in the list {split!r}; mend one of them"
            )
    return [_Row(where, fields, split or (said if isinstance(said, str) else None), wanted)]


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
    if not dataset_dir and not datalist:
        raise ValueError("no data set: give dataset_dir (a folder) or datalist (a .csv or .json manifest)")
    if dataset_dir and datalist:
        raise ValueError(f"two data sets: dataset_dir={dataset_dir} and datalist={datalist}; give only one")
    items = find_images(dataset_dir) if dataset_dir else read_datalist(datalist, section=section)
    if not items:
        detail = f"no file with {', '.join(IMAGE_EXTENSIONS)} and no DICOM" if dataset_dir else "no rows"
        raise ValueError(f"{dataset_dir or datalist}: the data set is empty ({detail})")
    return items


def split_by_patient(
    items: Sequence[dict[str, Any]], fraction: float = 0.1, seed: int = 0
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Hold out a share of the patients.

    A patient is an item's ``patient_id`` or, where there is none, its image file (by its path below the folder that
    all images share, so that a moved data set splits the same way). Patients are ranked by a hash of the seed and
    themselves: which side they fall on doesn't depend on the order of ``items``.

    Args:
        items: the data set.
        fraction: share of the patients to hold out, in (0, 1); at least one patient stays on either side.
        seed: another seed, another split.

    Returns:
        ``(train, held_out)``, both in the order of ``items``.

    Raises:
        ValueError: ``fraction`` is out of range, or there are fewer than two patients.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must lie in (0, 1), got {fraction}")
    folders = {os.path.dirname(item["image"]) for item in items}
    shared = os.path.commonpath(folders) if folders else ""
    groups = [_group(item, shared) for item in items]
    if all(kind == "file" for kind, _ in groups):
        _logger.warning(
            "No image has a patient_id: films are held out singly, and a patient may be on both sides. Give a datalist "
            "with a column patient_id for a split by patient."
        )
    ranked = _ranked(set(groups), seed)
    if len(ranked) < 2:
        raise ValueError(
            f"cannot hold out patients: {len(items)} images of {len(ranked)} patients; give images of two or more"
        )
    held = set(ranked[: min(max(round(fraction * len(ranked)), 1), len(ranked) - 1)])
    train = [item for item, group in zip(items, groups, strict=True) if group not in held]
    held_out = [item for item, group in zip(items, groups, strict=True) if group in held]
    return train, held_out


def _group(item: dict[str, Any], shared: str) -> tuple[str, str]:
    """What must stay on one side of a split."""
    patient = item.get("patient_id")
    if patient is not None and str(patient) != "":
        return "patient", str(patient)
    return "file", Path(os.path.relpath(item["image"], shared)).as_posix()


def _ranked(groups: Iterable[tuple[str, str]], seed: int) -> list[tuple[str, str]]:
    """Groups in a fixed pseudo-random order: that of the SHA-256 of `[seed, kind, name]` as JSON."""
    starts = {kind: json.dumps([seed, kind])[:-1] for kind in ("patient", "file")}

    def key(group: tuple[str, str]) -> tuple[bytes, tuple[str, str]]:
        kind, name = group
        return hashlib.sha256(f"{starts[kind]}, {json.dumps(name)}]".encode()).digest(), group

    return sorted(groups, key=key)
