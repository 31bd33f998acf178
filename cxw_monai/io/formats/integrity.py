"""What decoders don't check: files that unpack to gigabytes, and PNGs without their last rows."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from os import PathLike
from typing import IO, Any

from cxw_monai.io.image import RadiographError

__all__ = ["refuse_bomb", "refuse_short_png"]

_BLOCK = 1 << 20
_AGAIN = "copy or export it again"
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # colour type -> samples of a pixel
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def refuse_bomb(path: str | PathLike[str], stream: IO[bytes], unpacker: Any, most: int) -> None:
    """Unpack a stream block by block, keeping nothing, and refuse more than ``most`` bytes.

    Args:
        path: the file, for the error.
        stream: where the packed data begin.
        unpacker: a ``zlib.decompressobj`` or ``bz2.BZ2Decompressor``.
        most: the most bytes that the content may have.

    Raises:
        RadiographError: there are more.
        zlib.error, OSError: damaged data. (Data that end early aren't told here.)
    """
    size = 0
    while not unpacker.eof:
        held = getattr(unpacker, "unconsumed_tail", b"")  # zlib's; bz2 holds it itself
        wants = getattr(unpacker, "needs_input", not held)
        packed = stream.read(_BLOCK) if wants else held
        if wants and not packed:
            return
        size += len(unpacker.decompress(packed, _BLOCK))
        if size > most:
            raise RadiographError(path, f"unpacks to more than {most} bytes", _AGAIN)


def refuse_short_png(path: str | PathLike[str]) -> None:
    """Refuse a PNG whose pixel data end before its last row; Pillow leaves the rest black where they end with a row.

    Source: PNG specification, third edition, 7 to 9.

    Args:
        path: a PNG that Pillow has decoded.

    Raises:
        RadiographError: rows are missing.
    """
    with open(path, "rb") as stream:
        stream.seek(8)
        chunks = _png_chunks(stream)
        width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", next(chunks)[1])
        bits, expected = depth * _PNG_CHANNELS[colour], 0
        for left, top, right_by, down_by in _ADAM7 if interlaced else ((0, 0, 1, 1),):
            columns, rows = -(-(width - left) // right_by), -(-(height - top) // down_by)
            if columns > 0 and rows > 0:
                expected += rows * (1 + -(-columns * bits // 8))  # each row behind its filter's byte
        unpacker, found = zlib.decompressobj(), 0
        for name, data in chunks:
            if found >= expected:
                return
            while name == b"IDAT" and data and found < expected:
                found += len(unpacker.decompress(data, _BLOCK))
                data = unpacker.unconsumed_tail
    if found < expected:
        raise RadiographError(path, f"truncated: {found} of {expected} bytes of pixels", _AGAIN)


def _png_chunks(stream: IO[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """``(name, data)`` of each chunk."""
    while len(head := stream.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        yield name, stream.read(length)
        stream.seek(4, 1)  # its checksum, which Pillow has looked at
