"""What the service's tests share."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.dicom_files import write_dicom


@pytest.fixture
def film(tmp_path) -> Callable[..., bytes]:
    """Makes a small film's bytes by the last part of its UID."""

    def make(number: int = 1, **attributes: object) -> bytes:
        path = tmp_path / "made.dcm"
        pixels = np.random.default_rng(number).integers(0, 4096, (24, 16)).astype(np.uint16)
        uids = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": f"1.2.4.{number}", "SOPInstanceUID": uid_of(number)}
        given = {"Modality": "DX", "PatientID": "SECRET-7", **uids, **attributes}
        write_dicom(path, pixels, **{name: value for name, value in given.items() if value is not None})
        content = path.read_bytes()
        path.unlink()
        return content

    return make


def uid_of(number: int) -> str:
    return f"1.2.5.{number}"


def multipart(*films: bytes, boundary: str = "between") -> tuple[bytes, str]:
    """A STOW-RS body and its content type."""
    stream = io.BytesIO()
    for one in films:
        stream.write(f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode() + one + b"\r\n")
    stream.write(f"--{boundary}--\r\n".encode())
    return stream.getvalue(), f'multipart/related; type="application/dicom"; boundary={boundary}'


def files_below(folder: Path) -> set[str]:
    """Files of a queue that aren't its database's."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {name for name in found if not name.startswith("queue.sqlite")}
