"""DICOM's grayscale pipeline: stored codes -> Modality LUT -> VOI LUT or window -> [0, 1] -> polarity -> padding.

Written out rather than taken from ``pydicom.pixel_data_handlers.util``, whose ``apply_modality_lut`` refuses tables of
10 to 15 bits, whose ``apply_voi_lut`` wraps indices above 255 when the table's entries have 8 bits, and whose windows
come out inverted for a negative RescaleSlope. The tests hold both against each other where pydicom is right.

Source: DICOM PS3.3 C.7.5.1.1.2 (pixel padding), C.7.6.3.1.2 (photometric interpretation), C.11.1 (Modality LUT),
C.11.2 (VOI LUT), C.11.6 (Presentation LUT Shape);
https://dicom.nema.org/medical/dicom/current/output/chtml/part03/sect_C.11.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cxw_monai.io.scaling import GreyOptions, ScalingError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["Grayscale", "padding_range", "to_unit_range"]


@dataclass(frozen=True)
class Grayscale:
    """What the pipeline has to know beside the attributes.

    Attributes:
        bits: BitsStored.
        signed: whether PixelRepresentation is 1.
        little_endian: the byte order of LUT data stored as OW.
        options: the caller's choice.
    """

    bits: int
    signed: bool
    little_endian: bool
    options: GreyOptions

    @property
    def limits(self) -> tuple[int, int]:
        """The least and greatest stored code."""
        half = 1 << (self.bits - 1)
        return (-half, half - 1) if self.signed else (0, 2 * half - 1)


def to_unit_range(
    codes: np.ndarray, tags: Mapping[str, Any], scale: Grayscale, of_image: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, list[str]]:
    """Grey values in [0, 1], bone bright, of stored pixel codes; padding is 0.

    Args:
        codes: integers of any shape, with the unused high bits already removed and the sign extended.
        tags: keyword -> value of the attributes of the Image Pixel, Modality LUT and VOI LUT modules.
        scale: depth, sign, byte order and the caller's choice.
        of_image: values of ``codes``' shape -> one for each pixel that isn't padding; only percentiles ask for it.

    Returns:
        ``(values, steps)``: float32 of ``codes``' shape, and what was applied, in order.

    Raises:
        ScalingError: a LUT or window that the standard doesn't allow or the file doesn't have.
    """
    values, limits, steps = _modality(codes, tags, scale)
    unit, step = _present(values, limits, tags, scale, of_image)
    unit = unit.astype(np.float32)
    steps.append(step)
    if tags["PhotometricInterpretation"] == "MONOCHROME1" or tags.get("PresentationLUTShape") == "INVERSE":
        unit = 1 - unit
        steps.append("inverted")
    padding = padding_range(tags, scale.signed)
    if padding is not None:
        unit[(codes >= padding[0]) & (codes <= padding[1])] = 0
        low, high = padding
        steps.append(f"padding {low} set to black" if low == high else f"padding {low} to {high} set to black")
    return unit, steps


def padding_range(tags: Mapping[str, Any], signed: bool) -> tuple[int, int] | None:
    """The stored codes, ends included, that mark pixels outside the image, or None."""
    ends = [tags.get(name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    if ends[0] is None:
        return None
    ends = [int(end) for end in ends if end is not None]
    if signed:  # written as US though the pixels are signed, or the other way round
        ends = [end - (1 << 16) if end >= 1 << 15 else end for end in ends]
    else:
        ends = [end + (1 << 16) if end < 0 else end for end in ends]
    return min(ends), max(ends)


def _modality(
    codes: np.ndarray, tags: Mapping[str, Any], scale: Grayscale
) -> tuple[np.ndarray, tuple[float, float], list[str]]:
    """Modality LUT, or rescale, with the range that its output can take."""
    limits = scale.limits
    if tags.get("ModalityLUTSequence"):
        table, first, _ = _lut(tags["ModalityLUTSequence"][0], scale.signed, scale.little_endian)
        begin, end = (int(np.clip(limit - first, 0, len(table) - 1)) for limit in limits)
        reached = table[begin : end + 1]  # what the stored range maps to; often far less than its declared 16 bits
        if reached.min() == reached.max():
            raise ScalingError("a Modality LUT that maps every pixel to one value")
        values = _look_up(codes.astype(np.int64), table, first)
        return values, (int(reached.min()), int(reached.max())), ["Modality LUT"]
    slope, intercept = _numbers(tags, "RescaleSlope"), _numbers(tags, "RescaleIntercept")
    if not (slope and intercept) or (slope[0] == 1 and intercept[0] == 0):
        return codes, limits, []
    if slope[0] == 0:
        raise ScalingError("RescaleSlope is 0")
    ends = [limit * slope[0] + intercept[0] for limit in limits]
    if not 0 < max(ends) - min(ends) < np.inf:
        raise ScalingError("RescaleSlope and RescaleIntercept leave no range of numbers")
    step = f"rescale: slope {slope[0]:g}, intercept {intercept[0]:g}"
    return codes * slope[0] + intercept[0], (min(ends), max(ends)), [step]


def _present(
    values: np.ndarray,
    limits: tuple[float, float],
    tags: Mapping[str, Any],
    scale: Grayscale,
    of_image: Callable[[np.ndarray], np.ndarray],
) -> tuple[np.ndarray, str]:
    """Modality values to [0, 1] by the choice there is: asked for, declared by the file, or the full range."""
    options = scale.options
    if options.window is not None:
        center, width = options.window
        return _window(values, center, width, "LINEAR"), f"window as asked: center {center:g}, width {width:g}, LINEAR"
    if options.percentiles is not None:
        low, high, step = options.percentile_range(of_image(values))
        return np.clip((np.asarray(values, dtype=np.float64) - low) / (high - low), 0, 1), step
    choice = _choose(tags, options)
    if choice is None:
        unit = (np.asarray(values, dtype=np.float64) - limits[0]) / (limits[1] - limits[0])
        return unit, f"declared range {limits[0]:g} to {limits[1]:g}"
    kind, number, count = choice
    if kind == "lut":
        table, first, depth = _lut(tags["VOILUTSequence"][number], limits[0] < 0, scale.little_endian)
        unit = _look_up(np.rint(values).astype(np.int64), table, first) / float((1 << depth) - 1)
        return unit, f"VOI LUT {number + 1} of {count}"
    center, width = (_numbers(tags, name)[number] for name in ("WindowCenter", "WindowWidth"))
    function = str(tags.get("VOILUTFunction") or "LINEAR").upper()
    step = f"window {number + 1} of {count}: center {center:g}, width {width:g}, {function}"
    return _window(values, center, width, function), step


def _choose(tags: Mapping[str, Any], options: GreyOptions) -> tuple[str, int, int] | None:
    """``(kind, place, how many there are)`` of the file's VOI LUT or window to apply, or None for the full range."""
    if options.voi == "none":
        return None
    windows = min(len(_numbers(tags, name)) for name in ("WindowCenter", "WindowWidth"))
    counts = {"lut": len(tags.get("VOILUTSequence") or ()), "window": windows}
    item = options.voi_item
    wanted = ("lut", "window") if options.voi == "auto" else (options.voi,)
    kinds = [kind for kind in wanted if counts[kind]]
    if not kinds and options.voi == "auto" and item == 0:
        return None
    for kind in kinds:
        if isinstance(item, int):
            if item < counts[kind]:
                return kind, item, counts[kind]
            break
        explanations = _explanations(tags, kind)[: counts[kind]]
        if item.strip().casefold() in explanations:
            return kind, explanations.index(item.strip().casefold()), counts[kind]
    raise ScalingError(
        f"voi={options.voi!r} with voi_item={item!r} asked of a file with {counts['lut']} VOI LUTs "
        f"and {counts['window']} windows"
    )


def _explanations(tags: Mapping[str, Any], kind: str) -> list[str]:
    """Explanations of the VOI LUTs or windows, in order, for comparison."""
    if kind == "lut":
        found = [item.get("LUTExplanation") or "" for item in tags["VOILUTSequence"]]
    else:
        value = tags.get("WindowCenterWidthExplanation") or ""
        found = [value] if isinstance(value, str) else list(value)
    return [str(text).strip().casefold() for text in found]


def _lut(item: Dataset, signed_input: bool, little_endian: bool) -> tuple[np.ndarray, int, int]:
    """``(table, first mapped value, bits per entry)`` of a LUT sequence's item; PS3.3 C.11.1.1.1."""
    descriptor, data = item.get("LUTDescriptor"), item.get("LUTData")
    if descriptor is None or data is None or len(descriptor) != 3:
        raise ScalingError("a LUT without descriptor or data")
    entries, first, depth = (int(value) for value in descriptor)
    entries = entries % (1 << 16) or 1 << 16  # 0 stands for 65536
    if signed_input and first >= 1 << 15:
        first -= 1 << 16  # written as US though the pixels are signed
    if not 8 <= depth <= 16:
        raise ScalingError(f"a LUT of {depth} bits per entry")
    if isinstance(data, bytes):
        byte_order = "<" if little_endian else ">"
        table = np.frombuffer(data, "u1" if len(data) in (entries, entries + entries % 2) else f"{byte_order}u2")
    else:
        table = np.atleast_1d(np.asarray(data))
    if len(table) < entries:
        raise ScalingError(f"a LUT of {len(table)} entries where {entries} are declared")
    table = table[:entries].astype(np.int64)
    if table.max() >= 1 << depth or table.min() < 0:
        raise ScalingError(f"LUT entries beyond their declared {depth} bits")
    return table, first, depth


def _look_up(values: np.ndarray, table: np.ndarray, first: int) -> np.ndarray:
    """Table values; inputs outside the table take its first or last entry."""
    return table[np.clip(values - first, 0, len(table) - 1)]


def _window(values: np.ndarray, center: float, width: float, function: str) -> np.ndarray:
    """Window to [0, 1]; PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    values = np.asarray(values, dtype=np.float64)
    if function == "SIGMOID" and width > 0:
        return 1.0 / (1.0 + np.exp(np.clip(-4.0 * (values - center) / width, -700, 700)))
    if function == "LINEAR" and width >= 1:
        center, width = center - 0.5, width - 1.0
    elif not (function == "LINEAR_EXACT" and width > 0):
        raise ScalingError(f"a window of width {width:g} and function {function[:16]}")
    if width == 0:
        return (values > center).astype(np.float64)
    return np.clip((values - center) / width + 0.5, 0.0, 1.0)


def _numbers(tags: Mapping[str, Any], name: str) -> list[float]:
    """The values of a decimal attribute; empty where it is absent or has no value."""
    value: Any = tags.get(name)
    if value is None or value == "":
        return []
    numbers = [float(one) for one in (value if hasattr(value, "__len__") else [value])]
    if not np.isfinite(numbers).all():
        raise ScalingError(f"{name} is not finite")
    return numbers
