"""What is sent to the service becomes a film of the queue, or is refused with a reason."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import NamedTuple

from cxw_monai.io.dicom.file import is_dicom_header, parse, quiet_pydicom
from cxw_monai.io.dicom.film_classes import FILM_MODALITIES, refuse_unless_film
from cxw_monai.io.radiograph import MAX_PIXELS, RadiographError, UnusableError, errors_of

from .queue import FilmQueue

__all__ = ["Taken", "receive", "take_in"]

_UIDS = ("SOPInstanceUID", "SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID")
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")


class Taken(NamedTuple):
    """A film that was taken.

    Attributes:
        uid: its SOP Instance UID.
        sop_class: its SOP class.
        new: whether it wasn't known.
    """

    uid: str
    sop_class: str
    new: bool


def receive(queue: FilmQueue, content: bytes | memoryview) -> Taken:
    """Take a film by its bytes; see `take_in`."""
    handle, name = tempfile.mkstemp(dir=queue.incoming, suffix=".dcm")
    with os.fdopen(handle, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    return take_in(queue, Path(name))


def take_in(queue: FilmQueue, file: Path) -> Taken:
    """Take a film.

    Args:
        queue: where it goes.
        file: in the queue's `incoming`, on the disk. It is moved, or deleted.

    Raises:
        RadiographError: no DICOM file, no film (CR, DX or RG), or one without a UID that a result needs.
        FullError: too many films wait.
    """
    try:
        uid, sop_class = _checked(file)
        return Taken(uid, sop_class, queue.add(uid, file))
    finally:
        file.unlink(missing_ok=True)


def _checked(file: Path) -> tuple[str, str]:
    """SOP Instance UID and class of a film.

    Raises:
        RadiographError: it is none.
    """
    try:
        with quiet_pydicom(), errors_of(file, "cannot be parsed as DICOM, damaged or truncated ({})"):
            with file.open("rb") as stream:
                if not is_dicom_header(stream.read(132)):
                    raise UnusableError("not a DICOM file")
            header = parse(file, MAX_PIXELS, header=True)
            uids = [str(header.get(name, "")) for name in _UIDS]
            if not all(_UID.fullmatch(uid) and len(uid) <= 64 for uid in uids):
                raise UnusableError("no valid UIDs of instance, class, study and series, which results refer to")
            modality = str(header.get("Modality", ""))
            if modality not in FILM_MODALITIES:
                raise UnusableError(f"not of modality {', '.join(FILM_MODALITIES)}", "send films only")
            refuse_unless_film(uids[1], modality)
    except RadiographError as error:  # the file's name here is nobody's
        raise RadiographError("the object", error.reason, error.remedy) from error
    return uids[0], uids[1]
