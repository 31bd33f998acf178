"""What DICOM results of a film (SEG, SR) share: the film's header, its patient and study, UIDs and dates.

Of the film's header only what belongs to patient, study and reference is read, and goes nowhere but into the result.
Identifiers are copied as they are, since an archive files by them; dates, times, sex and orientation that don't follow
the standard become empty, which it allows, as does what is missing (old CR files). A film without the UIDs that a
reference needs is refused: a result that points at nothing could not be opened with its film.

UIDs are functions of the film's SOP Instance UID, the algorithm and the content: a second run over the same film with
the same model gives the same instance, so an archive keeps one. With the same time of creation the file is the same to
the byte.

Sources: DICOM PS3.3 C.7; UIDs under 2.25 from name-based UUIDs, PS3.5 B.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import datetime
from os import PathLike
from typing import IO
from uuid import NAMESPACE_OID, uuid5

import highdicom as hd
import pydicom
from pydicom.config import RAISE
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pydicom.valuerep import validate_value

from cxw_monai import __version__
from cxw_monai.io.dicom.file import is_dicom_header
from cxw_monai.io.radiograph import RadiographError, errors_of

__all__ = [
    *("DOUBT", "LOSSY", "SPACING", "SegAlgorithm", "copy_if_valid", "copy_patient_and_study", "of_known_class"),
    *("read_header", "reference_to", "result_uid", "save_result", "series_number", "set_dates"),
]

DOUBT = "IMPLAUSIBLE, look at it. "
"""What a description of implausible masks begins with."""

_UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_AS_THEY_ARE = (
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "AccessionNumber",
    "StudyID",
    "ReferringPhysicianName",
    "StudyDescription",
)
_IF_VALID = ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime")
_MAY_BE_ABSENT = ("IssuerOfPatientID", "StudyDescription")
LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")
_GRID = ("Rows", "Columns", "NumberOfFrames", "Modality", "SeriesNumber", "SpecificCharacterSet")
SPACING = ("PixelSpacing", "ImagerPixelSpacing")  # the first that is valid, as viewers take it for the film
_ORIENTATION = "PatientOrientation"
_PYDICOM = int(pydicom.__version__.split(".")[0])


@dataclass(frozen=True)
class SegAlgorithm:
    """What made the masks, as a DICOM result names it.

    Attributes:
        name: of the algorithm, and the device's model name.
        version: of the weights or the software.
        manufacturer: who answers for it.
        description: the series' description.
        type: ``AUTOMATIC``, or ``SEMIAUTOMATIC`` where a person drew or corrected them.
    """

    name: str = "chexworld_segmentation"
    version: str = __version__
    manufacturer: str = "cxw_monai"
    description: str = "Segmentation by chexworld_segmentation"
    type: str = "AUTOMATIC"

    def doubted(self) -> SegAlgorithm:
        """The same, with a description that says first that the masks are implausible."""
        return replace(self, description=f"{DOUBT}{self.description}"[:64])

    def __post_init__(self) -> None:
        for field, text in vars(self).items():
            if not 1 <= len(text) <= 64 or "\\" in text or not text.isascii():
                raise ValueError(f"SegAlgorithm {field} must be 1 to 64 ASCII characters without '\\', got {text!r}")


def read_header(source: str | PathLike[str], kind: str) -> Dataset:
    """The attributes named above of a film that a DICOM result can refer to.

    Args:
        source: the film's own DICOM file, of any transfer syntax, with or without preamble.
        kind: of result, ``SEG`` or ``SR``, for the errors.

    Raises:
        RadiographError: the source is no DICOM image, has several frames, or lacks a UID that a reference needs.
    """
    tags = [*_UIDS, *_AS_THEY_ARE, *_IF_VALID, _ORIENTATION, *LOSSY, *_GRID, *SPACING]
    without = f"leave out the format '{kind.lower()}'"
    with open(source, "rb") as stream:
        is_dicom = is_dicom_header(stream.read(132))
    if not is_dicom:
        raise RadiographError(source, f"not a DICOM file, which a DICOM {kind} must refer to", without)
    with errors_of(source, "cannot be parsed as DICOM, damaged or truncated ({})"):
        header = pydicom.dcmread(source, force=True, stop_before_pixels=True, specific_tags=tags)
        missing = [name for name in (*_UIDS, "Rows", "Columns") if not header.get(name)]
        frames = int(header.get("NumberOfFrames") or 1)
    if missing:
        reason = f"no {', '.join(missing)} in its header, which a DICOM {kind} must refer to"
        raise RadiographError(source, reason, f"export it again from the archive, or {without}")
    if frames > 1:
        reason = f"multi-frame DICOM ({frames} frames)"
        raise RadiographError(source, reason, "export each frame to a file of its own")
    return header


@contextmanager
def of_known_class(source: str | PathLike[str], header: Dataset, kind: str) -> Iterator[None]:
    """While a result is built: a film of a class that highdicom's copy of the standard doesn't have is refused.

    Raises:
        RadiographError: so it is.
    """
    try:
        yield
    except KeyError as error:
        reason = f"of SOP class {header.SOPClassUID}, which the DICOM standard doesn't have as an image"
        remedy = f"convert it to CR or DX, or leave out the format '{kind.lower()}'"
        raise RadiographError(source, reason, remedy) from error


def reference_to(header: Dataset) -> Dataset:
    """The header without anything of the patient's: what highdicom is shown."""
    reference = Dataset()
    for name in _UIDS:
        setattr(reference, name, header.get(name))
    for name in (*_AS_THEY_ARE, *_IF_VALID, _ORIENTATION):
        if name not in _MAY_BE_ABSENT:
            setattr(reference, name, "")
    reference.Rows, reference.Columns, reference.NumberOfFrames = header.Rows, header.Columns, 1
    groups = Dataset()  # highdicom asks for it where the class may hold several frames (RF); no result keeps it
    groups.PixelMeasuresSequence = hd.PixelMeasuresSequence((1.0, 1.0), slice_thickness=1.0)
    reference.SharedFunctionalGroupsSequence = [groups]
    return reference


def series_number(header: Dataset, offset: int) -> int:
    """A result's series number: its film's, where that is a plausible one, plus an offset."""
    number = header.get("SeriesNumber")
    return offset + (int(number) if number is not None and 0 <= number < 1 << 20 else 0)


def result_uid(role: str, identity: Iterable[str]) -> UID:
    """A UID that follows from its role and from what identifies the result."""
    return UID(f"2.25.{uuid5(NAMESPACE_OID, chr(10).join((role, *identity))).int}")


def save_result(result: Dataset, stream: IO[bytes]) -> None:
    """Write a result with preamble and file meta information."""
    if _PYDICOM < 3:
        result.save_as(stream, write_like_original=False)
    else:
        result.save_as(stream, enforce_file_format=True)


def copy_patient_and_study(header: Dataset, result: Dataset) -> None:
    """Patient and study attributes of the film; highdicom, which logs names, never sees them."""
    result.pop("SpecificCharacterSet", None)
    for name in ("SpecificCharacterSet", *_AS_THEY_ARE):
        if name in header:
            result[name] = deepcopy(header[name])
        elif name not in _MAY_BE_ABSENT and name != "SpecificCharacterSet":
            setattr(result, name, "")
    copy_if_valid(header, result, _IF_VALID)


def copy_if_valid(header: Dataset, result: Dataset, names: Sequence[str]) -> None:
    """Attributes of the film where they follow the standard, else empty."""
    for name in names:
        if name in header and _is_valid(header, name):
            result[name] = deepcopy(header[name])
        else:
            setattr(result, name, "")


def _is_valid(header: Dataset, name: str) -> bool:
    """Whether a date, time, sex or orientation follows the standard."""
    value = header[name].value
    if name == "PatientOrientation":  # towards where rows and columns run
        return not isinstance(value, str) and len(value) == 2 and all(set(one) <= set("APLRFH") for one in value)
    try:
        validate_value(header[name].VR, str(value or ""), RAISE)
    except ValueError:
        return False
    return name != "PatientSex" or value in ("M", "F", "O")


def set_dates(result: Dataset, created: datetime) -> None:
    """Dates of creation: content, instance, and highdicom's part in it."""
    for name in ("Content", "InstanceCreation"):
        setattr(result, f"{name}Date", created.strftime("%Y%m%d"))
        setattr(result, f"{name}Time", created.strftime("%H%M%S"))
    for item in result.get("ContributingEquipmentSequence", []):
        item.ContributionDateTime = created.strftime("%Y%m%d%H%M%S")
