"""How grey values become [0, 1]: what the caller may choose, and the choices that every format shares."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .radiograph import UnusableError

__all__ = ["GreyOptions", "full_range", "scale_as_asked", "used_range"]

VOI = ("auto", "lut", "window", "none")

_LEAST_DEPTH = 8
_BLACK = 4  # unused bits with which white would be all but black
_LABELS = 32  # values that are all below it may be labels, whose depth says nothing


@dataclass(frozen=True)
class GreyOptions:
    """The caller's choice of grey scale. The default takes what the file itself says comes first.

    Args:
        voi: of a DICOM's own choices: ``"auto"`` its VOI LUT, else its window, else the full declared range; ``"lut"``
            or ``"window"`` insists on one of them; ``"none"`` keeps the full declared range.
        voi_item: which of several VOI LUTs or windows: its place from 0, or its explanation (case doesn't matter).
        window: ``(center, width)``, whatever the file has (``voi`` then says nothing); in modality values for a DICOM
            (PS3.3's LINEAR function), in stored values for the other formats (``center - width / 2`` to
            ``center + width / 2``).
        percentiles: ``(low, high)`` in percent, whatever the file declares: these percentiles of the image's own values
            become 0 and 1. The same tissue then has other values in another film.

    Raises:
        ValueError: an argument out of its range, or choices that exclude each other.
    """

    voi: str = "auto"
    voi_item: int | str = 0
    window: tuple[float, float] | None = None
    percentiles: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.voi not in VOI:
            raise ValueError(f"voi must be one of {VOI}, got {self.voi!r}")
        if isinstance(self.voi_item, bool) or not isinstance(self.voi_item, (int, str)):
            raise ValueError(f"voi_item must be a place from 0 or an explanation, got {self.voi_item!r}")
        if isinstance(self.voi_item, int) and self.voi_item < 0:
            raise ValueError(f"voi_item must be 0 or more, got {self.voi_item}")
        for name in ("window", "percentiles"):
            pair = getattr(self, name)
            if pair is None:
                continue
            numbers = [one for one in pair if isinstance(one, (int, float))] if isinstance(pair, (list, tuple)) else []
            if len(numbers) != 2 or len(pair) != 2 or not np.isfinite(numbers).all():
                raise ValueError(f"{name} must be two finite numbers, got {pair!r}")
            object.__setattr__(self, name, (float(pair[0]), float(pair[1])))
        if self.window is not None and self.window[1] <= 0:
            raise ValueError(f"window must be (center, width) with a width above 0, got {self.window}")
        if self.percentiles is not None and not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise ValueError(f"percentiles must rise within 0 to 100, got {self.percentiles}")
        if self.window is not None and self.percentiles is not None:
            raise ValueError(f"give window={self.window} or percentiles={self.percentiles}, not both")

    def percentile_range(self, values: np.ndarray) -> tuple[float, float, str]:
        """``(low, high, step)``: what ``percentiles`` are in an image's own values.

        Raises:
            UnusableError: no values, or both percentiles are one value.
        """
        asked = self.percentiles or (0.0, 100.0)
        low, high = np.percentile(values, asked) if values.size else (0.0, 0.0)
        if not low < high:
            raise UnusableError(f"percentiles {asked} are one value, {low:g}", "give others, further apart")
        names = " and ".join(f"{percent:g}" for percent in asked)
        return float(low), float(high), f"percentiles {names} of the image: {low:g} to {high:g}"


def scale_as_asked(
    values: np.ndarray, options: GreyOptions, declared: tuple[float, float] | None = None
) -> tuple[np.ndarray, str] | None:
    """Apply the caller's own window or percentiles, else the declared range, to values that aren't DICOM's.

    Args:
        values: ``[H, W]``, any real type.
        options: the caller's choice.
        declared: the range that the file declares.

    Returns:
        ``(float32 [H, W] in [0, 1], step)``, or None where nothing is asked for or declared.

    Raises:
        UnusableError: the values are not finite, or the percentiles one value.
    """
    if options.window is None and options.percentiles is None and declared is None:
        return None
    _refuse_non_finite(values)
    if options.window is not None:
        center, width = options.window
        low, high, step = center - width / 2, center + width / 2, f"window as asked: center {center:g}, width {width:g}"
    elif options.percentiles is None and declared is not None:
        low, high = declared
        step = f"declared range {low:g} to {high:g}"
    else:
        low, high, step = options.percentile_range(values)
    return np.clip((values.astype(np.float64) - low) / (high - low), 0, 1).astype(np.float32), step


def used_range(least: int, greatest: int, bits: int) -> tuple[int, int] | None:
    """The range of the bits that an image's values need, where they leave four or more unused; else None.

    Writers leave 8 to 12 bits in words of 16 and say nothing of it. By the range of the words such a film would be
    black, so the depth is that of its greatest value, a whole number of bits, 8 at least: 4000 is one of 0 to 4095.

    Args:
        least: the image's least value.
        greatest: its greatest.
        bits: the depth that the file declares.
    """
    sign = int(least < 0)
    needed = max(_LEAST_DEPTH, max(greatest, -least - 1).bit_length() + sign)
    if greatest < _LABELS or bits - needed < _BLACK:
        return None
    return (-(1 << (needed - 1)), (1 << (needed - 1)) - 1) if sign else (0, (1 << needed) - 1)


def full_range(values: np.ndarray, bits: int, remedy: str) -> tuple[np.ndarray, str]:
    """Values in [0, 1] by what their type can hold (see :func:`used_range`), as float32, and a note: empty
    where it is their whole range.

    Args:
        values: uint8 or uint16, or floats that already lie in [0, 1]; any shape.
        bits: the depth of unsigned integers.
        remedy: what to do about a file without a range, for the error.

    Raises:
        UnusableError: another type, or floats that aren't finite or lie elsewhere: there is no declared range.
    """
    if values.dtype.kind == "u" and values.dtype.itemsize <= 2:
        used = used_range(0, int(values.max()), bits)
        top = used[1] if used else (1 << bits) - 1
        note = f"range 0 to {top}: values leave the upper bits of {bits} unused" if used else ""
        return np.divide(values, np.float32(top), dtype=np.float32), note
    _refuse_non_finite(values)
    low, high = values.min(), values.max()
    if values.dtype.kind == "f" and 0 <= low <= high <= 1:
        return values.astype(np.float32), ""
    raise UnusableError(f"{values.dtype} values from {low:g} to {high:g} without a declared grey range", remedy)


def _refuse_non_finite(values: np.ndarray) -> None:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise UnusableError("holds NaN or infinite values", "export it again with finite values")
