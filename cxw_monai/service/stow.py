"""The body of a STOW-RS request taken apart, and its answer (PS3.18 10.5, 8.6.1.2; RFC 2046 5.1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from email.message import Message
from typing import Any, Protocol

__all__ = ["MULTIPART", "SINGLE", "parts", "stow_answer"]

MULTIPART, SINGLE = "multipart/related", "application/dicom"
_MOST_PARTS = 1000
_LONGEST_BOUNDARY = 200  # RFC 2046 has 70; Orthanc sends 73
_MOST_HEADER = 4096  # bytes of a part's header
_CANNOT_UNDERSTAND = 0xC000  # failure reason (PS3.18 I.2.2)


class _Bytes(Protocol):
    """Bytes or a file in memory."""

    def find(self, sub: bytes, start: int = ..., end: int = ..., /) -> int: ...
    def __getitem__(self, key: slice, /) -> bytes: ...
    def __len__(self) -> int: ...


def parts(body: _Bytes, content_type: str) -> Iterator[tuple[int, int]]:
    """First and past last byte of each object in a request's body, at least one.

    Args:
        body: the whole body.
        content_type: as in the request's header.

    Raises:
        ValueError: the body isn't what the header says.
    """
    message = Message()
    message["content-type"] = content_type
    if message.get_content_type() == SINGLE:
        yield 0, len(body)
        return
    boundary = message.get_param("boundary")
    if not isinstance(boundary, str) or not 0 < len(boundary) <= _LONGEST_BOUNDARY or not boundary.isascii():
        raise ValueError("the content type has no usable boundary")
    delimiter = b"--" + boundary.encode()
    at = body.find(delimiter)
    if at < 0 or (at > 0 and body[at - 2 : at] != b"\r\n"):
        raise ValueError("the body doesn't begin with its boundary")
    if body[at + len(delimiter) : at + len(delimiter) + 2] == b"--":
        raise ValueError("the body has no part")
    for _ in range(_MOST_PARTS):
        at += len(delimiter)
        if body[at : at + 2] == b"--":
            return
        header = body.find(b"\r\n\r\n", at, at + _MOST_HEADER)
        at = body.find(b"\r\n" + delimiter, header + 4)
        if header < 0 or at < 0:
            raise ValueError("the body is cut off")
        yield header + 4, at
        at += 2
    raise ValueError(f"the body has more than {_MOST_PARTS} parts")


def stow_answer(stored: Sequence[tuple[str, str]], reasons: Sequence[str]) -> dict[str, Any]:
    """The answer as DICOM JSON.

    Args:
        stored: SOP class and instance UID of each object that was taken.
        reasons: why each of the others wasn't; they go into its error comment, at most 64 characters.
    """
    answer: dict[str, Any] = {}
    if stored:
        taken = [{"00081150": _value("UI", sop_class), "00081155": _value("UI", uid)} for sop_class, uid in stored]
        answer["00081199"] = {"vr": "SQ", "Value": taken}
    if reasons:
        failed = [
            {"00081197": _value("US", _CANNOT_UNDERSTAND), "00000902": _value("LO", reason[:64])} for reason in reasons
        ]
        answer["00081198"] = {"vr": "SQ", "Value": failed}
    return answer


def _value(vr: str, value: object) -> dict[str, Any]:
    return {"vr": vr, "Value": [value]}
