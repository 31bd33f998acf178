"""Compressed pixel data as they are: fragments, and what a codestream says of itself.

A stream's own size, depth and sign decide how it is decoded (PS3.5 8.2): headers around it are often those of another
encoding of the same film.

Sources: DICOM PS3.5 A.4 (fragments), G.5 (RLE header); ITU-T T.81 B (JPEG), T.87 C (JPEG-LS), T.800 A (JPEG 2000).
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from cxw_monai.io.radiograph import UnusableError

__all__ = ["Codestream", "read_codestream", "read_fragments", "rle_bytes"]

_ITEM, _DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_SOI, _SOC = b"\xff\xd8\xff", b"\xff\x4f\xff\x51"
_NEAR = 4096  # bytes within which a stream begins; JPEG 2000 may lie in the boxes of a file
_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # SOF; F7 of JPEG-LS
_LOSSLESS = (0xC3, 0xC7, 0xCB, 0xCF)
_DCT = (0xC0, 0xC1, 0xC2)  # Huffman coded
_EOI, _SOS = 0xD9, 0xDA
_NEXT_MARKER = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]")  # what can't be coded data: JPEG stuffs 0, JPEG-LS a 0 bit


@dataclass(frozen=True)
class Codestream:
    """What a stream says of itself."""

    kind: str  # JPEG, JPEG-LS or JPEG 2000
    rows: int
    columns: int
    components: int  # samples of a pixel
    precision: int  # bits of a sample
    signed: bool  # only JPEG 2000 knows signs
    is_lossless: bool
    is_dct: bool  # a baseline, extended or progressive JPEG
    data: bytes  # the stream alone, up to its end
    behind: int  # bytes that follow it in the file and aren't zero


def read_fragments(data: bytes) -> list[bytes]:
    """Fragments of encapsulated pixel data, without the offset table.

    Raises:
        UnusableError: it isn't a row of items.
    """
    found: list[bytes] = []
    at = 0
    while at + 8 <= len(data) and data[at : at + 4] != _DELIMITER:
        if data[at : at + 4] != _ITEM:
            if found and data[at + 1 : at + 5] in (_ITEM, _DELIMITER):  # an odd fragment with its padding not counted
                at += 1
                continue
            if found and not data[at:].strip(b"\0"):
                break
            raise UnusableError("the fragments of the compressed pixel data are damaged")
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        if length > len(data) - at - 8:
            raise UnusableError("the compressed pixel data are truncated")
        found.append(data[at + 8 : at + 8 + length])
        at += 8 + length
    if found and not found[0].startswith((_SOI, _SOC)):  # some leave the table out
        del found[0]
    return [fragment for fragment in found if fragment]


def rle_bytes(fragment: bytes) -> int:
    """Bytes of a pixel in an RLE frame, one segment each; an UnusableError where it has no such header."""
    count = int.from_bytes(fragment[:4], "little")
    if len(fragment) < 64 or not 1 <= count <= 15:
        raise UnusableError("the RLE header is damaged")
    return count


def read_codestream(fragments: list[bytes]) -> Codestream | None:
    """The stream that the fragments of one frame hold; None where they hold none of the JPEG family.

    Raises:
        UnusableError: it is cut off, damaged, or there is more than one.
    """
    data = b"".join(fragments)
    starts = {name: data.find(mark, 0, _NEAR) for name, mark in (("JPEG", _SOI), ("JPEG 2000", _SOC))}
    starts = {name: at for name, at in starts.items() if at >= 0}
    if not starts:
        return None
    frames = sum(fragment.startswith((_SOI, _SOC)) for fragment in fragments)
    if frames > 1:
        raise UnusableError(f"the pixel data hold {frames} compressed frames")
    kind = min(starts, key=starts.__getitem__)
    data = data[starts[kind] :]
    try:
        return _jpeg(data) if kind == "JPEG" else _jpeg2000(data)
    except (struct.error, IndexError):
        raise UnusableError("pixel data are truncated: the compressed stream has no end") from None


def _jpeg(data: bytes) -> Codestream:
    """A JPEG or JPEG-LS stream, by its marker segments."""
    at, frame, near = 2, None, 0
    while True:
        while data[at + 1] == 0xFF:  # markers may be padded
            at += 1
        marker = data[at + 1]
        if data[at] != 0xFF or marker < 0x80:
            raise UnusableError("the marker segments of the compressed stream are damaged")
        if marker == _EOI:
            break
        (length,) = struct.unpack_from(">H", data, at + 2)
        if marker in _FRAMES:
            frame = (marker, *struct.unpack_from(">BHHB", data, at + 4))
        behind = at + 2 + length
        if marker == _SOS:
            near = data[behind - 3]  # NEAR of JPEG-LS
            coded = _NEXT_MARKER.search(data, behind)
            if coded is None:
                raise UnusableError("pixel data are truncated: the compressed stream has no end")
            behind = coded.start()
        at = behind
    if frame is None:
        raise UnusableError("the compressed stream holds no picture")
    marker, precision, rows, columns, components = frame
    is_ls = marker == 0xF7
    return Codestream(
        "JPEG-LS" if is_ls else "JPEG",
        rows,
        columns,
        components,
        precision,
        signed=False,
        is_lossless=near == 0 if is_ls else marker in _LOSSLESS,
        is_dct=marker in _DCT,
        data=data[: at + 2],
        behind=len(data[at + 2 :].strip(b"\0\xff")),
    )


def _jpeg2000(data: bytes) -> Codestream:
    """A JPEG 2000 stream, by its main header and the lengths of its tile-parts."""
    right, bottom, left, top = struct.unpack_from(">4I", data, 8)
    (components,) = struct.unpack_from(">H", data, 40)
    depth = data[42]
    at, transform = 4, None
    at += struct.unpack_from(">H", data, 4)[0]
    while data[at : at + 2] != b"\xff\x90":  # SOT
        if data[at] != 0xFF or data[at + 1] < 0x30:
            raise UnusableError("the marker segments of the compressed stream are damaged")
        if data[at + 1] == 0x52:  # COD
            transform = data[at + 13]
        at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    while data[at : at + 2] == b"\xff\x90":
        (length,) = struct.unpack_from(">I", data, at + 6)
        if length == 0:  # the last tile-part, up to the end of the stream
            at = data.rfind(b"\xff\xd9", at)
            break
        at += max(length, 12)
    if at < 0 or data[at : at + 2] != b"\xff\xd9":
        raise UnusableError("pixel data are truncated: the compressed stream has no end")
    return Codestream(
        "JPEG 2000",
        bottom - top,
        right - left,
        components,
        (depth & 0x7F) + 1,
        signed=depth > 0x7F,
        is_lossless=transform == 1,
        is_dct=False,
        data=data[: at + 2],
        behind=len(data[at + 2 :].strip(b"\0\xff")),
    )
