"""DICOM files as data sets: files without preamble or file meta, and deflated ones of every producer."""

from __future__ import annotations

import io
import logging
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from typing import IO

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from cxw_monai.io.radiograph import UnusableError

__all__ = ["is_dicom_header", "parse", "quiet_pydicom"]

_PREAMBLE = b"DICM"

_META_BYTES = 1 << 14  # no file meta is longer
_BLOCK = 1 << 20
_LONG = (b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UC", b"UR", b"UT", b"UN", b"SV", b"UV")  # 32-bit lengths
_RAW, _WITH_HEADER = -zlib.MAX_WBITS, 32 + zlib.MAX_WBITS  # the standard's deflate; zlib's or gzip's around it


def _looks_like_bare_dicom(head: bytes) -> bool:
    """Whether a file without preamble begins with a DICOM element of group 0002 or 0008, in any byte order."""
    for order in ("little", "big"):
        group, element = (int.from_bytes(head[at : at + 2], order) for at in (0, 2))
        if len(head) < 12 or group not in (0x0002, 0x0008) or element > 0x3000:
            continue
        explicit = head[4:6].isalpha() and head[4:6].isupper()
        implicit = order == "little" and int.from_bytes(head[4:8], "little") < 1 << 16  # a first element is short
        if explicit or implicit:
            return True
    return False


def is_dicom_header(head: bytes) -> bool:
    """Whether a file's first 132 bytes are those of a DICOM file, with or without preamble."""
    return head[128:132] == _PREAMBLE or _looks_like_bare_dicom(head)


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Silence warnings and log lines of pydicom and highdicom, which may quote the values of attributes."""
    loggers = [logging.getLogger(name) for name in ("pydicom", "highdicom.base")]

    def silence(record: logging.LogRecord) -> bool:
        return False

    for logger in loggers:
        logger.addFilter(silence)  # a filter of its own, so that readers in other threads can't undo each other
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger in loggers:
            logger.removeFilter(silence)


def parse(path: str | PathLike[str], max_pixels: int, *, header: bool = False) -> Dataset:
    """The data set of a file, with a transfer syntax in its file meta.

    A missing transfer syntax is taken to be the uncompressed one that the data set is written in; a deflated data set
    comes back as the explicit little endian one that it is.

    A deflated data set with room for more than ``max_pixels``, at 4 bytes each, is refused. With ``header``, what
    follows from the pixels on is left out.

    Raises:
        UnusableError: the file can't be unpacked.
        Exception: whatever pydicom raises of a damaged file.
    """
    with open(path, "rb") as stream:
        dataset = pydicom.dcmread(_inflated(stream, max_pixels) or stream, force=True, stop_before_pixels=header)
    if not dataset.file_meta.get("TransferSyntaxUID"):  # then it isn't compressed
        implicit, little_endian = _encoding(dataset)
        explicit = ExplicitVRLittleEndian if little_endian else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return dataset


def _encoding(dataset: Dataset) -> tuple[bool, bool]:
    """Whether value representations are implicit, and the byte order little, as the parser found them."""
    if hasattr(dataset, "original_encoding"):
        implicit, little_endian = dataset.original_encoding
    else:  # pydicom 2
        implicit, little_endian = dataset.read_implicit_vr, dataset.read_little_endian
    return bool(implicit), bool(little_endian)


def _inflated(stream: IO[bytes], max_pixels: int) -> IO[bytes] | None:
    """A deflated file with its data set unpacked and the transfer syntax that it then has; None for all others.

    Some producers write a zlib header, or no deflate at all, though PS3.5 A.5 asks for bare deflate; what follows its
    end (a padding byte, or whatever the disk held) is no part of it. A stream without its last block is taken as far
    as it goes: the length of the pixel data shows whether it was whole.
    """
    head = stream.read(_META_BYTES)
    start = 132 if head[128:132] == _PREAMBLE else 0
    end, deflated = _end_of_meta(head, start)
    if not deflated:
        stream.seek(0)
        return None
    plain = DeflatedExplicitVRLittleEndian.encode()
    syntax = ExplicitVRLittleEndian.encode().ljust(len(plain), b"\0")
    found = io.BytesIO(head[:start] + head[start:end].replace(plain, syntax))
    found.seek(0, io.SEEK_END)
    stream.seek(end)
    most = found.tell() + 4 * max_pixels + (1 << 26)
    if _looks_like_bare_dicom(head[end : end + 12]):
        found.write(stream.read())
    elif not any(_inflate(stream, end, found, wbits, most) for wbits in (_RAW, _WITH_HEADER)):
        raise UnusableError("the deflated data set cannot be unpacked, damaged or truncated")
    found.seek(0)
    return found


def _end_of_meta(head: bytes, start: int) -> tuple[int, bool]:
    """Where the file meta (explicit little endian, PS3.10 7.1) ends, and whether it says that the rest is deflated."""
    at, deflated = start, False
    while head[at : at + 2] == b"\x02\x00" and at + 12 <= len(head):
        long = head[at + 4 : at + 6] in _LONG
        value = at + (12 if long else 8)
        after = value + int.from_bytes(head[at + 8 : value] if long else head[at + 6 : value], "little")
        if head[at : at + 4] == b"\x02\x00\x10\x00":
            deflated = head[value:after].strip(b"\0 ") == DeflatedExplicitVRLittleEndian.encode()
        at = after
    return at, deflated


def _inflate(stream: IO[bytes], start: int, found: IO[bytes], wbits: int, most: int) -> bool:
    """Unpack a stream from ``start`` on, block by block, behind what ``found`` holds; whether it could be unpacked."""
    before, unpacker, first = found.tell(), zlib.decompressobj(wbits), b""
    stream.seek(start)
    try:
        while not unpacker.eof:
            packed = unpacker.unconsumed_tail or stream.read(_BLOCK)
            if not packed:
                break
            content = unpacker.decompress(packed, _BLOCK)
            first = first or content[:12]
            found.write(content)
            if found.tell() > most:
                raise UnusableError(f"unpacks to more than {most - before} bytes", "copy or export it again")
    except zlib.error:
        first = b""
    if _looks_like_bare_dicom(first):
        return True
    found.seek(before)
    found.truncate()
    return False
