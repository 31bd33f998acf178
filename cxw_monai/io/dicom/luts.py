"""LUTs of DICOM files, by their bytes: whatever value representation they were written with, output is unsigned.

Source: DICOM PS3.3 C.11.1.1.1 and C.11.2.1.1 (LUT Descriptor and LUT Data).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from cxw_monai.io.radiograph import UnusableError

from .attributes import element_bytes

__all__ = ["LookUpTable", "read_lut"]

_DESCRIPTOR, _DATA = Tag("LUTDescriptor"), Tag("LUTData")
_LEAST_DEPTH, _MOST_DEPTH = 8, 16  # that the standard allows
_UNUSED = 2  # bits, that distinguish a word's depth from an entry's: a dim table of 16 bits may leave one
_BLACK = 4  # unused bits of any depth, with which white would be all but black


@dataclass(frozen=True)
class LookUpTable:
    """A LUT.

    Attributes:
        entries: int64, at least 0.
        first: the input that the first entry is for.
        bits: of an entry. As declared, unless that is the depth of the words that entries lie in, as some writers
            have it: where the largest entry leaves two bits or more of 16 unused, or four of any depth, those that it
            needs. A largest entry of exactly 2^n is white of n bits, off by one: one above their range.
        note: for the steps; empty where ``bits`` are those declared.
    """

    entries: np.ndarray
    first: int
    bits: int
    note: str

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Entries of whole numbers; inputs outside the table take its first or last entry."""
        return self.entries[np.clip(values - self.first, 0, len(self.entries) - 1)]

    def within(self, limits: tuple[float, float]) -> np.ndarray:
        """The entries that inputs within limits can reach."""
        begin, end = (int(np.clip(limit - self.first, 0, len(self.entries) - 1)) for limit in limits)
        return self.entries[begin : end + 1]


def read_lut(
    item: Dataset, limits: tuple[float, float], little_endian: bool, *, by_entries: bool = False
) -> LookUpTable | None:
    """The LUT of a sequence's item; None where the item has no descriptor or no data.

    ``limits`` are the least and greatest input. With ``by_entries``, for output that no depth scales, entries may need
    more bits than are declared.

    Raises:
        UnusableError: it contradicts itself.
    """
    descriptor, data = (_raw(item, tag, little_endian) for tag in (_DESCRIPTOR, _DATA))
    if descriptor is None or data is None or len(descriptor[0]) < 6:
        return None
    words = np.frombuffer(descriptor[0], ("<" if little_endian else ">") + "u2", 3)
    count, first, depth = (int(word) for word in words)
    count = count or 1 << 16  # 0 stands for 65536
    if first >= 1 << 15 and (limits[0] < 0 or first > limits[1]):  # of signed inputs
        first -= 1 << 16
    entries = _entries(*data, count, depth, little_endian)
    needed = max(_LEAST_DEPTH, int(entries.max() - 1).bit_length())  # 256 and 255: 8
    is_allowed = _LEAST_DEPTH <= depth <= _MOST_DEPTH
    if is_allowed and needed > depth and not by_entries:
        raise UnusableError(f"its entries need {needed} bits, {depth} are declared")
    is_dim = not by_entries and depth - needed >= (_UNUSED if depth == _MOST_DEPTH else _BLACK)
    if is_allowed and needed <= depth and not is_dim:
        return LookUpTable(entries, first, depth, "")
    return LookUpTable(entries, first, needed, f"{needed} bits by its largest entry, {depth} declared")


def _raw(item: Dataset, tag: int, little_endian: bool) -> tuple[bytes, str] | None:
    """``(bytes in the file's order, VR)`` of an element; None where there is none."""
    found = element_bytes(item, tag)
    value = None if found is not None or tag not in item else item.get_item(tag).value
    if value is None or isinstance(value, bytes):
        return found
    numbers = np.atleast_1d(np.asarray(value)).astype(np.int64) & 0xFFFF  # pydicom converted them before
    return numbers.astype(("<" if little_endian else ">") + "u2").tobytes(), "US"


def _entries(data: bytes, vr: str, count: int, depth: int, little_endian: bool) -> np.ndarray:
    """int64 entries, of words or of bytes packed into words."""
    if depth <= _LEAST_DEPTH and count > 1 and len(data) in (count, count + count % 2):
        packed = np.frombuffer(data, "u1")
        if vr != "OB" and not little_endian and len(data) % 2 == 0:  # two entries a word, the first in its low byte
            packed = packed.reshape(-1, 2)[:, ::-1].reshape(-1)
        return packed[:count].astype(np.int64)
    table = np.frombuffer(data[: len(data) // 2 * 2], ("<" if little_endian else ">") + "u2").astype(np.int64)
    if len(table) < count:
        raise UnusableError(f"{len(table)} entries where {count} are declared")
    table = table[:count]
    if depth == _LEAST_DEPTH and table.max() > 255 and (table >> 8 == table & 255).all():  # the byte twice
        table = table & 255
    return table
