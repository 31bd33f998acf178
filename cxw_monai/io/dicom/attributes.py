"""The attributes that reading a film needs, whatever state they are in.

Only those listed here are ever converted from their bytes, so that no patient name, id or date can be logged or
reported. pydicom's conversion stops at the first odd value; here a decimal comma is a point, and what is no number is
None, for the part that needs it to decide.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Optional

from pydicom.dataset import Dataset
from pydicom.tag import Tag

__all__ = ["Attributes", "element_bytes", "read_attributes"]

_WHOLE = (
    "Rows", "Columns", "SamplesPerPixel", "NumberOfFrames",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "PixelPaddingValue", "PixelPaddingRangeLimit", "PixelIntensityRelationshipSign",
)  # fmt: skip
_SMALL = (  # never a thousand
    "PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "EstimatedRadiographicMagnificationFactor",
)  # fmt: skip
_DISTANCES = ("DistanceSourceToDetector", "DistanceSourceToPatient")
_DECIMAL = (
    "RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "PixelAspectRatio", *_SMALL, *_DISTANCES,
)  # fmt: skip
_TEXT = (
    "SOPClassUID", "Modality", "PresentationIntentType", "PhotometricInterpretation",
    "WindowCenterWidthExplanation", "VOILUTFunction", "PresentationLUTShape", "PixelIntensityRelationship",
    "PixelSpacingCalibrationType", "ViewPosition", "ImageLaterality", "Laterality", "PatientOrientation",
)  # fmt: skip
_SEQUENCES = ("ModalityLUTSequence", "VOILUTSequence")
_FUNCTIONAL_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")  # of enhanced objects
_LIMITS_MM = (100.0, 20_000.0)  # of a distance from the source
_TEXT_VRS = ("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT")
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")  # 2,048: two thousand, or two and a bit
_OVERLAYS = range(0x6000, 0x6020, 2)

Numbers = list[Optional[float]]


@dataclass
class Attributes:
    """What a file says."""

    whole: dict[str, int] = field(default_factory=dict)  # what is absent, empty or no number isn't there
    unreadable: set[str] = field(default_factory=set)  # whole numbers and sequences that hold something else
    decimal: dict[str, Numbers] = field(default_factory=dict)  # None: empty, no number, or two ways to read it
    ambiguous: set[str] = field(default_factory=set)  # decimal numbers that can be read two ways: 1,000
    text: dict[str, str] = field(default_factory=dict)  # without the padding around; empty ones aren't there
    sequences: dict[str, list[Dataset]] = field(default_factory=dict)
    overlay_bits: set[int] = field(default_factory=set)  # positions of overlay planes within the pixels' words
    notes: list[str] = field(default_factory=list)  # what was read in another way than it is written, for the steps

    def numbers(self, keyword: str) -> Numbers:
        """The values of a decimal attribute; empty where it is absent or has none."""
        return self.decimal.get(keyword, [])


def read_attributes(dataset: Dataset) -> Attributes:
    """The attributes listed above, of a data set as pydicom parsed it; of an enhanced object, its first frame's too."""
    found = Attributes()
    _lift_frame(found, dataset)
    for keyword in _WHOLE:
        _add_whole(found, dataset, keyword)
    for keyword in _DECIMAL:
        _add_decimal(found, dataset, keyword)
    for keyword in _TEXT:
        text = _as_text(dataset, keyword)
        text = text if keyword == "WindowCenterWidthExplanation" else text.upper()  # codes, and one in words
        if text:
            found.text[keyword] = text
    for keyword in _SEQUENCES:
        try:
            items = dataset[keyword].value if keyword in dataset else None
            if items:
                found.sequences[keyword] = list(items)
        except Exception:  # pydicom converts a sequence when it is asked for, and raises anything then
            found.unreadable.add(keyword)
    for group in _OVERLAYS:
        try:
            allocated, position = (_whole(dataset, Tag(group, element)) for element in (0x0100, 0x0102))
        except ValueError:
            continue
        if allocated not in (None, 1) and position is not None:  # 1: the overlay is in an element of its own
            found.overlay_bits.add(position)
    return found


def _lift_frame(found: Attributes, dataset: Dataset) -> None:
    """Put what an enhanced object keeps in its functional groups (PS3.3 C.7.6.16) where other objects have it."""
    wanted = {Tag(keyword) for keyword in (*_WHOLE, *_DECIMAL, *_TEXT, *_SEQUENCES)}
    for name in _FUNCTIONAL_GROUPS:
        try:
            frames = list(dataset[name].value or ())[:1] if name in dataset else []
            groups = [item for frame in frames for group in frame if group.VR == "SQ" for item in group.value]
        except Exception:  # pydicom converts a sequence when it is asked for, and raises anything then
            found.notes.append(f"{name} left out: it cannot be read")
            continue
        for item in groups:
            for tag in wanted & set(item.keys()) - set(dataset.keys()):
                dataset[tag] = item.get_item(tag)


def element_bytes(dataset: Dataset, tag: Any) -> tuple[bytes, str] | None:
    """``(bytes as they lie in the file, VR or "")`` of an element; None where it is absent, has no bytes or was
    converted."""
    element = dataset.get_item(tag) if tag in dataset else None
    if element is None or not isinstance(element.value, bytes) or not element.value:
        return None
    return element.value, element.VR or ""


def _whole(dataset: Dataset, tag: Any) -> int | None:
    """A whole number, binary or text; None where there is none.

    Raises:
        ValueError: it is something else.
    """
    found = element_bytes(dataset, tag)
    if found is None:
        return None
    value, vr = found
    if vr in _TEXT_VRS or (not vr and tag == Tag("NumberOfFrames")):
        text = value.decode("latin-1").strip(" \0")
        return int(text) if text else None
    if len(value) != 2 and (len(value) != 4 or vr in ("US", "SS")):
        raise ValueError(f"{len(value)} bytes for one number")
    little = getattr(dataset.get_item(tag), "is_little_endian", True)
    return int.from_bytes(value, "little" if little else "big", signed=vr in ("SS", "SL"))


def _add_whole(found: Attributes, dataset: Dataset, keyword: str) -> None:
    try:
        number = _whole(dataset, Tag(keyword))
    except ValueError:
        found.unreadable.add(keyword)
        return
    if number is not None:
        found.whole[keyword] = number


def _as_text(dataset: Dataset, keyword: str) -> str:
    if keyword == "WindowCenterWidthExplanation" and keyword in dataset:  # the one that has a character set
        try:
            value = dataset[keyword].value or ""
        except Exception:  # pydicom converts it when it is asked for, and raises anything then
            return ""
        return value if isinstance(value, str) else "\\".join(map(str, value))
    found = element_bytes(dataset, Tag(keyword))
    return "" if found is None else found[0].decode("latin-1").strip(" \0")


def _add_decimal(found: Attributes, dataset: Dataset, keyword: str) -> None:
    element = element_bytes(dataset, Tag(keyword))
    if element is None:
        return
    value, vr = element
    if vr and vr not in (*_TEXT_VRS, "UN"):  # a binary number, which the standard doesn't ask for
        try:
            converted = dataset[keyword].value
            numbers = converted if hasattr(converted, "__len__") else [converted]
            found.decimal[keyword] = [float(number) for number in numbers]
        except Exception:  # as above
            found.decimal[keyword] = [None]
        return
    text = value.decode("latin-1").strip(" \0")
    if not text:
        return
    readings = [_decimal(part.strip(" \0"), keyword) for part in text.split("\\")]
    found.decimal[keyword] = [number for number, _ in readings]
    commas = {comma for _, comma in readings}
    if "ambiguous" in commas:
        found.ambiguous.add(keyword)
    if "thousands" in commas:
        found.notes.append(f"{keyword}: comma read as one between thousands")
    if "point" in commas:
        found.notes.append(f"{keyword}: decimal comma read as a point")


def _decimal(text: str, keyword: str) -> tuple[float | None, str]:
    """A number, and how its comma was read: ``point``, ``thousands``, ``ambiguous``; None for what is no number."""
    has_comma = text.count(",") == 1 and "." not in text
    as_point = text.replace(",", ".") if has_comma else text
    if not _THOUSANDS.fullmatch(text) or keyword in _SMALL:
        try:
            return (None, "") if "_" in text else (float(as_point), "point" if has_comma else "")
        except ValueError:
            return None, ""
    possible = [(float(as_point), "point"), (float(text.replace(",", "")), "thousands")]
    if keyword in _DISTANCES:
        possible = [one for one in possible if _LIMITS_MM[0] <= one[0] <= _LIMITS_MM[1]]
        return possible[0] if len(possible) == 1 else (None, "ambiguous")
    return None, "ambiguous"
