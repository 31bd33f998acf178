"""Which bits of the stored words are the grey value: BitsStored, HighBit and PixelRepresentation against the words.

A value that needs more bits than the file declares would wrap round to another one. What lies above BitsStored is

- left out where it is a sign's extension, a declared overlay plane, or a lossy stream's overshoot of a few pixels;
- part of the value where a compressed stream's own depth says so;
- else the reason to refuse the file, were it the same in every pixel: its range is unknown.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from cxw_monai.io.radiograph import UnusableError

from .attributes import Attributes
from .grayscale import padding_range
from .pixels import Pixels

__all__ = ["Codes", "settle_bits"]

_CORRECT = "correct {} in the file, or export it again"
_OVERSHOOT = 1e-3  # fraction of a lossy image's pixels


@dataclass(frozen=True)
class Codes:
    """Grey values as unsigned bit patterns."""

    values: np.ndarray  # [H, W], the value in the lowest `bits` bits and nothing above
    bits: int
    signed: bool  # patterns are two's complement
    narrowed: bool = False  # a compressed stream has fewer bits than the file declares
    padded: np.ndarray | None = None  # where a word is padding that `bits` can't hold
    notes: list[str] = field(default_factory=list)  # for the steps


def settle_bits(pixels: Pixels, tags: Attributes) -> Codes:
    """Grey values of decoded words.

    Raises:
        UnusableError: the file contradicts itself, or lacks what would settle it.
    """
    notes: list[str] = []
    bits = _declared_bits(pixels, tags, notes)
    words, precision = _shifted(pixels, bits, tags, notes)
    signed = _is_signed(pixels, tags, notes)
    if precision is not None and precision < bits:
        notes.append(f"{precision} bits of the compressed stream, {bits} declared")
        if signed and not (pixels.stream and pixels.stream.signed) and int(words.max()) >> (precision - 1):
            reason = f"{bits} signed bits declared, {precision} bits without a sign in the compressed stream"
            raise UnusableError(reason, _CORRECT.format("BitsStored and PixelRepresentation"))
        return Codes(words, precision, signed, narrowed=True, notes=notes)
    width = precision or 8 * words.dtype.itemsize
    padded = _padding_above(words, width, bits, signed, tags)
    above = words >> words.dtype.type(bits) if bits < 8 * words.dtype.itemsize else np.zeros_like(words)
    if padded is not None:
        above = above[~padded]
    if not above.size or not above.any():
        return Codes(words, bits, signed, padded=padded, notes=notes)
    if _is_sign(words if padded is None else words[~padded], above, width, bits, signed):
        pass
    elif _is_overlay(above, bits, tags):
        notes.append(f"overlay planes above the {bits} bits stored left out")
    elif not signed and pixels.stream is not None and not pixels.stream.is_lossless and _is_overshoot(above):
        notes.append(f"values beyond the {bits} bits stored, of a lossy stream, cut off at their greatest")
        return Codes(np.minimum(words, words.dtype.type((1 << bits) - 1)), bits, signed, padded=padded, notes=notes)
    elif precision is not None and precision % 8:  # 8 and 16 are those of whole words, which say nothing of the value
        notes.append(f"{precision} bits of the compressed stream, {bits} declared")
        return Codes(words, precision, signed, padded=padded, notes=notes)
    elif pixels.stream is None and above.min() == above.max():  # no part of a picture: order and steps stay as they are
        notes.append(f"bits above the {bits} stored left out, the same in every pixel")
    else:
        needed = int(above.max()).bit_length() + bits
        reason = f"values of {needed} bits, BitsStored declares {bits}"
        raise UnusableError(reason, _CORRECT.format("BitsStored and HighBit"))
    return Codes(words & words.dtype.type((1 << bits) - 1), bits, signed, padded=padded, notes=notes)


def _declared_bits(pixels: Pixels, tags: Attributes, notes: list[str]) -> int:
    """BitsStored, or what else declares it."""
    bits = tags.whole.get("BitsStored")
    if not bits:
        bits = tags.whole.get("HighBit", -1) + 1
        source = "HighBit + 1"
        if pixels.precision is not None and not 1 <= bits <= pixels.precision:
            bits, source = pixels.precision, "the compressed stream"
        elif not bits and pixels.allocated == 8:
            bits, source = 8, "BitsAllocated"
        if not bits:
            raise UnusableError("BitsStored is missing, and so is HighBit", "write them into the file")
        notes.append(f"BitsStored missing: {bits} by {source}")
    allocated = tags.whole.get("BitsAllocated") or pixels.allocated
    if pixels.precision is not None:
        return bits if 1 <= bits <= 32 else pixels.precision
    if 1 <= bits <= 8 * pixels.words.dtype.itemsize and (bits <= allocated or allocated != pixels.allocated):
        return bits
    raise UnusableError(f"{bits} bits stored of {allocated}, not supported", "export it again as 16 bits")


def _shifted(pixels: Pixels, bits: int, tags: Attributes, notes: list[str]) -> tuple[np.ndarray, int | None]:
    """Words with the value's lowest bit in bit 0, and the depth that they then have."""
    high, words, precision = tags.whole.get("HighBit", bits - 1), pixels.words, pixels.precision
    if high == bits - 1 or "BitsStored" not in tags.whole:
        return words, precision
    if precision is None and bits - 1 < high < pixels.allocated:  # an old way to store 12 bits in 16
        return words >> words.dtype.type(high + 1 - bits), None
    if precision is not None and high + 1 == precision > bits:
        notes.append(f"bits {high + 1 - bits} to {high} of the compressed stream, as HighBit says")
        return words >> words.dtype.type(high + 1 - bits), bits
    if precision is not None and precision <= bits:
        notes.append("HighBit left out: the compressed stream has no bits to choose from")
        return words, precision
    allocated = tags.whole.get("BitsAllocated", pixels.allocated)
    reason = f"{bits} bits stored of {allocated}, high bit {high}, not supported"
    raise UnusableError(reason, "export it again with HighBit = BitsStored - 1")


def _is_signed(pixels: Pixels, tags: Attributes, notes: list[str]) -> bool:
    declared = tags.whole.get("PixelRepresentation")
    if declared in (0, 1):
        return declared == 1
    if declared is not None:
        reason = f"PixelRepresentation is {declared}, neither 0 (unsigned) nor 1 (signed)"
        raise UnusableError(reason, _CORRECT.format("it"))
    signed = pixels.stream is not None and pixels.stream.signed
    notes.append(
        f"PixelRepresentation missing: {'signed, as the compressed stream' if signed else 'taken as unsigned'}"
    )
    return signed


def _padding_above(words: np.ndarray, width: int, bits: int, signed: bool, tags: Attributes) -> np.ndarray | None:
    """Where whole words are padding whose value ``bits`` bits can't hold; None for the usual padding."""
    padding = padding_range(tags, signed)
    half = 1 << (bits - 1)
    least, most = (-half, half - 1) if signed else (0, 2 * half - 1)
    if padding is None or (least <= padding[0] and padding[1] <= most):
        return None
    values = words
    if signed and width == 8 * words.dtype.itemsize:
        values = words.view(f"i{words.dtype.itemsize}")
    elif signed:
        values = np.where(words >> words.dtype.type(width - 1), words.astype(np.int64) - (1 << width), words)
    outside = (values < least) | (values > most)
    return outside & (values >= padding[0]) & (values <= padding[1])


def _is_sign(words: np.ndarray, above: np.ndarray, width: int, bits: int, signed: bool) -> bool:
    """Whether the upper bits only extend the sign, or are zero."""
    if not signed:
        return False
    negative = (words >> words.dtype.type(bits - 1)) & 1 == 1
    extended = np.where(negative, (1 << (width - bits)) - 1, 0)
    return bool(((above == extended) | (above == 0)).all())


def _is_overlay(above: np.ndarray, bits: int, tags: Attributes) -> bool:
    """Whether only declared overlay planes lie in the upper bits."""
    planes = sum(1 << (place - bits) for place in tags.overlay_bits if place >= bits)
    return planes > 0 and not bool((above & above.dtype.type(~planes & np.iinfo(above.dtype).max)).any())


def _is_overshoot(above: np.ndarray) -> bool:
    """Whether a few values lie just beyond the range."""
    return int(above.max()) == 1 and int(np.count_nonzero(above)) < _OVERSHOOT * above.size
