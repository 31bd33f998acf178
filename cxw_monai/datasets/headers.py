"""Facts from the headers of published DICOM files, without decoding a pixel."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pydicom
from pydicom.dataset import Dataset

from cxw_monai.data.schema import Record
from cxw_monai.io.formats.pictures import refuse_unless_file

from .common import Job, decoding, sex_letter, view_name, years

__all__ = ["fill_from_headers", "read_header"]

_TAGS = ["Rows", "Columns", "PatientID", "PatientSex", "PatientAge", "ViewPosition", "ViewCodeSequence"]
_VIEW_CODES = {  # DICOM PS3.16 CID 4010, SNOMED CT and, in older files, SNOMED-RT
    **dict.fromkeys(("272479007", "R-10214", "R-40888"), "PA"),
    **dict.fromkeys(("399348003", "R-10206"), "AP"),
    **dict.fromkeys(("399067008", "399173006", "399198007", "R-102CD", "R-10236", "R-10232"), "LAT"),
}
_PLAIN_VIEWS = ("PA", "AP", "LAT")


def read_header(path: str | os.PathLike[str]) -> Record:
    """Size, patient, sex, age and view of a DICOM header; None where one isn't declared, or can't be true.

    Raises:
        RadiographError: the file isn't DICOM, or has no rows and columns.
    """
    refuse_unless_file(path)
    with decoding(path, "no DICOM header with rows and columns", "copy it again from its source"):
        header = pydicom.dcmread(path, force=True, specific_tags=_TAGS, stop_before_pixels=True)
        width, height = int(header.Columns), int(header.Rows)
        if min(width, height) < 1:
            raise ValueError("no pixels")
        coded = _coded_view(header)
    return Record(
        str(path),
        patient_id=_text(header, "PatientID") or None,
        view=_agreed(view_name(_text(header, "ViewPosition")), coded),
        sex=sex_letter(_text(header, "PatientSex")),
        age=years(_text(header, "PatientAge")),
        width=width,
        height=height,
    )


def _coded_view(header: Dataset) -> str | None:
    """The view by ``ViewCodeSequence``: its code, else its meaning; None where these don't agree, or there are two."""
    sequence = header.get("ViewCodeSequence")
    if not sequence or len(sequence) > 1:
        return None
    item = sequence[0]
    code = _VIEW_CODES.get(_text(item, "CodeValue") or _text(item, "LongCodeValue"))
    meaning = view_name(_text(item, "CodeMeaning"))
    return _agreed(code, meaning if meaning in _PLAIN_VIEWS or code is None else None)


def _agreed(first: str | None, second: str | None) -> str | None:
    """What both say, or the one that says something; None where a plain view is contradicted by another one."""
    if first in _PLAIN_VIEWS and second in _PLAIN_VIEWS and first != second:
        return None
    return first or second


def _text(header: Dataset, keyword: str) -> str:
    """An element as it was written: published ages such as ``51`` break DICOM's rules, and pydicom warns of each."""
    element = header.get_item(keyword)
    value = "" if element is None or element.value is None else element.value
    return (value.decode("latin-1") if isinstance(value, bytes) else str(value)).strip(" \0")


def fill_from_headers(job: Job, records: Sequence[Record], *, patients: bool = False) -> list[Record]:
    """Completes records of DICOM images by their headers, several at a time: size, and what isn't known yet of sex,
    age and view, and with ``patients`` the patient. Films without a readable header are left out.

    Raises:
        ValueError: more than half of the films are damaged.
    """
    for record, header in job.readable(records, lambda record: read_header(record.image)):
        record.width, record.height = header.width, header.height
        record.sex = record.sex or header.sex
        record.age = header.age if record.age is None else record.age
        record.view = record.view or header.view
        if patients:
            record.patient_id = header.patient_id
    kept = job.kept(records)
    job.refuse_ruin(kept)
    return kept
