"""Checks a manifest before anything is trained on it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from os import PathLike

from cxw_monai.io.files.identity import file_identity
from cxw_monai.io.files.printable import shown
from cxw_monai.io.formats.pictures import open_picture
from cxw_monai.io.radiograph import RadiographError

from .schema import SLACK, SPLITS, Record, check_boxes, finite

__all__ = ["validate"]

_SHOWN = 5  # problems named in an error
_OLDEST = 125  # years
_LONGEST = 200  # characters of a path in an error


def validate(
    records: Iterable[Record],
    *,
    what: str = "manifest",
    base_dir: str | PathLike[str] = "",
    check_files: bool = False,
    check_content: bool = False,
) -> None:
    """Check the records of one data set.

    Checked: every image is there once; splits are known names, and no patient is in two; sex, age and labels are
    in range (an unknown label is left out, not -1); boxes and landmarks are finite and, where the image's size is
    known, inside it.

    Args:
        records: of the whole data set; read once.
        what: what the error is to name, such as the manifest's path.
        base_dir: what relative paths are relative to.
        check_files: images and masks must exist, and masks have the image's size where that is known.
        check_content: no two images may have the same bytes; reads every file.

    Raises:
        ValueError: at least one problem; the first few are named, each with the record's number (from 1) and image.
    """
    problems: list[str] = []
    images: dict[str, int] = {}
    contents: dict[str, int] = {}
    patients: dict[str, tuple[str, int]] = {}
    count = 0
    for count, record in enumerate(records, start=1):
        found = list(_field_problems(record))
        path = os.path.normpath(os.path.join(base_dir, record.image))
        first = images.setdefault(path, count)
        if first != count:
            found.append(f"the image is in record {first} already")
        if record.patient_id and record.split:
            split, where = patients.setdefault(record.patient_id, (record.split, count))
            if split != record.split:
                found.append(f"its patient is in {record.split} here, and in {split} in record {where}")
        if check_files:
            found += _file_problems(record, path, base_dir)
        if check_content and os.path.isfile(path):
            first = contents.setdefault(file_identity(path).sha256, count)
            if first != count:
                found.append(f"the file has the same bytes as that of record {first}")
        problems += [f"record {count} ({_short_path(record.image)}): {problem}" for problem in found]
    if problems:
        first_ones = "; ".join(problems[:_SHOWN])
        more = f" (and {len(problems) - _SHOWN} more)" if len(problems) > _SHOWN else ""
        number = f"{len(problems)} problem{'s' * (len(problems) > 1)}"
        raise ValueError(f"{what}: {number} in {count} records: {first_ones}{more}")


def _short_path(path: str) -> str:
    """A path as it is shown: its end, with control characters escaped."""
    return path if len(path) <= _LONGEST and path.isprintable() else shown(path[-_LONGEST:])[1:-1]


def _field_problems(record: Record) -> Iterator[str]:
    if record.split is not None and record.split not in SPLITS:
        yield f"split must be one of {', '.join(SPLITS)} or empty, got {shown(record.split)}"
    if record.sex not in (None, "M", "F", "O"):
        yield f"sex must be M, F, O or empty, got {shown(record.sex)}"
    if record.age is not None and not 0 <= record.age <= _OLDEST:
        yield f"age must be 0 to {_OLDEST} years, got {shown(record.age)}"
    for side in ("width", "height"):
        value = getattr(record, side)
        if value is not None and (not finite(value) or value != int(value) or value < 1):
            yield f"{side} must be a whole number of pixels, got {shown(value)}"
    for name, value in record.labels.items():
        if not name or not finite(value) or value < 0:
            yield f"label {shown(name)} must be a number from 0, or left out where unknown, got {shown(value)}"
    width, height = record.width or math.inf, record.height or math.inf
    for box in record.boxes or []:
        try:
            check_boxes([box], record.width, record.height)
        except ValueError as error:
            yield str(error)
    for name, (x, y) in record.landmarks.items():
        if not (finite(x) and finite(y) and -SLACK <= x <= width and -SLACK <= y <= height):
            yield f"landmark {shown(name)} [{x}, {y}] is not within {width} x {height} pixels"


def _file_problems(record: Record, path: str, base_dir: str | PathLike[str]) -> Iterator[str]:
    if not os.path.isfile(path):
        yield "the image doesn't exist"
    for structure, relative in record.masks.items():
        mask = os.path.join(base_dir, relative)
        if not os.path.isfile(mask):
            yield f"mask {structure!r} doesn't exist ({relative})"
        elif record.width and record.height:
            size = (record.width, record.height)
            try:
                with open_picture(mask, "mask") as image:
                    found = image.size
            except RadiographError as error:
                yield f"mask {structure!r}: {error.reason}"
                continue
            if found != size:
                yield f"mask {structure!r} has the size {found}, the image {size} (width, height)"
