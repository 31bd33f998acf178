"""DICOM's grayscale pipeline: stored codes -> Modality LUT -> VOI LUT or window -> [0, 1] -> polarity -> padding.

Written out rather than taken from pydicom, whose ``apply_modality_lut`` refuses tables of 10 to 15 bits, whose
``apply_voi_lut`` wraps indices above 255 when the table's entries have 8 bits, and whose windows come out inverted for
a negative RescaleSlope; or from highdicom (0.28), which applies a LINEAR window's half a step before the rescale,
scales a VOI LUT by its own extremes, and refuses all depths but 8 and 16. The tests compare with both where they are
right.

A LUT item without descriptor or data counts as absent. A VOI LUT or window that the file itself chooses and that can't
be used (a width of 0, entries beyond their depth, every pixel black, or nineteen of twenty black or white) is left out,
and the next one taken, in the end the declared range, or that of the bits that the image needs
(:func:`~cxw_monai.io.scaling.used_range`); the steps say so. What the Modality LUT makes of the codes can't be left out
without changing what the values mean: a contradiction there is an error. The images of angiography and fluoroscopy (XA,
RF) are shown without theirs, which leads back to the X-ray intensity; only a rescale in a file with neither a Modality
LUT nor PixelIntensityRelationship is applied.

Source: DICOM PS3.3 C.7.5.1.1.2 (pixel padding), C.7.6.3.1.2 (photometric interpretation), C.8.7.1.1.2 (XA and RF),
C.11.1 (Modality LUT), C.11.2 (VOI LUT), C.11.6 (Presentation LUT Shape); PS3.4 N.2.5 (XA and RF);
https://dicom.nema.org/medical/dicom/current/output/chtml/part03/sect_C.11.html
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest

import numpy as np
from pydicom.dataset import Dataset

from cxw_monai.io.radiograph import UnusableError
from cxw_monai.io.scaling import GreyOptions, used_range

from .attributes import Attributes
from .luts import LookUpTable, read_lut

__all__ = ["FLUOROSCOPY", "Grayscale", "padding_range", "to_unit_range"]

FLUOROSCOPY = tuple(f"1.2.840.10008.5.1.4.1.1.12.{last}" for last in ("1", "1.1", "2", "2.1", "3"))
"""SOP classes of XA and RF, of one plane, enhanced, and of two planes."""

_LEAST_REACH = 1 / 16  # of [0, 1], that the whole range of codes must come to
_NARROWED_REACH = 1 / 2  # the same for a compressed stream of fewer bits than its file declares
_LEAST_CONTRAST = 1 / 256  # between the image's least and greatest value: below it the film is black, white or flat
_LEAST_GREY = 1 / 20  # of the image's pixels, that a window shows neither black nor white
_NARROW = 1 / 4  # of the image's codes: only a narrower window may show less than that
_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")

Values = np.ndarray
Limits = tuple[float, float]


@dataclass(frozen=True)
class Grayscale:
    """What the pipeline has to know beside the attributes."""

    bits: int  # of a code
    signed: bool
    little_endian: bool  # the byte order of LUT data
    options: GreyOptions
    narrowed: bool = False  # codes have fewer bits than the file declares

    @property
    def limits(self) -> tuple[int, int]:
        """The least and greatest stored code."""
        half = 1 << (self.bits - 1)
        return (-half, half - 1) if self.signed else (0, 2 * half - 1)


@dataclass(frozen=True)
class _Choice:
    """A VOI LUT or window of the file that can be applied."""

    place: int
    explanation: str
    step: str
    apply: Callable[[Values], Values]


def to_unit_range(
    codes: np.ndarray,
    tags: Attributes,
    scale: Grayscale,
    inverted: bool,
    seen: tuple[int, int],
    of_image: Callable[[np.ndarray], np.ndarray],
) -> tuple[np.ndarray, list[str]]:
    """Grey values in [0, 1], bone bright, of stored pixel codes; padding is 0.

    Args:
        codes: integers of any shape, with the unused high bits already removed and the sign extended.
        tags: the file's attributes.
        scale: depth, sign, byte order and the caller's choice.
        inverted: whether the least value is white.
        seen: the least and greatest code of the image.
        of_image: values of ``codes``' shape -> one for each pixel that isn't padding; asked for where it is needed.

    Returns:
        ``(values, steps)``: float32 of ``codes``' shape, and what was applied, in order.

    Raises:
        UnusableError: a Modality LUT or rescale that contradicts itself, or a choice that the file doesn't have.
    """
    values, limits, steps = _modality(codes, tags, scale)
    inside = (codes >= seen[0]) & (codes <= seen[1])
    used = partial(_used_limits, codes, tags, scale, seen, of_image) if "Modality LUT" not in steps else lambda: None
    unit, presented = _present(values, limits, tags, scale, inside, of_image, used)
    unit = unit.astype(np.float32)
    steps += presented
    if inverted:
        unit = 1 - unit
        steps.append("inverted")
    padding = padding_range(tags, scale.signed)
    if padding is not None:
        unit[(codes >= padding[0]) & (codes <= padding[1])] = 0
        low, high = padding
        steps.append(f"padding {low} set to black" if low == high else f"padding {low} to {high} set to black")
    return unit, steps


def padding_range(tags: Attributes, signed: bool) -> tuple[int, int] | None:
    """The stored codes, ends included, that mark pixels outside the image, or None."""
    names = ("PixelPaddingValue", "PixelPaddingRangeLimit")
    ends = [tags.whole[name] for name in names if name in tags.whole]
    if names[0] not in tags.whole:
        return None
    if signed:  # written as US though the pixels are signed, or the other way round
        ends = [end - (1 << 16) if end >= 1 << 15 else end for end in ends]
    else:
        ends = [end + (1 << 16) if end < 0 else end for end in ends]
    return min(ends), max(ends)


def _modality(codes: np.ndarray, tags: Attributes, scale: Grayscale) -> tuple[Values, Limits, list[str]]:
    """Modality LUT, or rescale, with the range that its output can take."""
    limits: Limits = scale.limits
    steps: list[str] = []
    is_fluoroscopy = tags.text.get("SOPClassUID") in FLUOROSCOPY
    table = None if is_fluoroscopy else _modality_lut(tags, scale, steps)
    if table is not None:
        reached = table.within(limits)  # what the stored range maps to; often far less than its declared 16 bits
        if reached.min() == reached.max():
            raise UnusableError("a Modality LUT that maps every pixel to one value", _remove("ModalityLUTSequence"))
        steps += [f"Modality LUT of {table.note}"] if table.note else []
        return table(codes.astype(np.int64)), (int(reached.min()), int(reached.max())), [*steps, "Modality LUT"]
    has_table = is_fluoroscopy and any("LUTData" in item for item in tags.sequences.get("ModalityLUTSequence", ()))
    if has_table:
        steps.append("Modality LUT left out: XA and RF are shown without it")
    if is_fluoroscopy and (has_table or "PixelIntensityRelationship" in tags.text):
        if tags.numbers("RescaleSlope") or tags.numbers("RescaleIntercept"):
            steps.append("rescale left out: XA and RF are shown without it")
        return codes, limits, steps
    slope, intercept = _rescale(tags, steps)
    if (slope, intercept) == (1, 0):
        return codes, limits, steps
    ends = [limit * slope + intercept for limit in limits]
    if not 0 < max(ends) - min(ends) < np.inf:
        raise UnusableError("RescaleSlope and RescaleIntercept leave no range of numbers", _remove("RescaleSlope"))
    steps.append(f"rescale: slope {slope:g}, intercept {intercept:g}")
    return codes * slope + intercept, (min(ends), max(ends)), steps


def _remove(keyword: str) -> str:
    return f"correct {keyword} in the file, or remove it"


def _modality_lut(tags: Attributes, scale: Grayscale, steps: list[str]) -> LookUpTable | None:
    name = "ModalityLUTSequence"
    if name in tags.unreadable:
        raise UnusableError(f"{name} cannot be read", _remove(name))
    for item in tags.sequences.get(name, ()):
        try:
            table = read_lut(item, scale.limits, scale.little_endian, by_entries=True)
        except UnusableError as error:
            raise UnusableError(f"{name}: {error}", _remove(name)) from error
        if table is not None:
            return table
        steps.append("Modality LUT left out: no descriptor or no data")
    return None


def _rescale(tags: Attributes, steps: list[str]) -> tuple[float, float]:
    """Slope and intercept; 1 and 0 for what is absent."""
    found = {"RescaleSlope": 1.0, "RescaleIntercept": 0.0}
    given = [name for name in found if tags.numbers(name)]
    for name in given:
        value = tags.numbers(name)[0]
        if value is None and name in tags.ambiguous:
            reason = f"{name} can be read two ways: its comma is before a fraction, or between thousands"
            raise UnusableError(reason, f"write {name} without a comma into the file")
        if value is None or not np.isfinite(value):
            raise UnusableError(f"{name} is no finite number", _remove(name))
        found[name] = value
    if found["RescaleSlope"] == 0:
        raise UnusableError("RescaleSlope is 0", _remove("RescaleSlope"))
    if len(given) == 1:
        steps.append(f"{given[0]} alone: the other one taken as {1 if given[0] == 'RescaleIntercept' else 0}")
    return found["RescaleSlope"], found["RescaleIntercept"]


def _present(
    values: Values,
    limits: Limits,
    tags: Attributes,
    scale: Grayscale,
    inside: np.ndarray,
    of_image: Callable[[np.ndarray], np.ndarray],
    used_limits: Callable[[], Limits | None],
) -> tuple[Values, list[str]]:
    """Modality values to [0, 1] by the choice there is: asked for, declared by the file, or the full range."""
    options = scale.options
    if options.window is not None:
        center, width = options.window
        function = "LINEAR" if width > 1 else "LINEAR_EXACT"
        step = f"window as asked: center {center:g}, width {width:g}, {function}"
        return _window(values, center, width, function), [step]
    if options.percentiles is not None:
        low, high, step = options.percentile_range(of_image(values))
        return np.clip((np.asarray(values, dtype=np.float64) - low) / (high - low), 0, 1), [step]
    steps: list[str] = []
    if options.voi != "none":
        for choice in _choices(tags, limits, scale, steps):
            unit = choice.apply(values)
            reach = _NARROWED_REACH if scale.narrowed else _LEAST_REACH
            if np.ptp(unit[inside]) < _LEAST_CONTRAST or np.ptp(unit) < reach:
                steps.append(f"{choice.step} left out: it shows the film black, white or flat")
            elif _is_saturated(unit, inside, of_image):
                steps.append(f"{choice.step} left out: it shows nearly all of the film black or white")
            else:
                return unit, [*steps, choice.step]
        if not (options.voi == "auto" and options.voi_item == 0):
            raise _lacking(tags, options, steps)
    used = None if options.voi == "none" else used_limits()
    limits, note = (limits, "declared range") if used is None else (used, f"upper bits of {scale.bits} unused: range")
    unit = (np.asarray(values, dtype=np.float64) - limits[0]) / (limits[1] - limits[0])
    return unit, [*steps, f"{note} {limits[0]:g} to {limits[1]:g}"]


def _used_limits(
    codes: np.ndarray,
    tags: Attributes,
    scale: Grayscale,
    seen: tuple[int, int],
    of_image: Callable[[np.ndarray], np.ndarray],
) -> Limits | None:
    """The modality values of the bits that the image needs; None where that is its declared range."""
    if padding_range(tags, scale.signed) is not None:
        there = of_image(codes)
        seen = (int(there.min()), int(there.max())) if there.size else seen
    used = used_range(*seen, scale.bits)
    if used is None:
        return None
    ends = _modality(np.array(used), tags, scale)[0]
    return float(min(ends)), float(max(ends))


def _is_saturated(unit: Values, inside: np.ndarray, of_image: Callable[[np.ndarray], np.ndarray]) -> bool:
    """Whether a narrow window, such as one of another depth, leaves nearly every pixel black or white."""
    is_grey = (unit > 0) & (unit < 1)
    if np.count_nonzero(is_grey & inside) > _NARROW * np.count_nonzero(inside):
        return False
    pixels = of_image(is_grey)
    return pixels.size > 0 and float(np.mean(pixels)) < _LEAST_GREY


def _lacking(tags: Attributes, options: GreyOptions, left_out: list[str]) -> UnusableError:
    """The error for a choice that the file doesn't have, or has and that can't be used."""
    windows = max(len(tags.numbers(name)) for name in ("WindowCenter", "WindowWidth"))
    luts = len(tags.sequences.get("VOILUTSequence", ()))
    reason = f"voi={options.voi!r} with voi_item={options.voi_item!r} asked of a file with {luts} VOI LUTs"
    reason = "; ".join([f"{reason} and {windows} windows", *left_out])
    return UnusableError(
        reason, "take another voi or voi_item: voi='auto' with voi_item=0, or voi='none', always works"
    )


def _choices(tags: Attributes, limits: Limits, scale: Grayscale, left_out: list[str]) -> Iterator[_Choice]:
    """The file's VOI LUTs or windows that are asked for, in order; those that can't be used are noted."""
    options = scale.options
    item = options.voi_item
    named = item.strip().casefold() if isinstance(item, str) else None
    for kind in ("lut", "window") if options.voi == "auto" else (options.voi,):
        there = list(_luts(tags, limits, scale, left_out) if kind == "lut" else _windows(tags, left_out))
        if named is not None:
            yield from (choice for choice in there if choice.explanation == named)
        elif item == 0:
            yield from there
        else:
            yield from (choice for choice in there if choice.place == item)
            if there:  # the place counts among the LUTs, or else among the windows
                return


def _luts(tags: Attributes, limits: Limits, scale: Grayscale, left_out: list[str]) -> Iterator[_Choice]:
    if "VOILUTSequence" in tags.unreadable:
        left_out.append("VOI LUTs left out: they cannot be read")
    items = tags.sequences.get("VOILUTSequence", [])
    for place, item in enumerate(items):
        name = f"VOI LUT {place + 1} of {len(items)}"
        try:
            table = read_lut(item, limits, scale.little_endian)
        except UnusableError as error:
            left_out.append(f"{name} left out: {error}")
            continue
        if table is None:
            left_out.append(f"{name} left out: no descriptor or no data")
            continue
        step = f"{name}, {table.note}" if table.note else name
        yield _Choice(place, _explanation(item), step, partial(_through_lut, table=table))


def _through_lut(values: Values, table: LookUpTable) -> Values:
    """A VOI LUT's output in [0, 1]."""
    return np.minimum(table(np.rint(values).astype(np.int64)) / float((1 << table.bits) - 1), 1)


def _explanation(item: Dataset) -> str:
    try:
        return _folded(item.get("LUTExplanation"))
    except Exception:  # pydicom converts it when it is asked for, and raises anything then
        return ""


def _folded(text: object) -> str:
    return str(text or "").strip().casefold()


def _windows(tags: Attributes, left_out: list[str]) -> Iterator[_Choice]:
    pairs = list(zip_longest(tags.numbers("WindowCenter"), tags.numbers("WindowWidth")))
    explanations = [_folded(text) for text in tags.text.get("WindowCenterWidthExplanation", "").split("\\")]
    function = tags.text.get("VOILUTFunction", "LINEAR").split("\\")[0].strip().upper().replace(" ", "_") or "LINEAR"
    for place, (center, width) in enumerate(pairs):
        name = f"window {place + 1} of {len(pairs)}"
        reason = _unusable(center, width, function)
        if reason:
            left_out.append(f"{name} left out: {reason}")
            continue
        assert center is not None and width is not None
        step = f"{name}: center {center:g}, width {width:g}, {function}"
        apply = partial(_window, center=center, width=width, function=function)
        yield _Choice(place, explanations[place] if place < len(explanations) else "", step, apply)


def _unusable(center: float | None, width: float | None, function: str) -> str:
    """Why a window can't be used; PS3.3 C.11.2.1.2 and C.11.2.1.3. A LINEAR one of width 1 leaves black and white."""
    if center is None or width is None or not np.isfinite([center, width]).all():
        return "center and width aren't two numbers"
    if function not in _FUNCTIONS:
        return "its function isn't LINEAR, LINEAR_EXACT or SIGMOID"
    least = 1 if function == "LINEAR" else 0
    return f"its width {width:g} isn't above {least}" if width <= least else ""


def _window(values: np.ndarray, center: float, width: float, function: str) -> np.ndarray:
    """Window to [0, 1]; PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    values = np.asarray(values, dtype=np.float64)
    if function == "SIGMOID":
        return 1.0 / (1.0 + np.exp(np.clip(-4.0 * (values - center) / width, -700, 700)))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1.0
    return np.clip((values - center) / width + 0.5, 0.0, 1.0)
