"""DICOM's grayscale pipeline: stored codes -> Modality LUT -> VOI LUT or window -> [0, 1] -> polarity.

Written out rather than taken from ``pydicom.pixel_data_handlers.util``, whose ``apply_modality_lut`` refuses tables of
10 to 15 bits, whose ``apply_voi_lut`` wraps indices above 255 when the table's entries have 8 bits, and whose windows
come out inverted for a negative RescaleSlope. The tests hold both against each other where pydicom is right.

Source: DICOM PS3.3 C.7.6.3.1.2 (photometric interpretation), C.11.1 (Modality LUT), C.11.2 (VOI LUT), C.11.6
(Presentation LUT Shape); https://dicom.nema.org/medical/dicom/current/output/chtml/part03/sect_C.11.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["GrayscaleError", "to_unit_range"]


class GrayscaleError(ValueError):
    """The data set's grayscale attributes contradict themselves; the message says how."""


def to_unit_range(
    codes: np.ndarray, bits: int, signed: bool, dataset: Dataset, *, little_endian: bool, use_voi: bool
) -> tuple[np.ndarray, list[str]]:
    """Grey values in [0, 1], bone bright, of stored pixel codes.

    Args:
        codes: integers of any shape, with the unused high bits already removed and the sign extended.
        bits: BitsStored.
        signed: whether PixelRepresentation is 1.
        dataset: the attributes of the Image Pixel, Modality LUT and VOI LUT modules.
        little_endian: the byte order of LUT data stored as OW.
        use_voi: apply the first VOI LUT or, without one, the first window; else keep the full range.

    Returns:
        ``(values, steps)``: float64 of ``codes``' shape, and what was applied, in order.

    Raises:
        GrayscaleError: a LUT or window that the standard doesn't allow.
    """
    stored = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    values, limits, steps = _modality(codes, stored, dataset, little_endian)
    luts = dataset.get("VOILUTSequence") if use_voi else None
    center, width = (_numbers(dataset, name) if use_voi else [] for name in ("WindowCenter", "WindowWidth"))
    if luts:
        table, first, depth = _lut(luts[0], limits[0] < 0, little_endian)
        unit = _look_up(np.rint(values).astype(np.int64), table, first) / float((1 << depth) - 1)
        steps.append(f"VOI LUT 1 of {len(luts)}")
    elif center and width:
        function = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
        unit = _window(values, center[0], width[0], function)
        steps.append(f"window 1 of {len(center)}: center {center[0]:g}, width {width[0]:g}, {function}")
    else:
        unit = (np.asarray(values, dtype=np.float64) - limits[0]) / (limits[1] - limits[0])
        steps.append(f"declared range {limits[0]:g} to {limits[1]:g}")
    if dataset.PhotometricInterpretation == "MONOCHROME1" or dataset.get("PresentationLUTShape") == "INVERSE":
        unit = 1.0 - unit
        steps.append("inverted")
    return unit, steps


def _modality(
    codes: np.ndarray, limits: tuple[float, float], dataset: Dataset, little_endian: bool
) -> tuple[np.ndarray, tuple[float, float], list[str]]:
    """Modality LUT, or rescale, with the range that its output can take."""
    if dataset.get("ModalityLUTSequence"):
        table, first, _ = _lut(dataset.ModalityLUTSequence[0], limits[0] < 0, little_endian)
        begin, end = (int(np.clip(limit - first, 0, len(table) - 1)) for limit in limits)
        reached = table[begin : end + 1]  # what the stored range maps to; often far less than its declared 16 bits
        if reached.min() == reached.max():
            raise GrayscaleError("a Modality LUT that maps every pixel to one value")
        return (
            _look_up(codes.astype(np.int64), table, first),
            (int(reached.min()), int(reached.max())),
            ["Modality LUT"],
        )
    slope, intercept = _numbers(dataset, "RescaleSlope"), _numbers(dataset, "RescaleIntercept")
    if not (slope and intercept) or (slope[0] == 1 and intercept[0] == 0):
        return codes, limits, []
    if slope[0] == 0:
        raise GrayscaleError("RescaleSlope is 0")
    ends = [limit * slope[0] + intercept[0] for limit in limits]
    step = f"rescale: slope {slope[0]:g}, intercept {intercept[0]:g}"
    return codes * slope[0] + intercept[0], (min(ends), max(ends)), [step]


def _lut(item: Dataset, signed_input: bool, little_endian: bool) -> tuple[np.ndarray, int, int]:
    """``(table, first mapped value, bits per entry)`` of a LUT sequence's item; PS3.3 C.11.1.1.1."""
    descriptor, data = item.get("LUTDescriptor"), item.get("LUTData")
    if descriptor is None or data is None or len(descriptor) != 3:
        raise GrayscaleError("a LUT without descriptor or data")
    entries, first, depth = (int(value) for value in descriptor)
    entries = entries % (1 << 16) or 1 << 16  # 0 stands for 65536
    if signed_input and first >= 1 << 15:
        first -= 1 << 16  # written as US though the pixels are signed
    if not 8 <= depth <= 16:
        raise GrayscaleError(f"a LUT of {depth} bits per entry")
    if isinstance(data, bytes):
        byte_order = "<" if little_endian else ">"
        table = np.frombuffer(data, "u1" if len(data) in (entries, entries + entries % 2) else f"{byte_order}u2")
    else:
        table = np.asarray(data)
    if len(table) < entries:
        raise GrayscaleError(f"a LUT of {len(table)} entries where {entries} are declared")
    table = table[:entries].astype(np.int64)
    if table.max() >= 1 << depth or table.min() < 0:
        raise GrayscaleError(f"LUT entries beyond their declared {depth} bits")
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
        raise GrayscaleError(f"a window of width {width:g} and function {function[:16]}")
    if width == 0:
        return (values > center).astype(np.float64)
    return np.clip((values - center) / width + 0.5, 0.0, 1.0)


def _numbers(dataset: Dataset, name: str) -> list[float]:
    """The values of a decimal attribute; empty where it is absent or has no value."""
    value: Any = dataset.get(name)
    if value is None or value == "":
        return []
    numbers = [float(one) for one in (value if hasattr(value, "__len__") else [value])]
    if not np.isfinite(numbers).all():
        raise GrayscaleError(f"{name} is not finite")
    return numbers
