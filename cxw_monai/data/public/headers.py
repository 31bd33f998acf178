"""Facts from the headers of published DICOM files, without decoding a pixel."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pydicom
from pydicom.dataset import Dataset
from tqdm import tqdm

from cxw_monai.data.schema import Record
from cxw_monai.io.image import RadiographError

from .common import Job, view_name, years

__all__ = ["DicomHeader", "fill_from_headers", "read_header"]

_TAGS = ["Rows", "Columns", "PatientID", "PatientSex", "PatientAge", "ViewPosition"]


@dataclass(frozen=True)
class DicomHeader:
    """What the preparers use of a header; None where it isn't declared, or can't be true."""

    width: int
    height: int
    patient_id: str | None
    sex: str | None
    age: float | None
    view: str | None


def read_header(path: str | os.PathLike[str]) -> DicomHeader:
    """Read a DICOM header.

    Raises:
        RadiographError: the file isn't DICOM, or has no rows and columns.
    """
    try:
        header = pydicom.dcmread(path, force=True, specific_tags=_TAGS, stop_before_pixels=True)
        width, height = int(header.Columns), int(header.Rows)
    except (OSError, AttributeError, TypeError, ValueError) as error:
        reason = f"no DICOM header with rows and columns ({type(error).__name__})"
        raise RadiographError(path, reason, "copy it again from its source") from error
    sex = _text(header, "PatientSex").upper()
    return DicomHeader(
        width,
        height,
        _text(header, "PatientID") or None,
        sex if sex in ("M", "F", "O") else None,
        years(_text(header, "PatientAge")),
        view_name(_text(header, "ViewPosition")),
    )


def _text(header: Dataset, keyword: str) -> str:
    """An element as it was written: published ages such as ``51`` break DICOM's rules, and pydicom warns of each."""
    element = header.get_item(keyword)
    value = "" if element is None or element.value is None else element.value
    return (value.decode("latin-1") if isinstance(value, bytes) else str(value)).strip(" \0")


def fill_from_headers(job: Job, records: Sequence[Record], *, patients: bool = False) -> None:
    """Completes records of DICOM images by their headers, several at a time: size, and what isn't known yet of sex,
    age and view.

    Args:
        job: for its number of threads.
        records: of images that are there.
        patients: take the patient from the header too.

    Raises:
        RadiographError: a header can't be read.
    """
    with ThreadPoolExecutor(job.workers) as pool:
        headers = pool.map(read_header, (record.image for record in records))
        bar = tqdm(headers, total=len(records), desc="headers", disable=not job.progress, leave=False)
        for record, header in zip(records, bar, strict=True):
            record.width, record.height = header.width, header.height
            record.sex = record.sex or header.sex
            record.age = header.age if record.age is None else record.age
            record.view = record.view or header.view
            if patients:
                record.patient_id = header.patient_id
