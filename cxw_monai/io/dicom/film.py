"""Single-frame grey DICOM images through pydicom (2.4 or 3).

Only the attributes of :mod:`cxw_monai.io.dicom.attributes` are looked at, so no patient name, id or date is ever logged
or reported.

What is decided here, all of it recorded in ``meta["steps"]``:

- *Missing attributes* are taken from what else declares them: BitsStored from HighBit, sizes and depths from the
  compressed stream, PhotometricInterpretation from PresentationLUTShape. Pixels without PixelRepresentation are
  unsigned. Where nothing else declares one, the error names the attribute.
- *Headers and compressed streams* that differ: the stream's own size, depth and sign count
  (:mod:`cxw_monai.io.dicom.bits`).
- *Colour* (RGB, YBR, PALETTE COLOR) is refused, also where the three channels are equal: such secondary captures show a
  screen, with a window and writing burned in. Export the grey original.
- *Pixel padding* (PixelPaddingValue, PixelPaddingRangeLimit) becomes 0, black, after the inversion.
- *FOR PROCESSING* images hold detector values that the vendor's processing has yet to turn into a picture (linear,
  often without a logarithm). They are read like any other, nothing is added; the steps and ``meta["intent"]`` say so.
- *Polarity* is what the file declares (PhotometricInterpretation, PresentationLUTShape). Fluoroscopy (RF, XA) is often
  declared with bone dark; where PixelIntensityRelationship says that values rise with the X-ray intensity, so that bone
  is dark in the array, the steps say so.
- *Orientation* is left as stored, as masks drawn on the film have it. A PatientOrientation that says that it is
  mirrored, upside down or on its side is warned of, and in the steps.
- *Spacing*: :mod:`cxw_monai.io.dicom.spacing`. *Grey scale*: :mod:`cxw_monai.io.dicom.grayscale`.
"""

from __future__ import annotations

import logging
from os import PathLike
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRBigEndian

from cxw_monai.io.files.printable import printable
from cxw_monai.io.pixel_map import PixelMap
from cxw_monai.io.radiograph import AGAIN, Radiograph, UnusableError, describe, errors_of
from cxw_monai.io.scaling import GreyOptions

from .attributes import Attributes, element_bytes, read_attributes
from .bits import Codes, settle_bits
from .file import parse, quiet_pydicom
from .film_classes import refuse_unless_film
from .grayscale import FLUOROSCOPY, Grayscale, padding_range, to_unit_range
from .pixels import decode
from .spacing import find_spacing

__all__ = ["read_dicom"]

_DICOMDIR = "1.2.840.10008.1.3.10"
_GREY = {"MONOCHROME1": True, "MONOCHROME2": False}  # whether the least value is white
_SHAPES = {"INVERSE": "MONOCHROME1", "IDENTITY": "MONOCHROME2"}  # in the images of digital X-ray detectors
_BLOCK = 1 << 16  # codes looked up at a time, so that numpy's 8-byte indices stay in the processor's cache

_logger = logging.getLogger(__name__)
_told: set[str] = set()  # orientations of which this process has warned: thousands of films may have one


def read_dicom(path: str | PathLike[str], *, options: GreyOptions, max_pixels: int) -> Radiograph:
    """Read a DICOM image of one grey frame, as :func:`~cxw_monai.io.read.read_radiograph` describes.

    Raises:
        RadiographError: not readable, no pixel data, several frames, colour, too large, needs a decoder, or attributes
            that are missing or contradict themselves.
    """
    with quiet_pydicom():
        with errors_of(path, "cannot be parsed as DICOM, damaged or truncated"):
            dataset = parse(path, max_pixels)
        with errors_of(path, "DICOM attributes of the image are malformed"):
            film = _to_radiograph(dataset, options, max_pixels)
    for step in film.meta["steps"]:
        if step.startswith("PatientOrientation") and step not in _told:
            _told.add(step)
            told = "%s: %s; if that is true, export it again as it is to be seen (said of the first such film)"
            _logger.warning(told, printable(str(path)), step)
    return film


def _to_radiograph(dataset: Dataset, options: GreyOptions, max_pixels: int) -> Radiograph:
    tags = read_attributes(dataset)
    tags.text.setdefault("SOPClassUID", str(dataset.file_meta.get("MediaStorageSOPClassUID", "")))
    data = _pixel_data(dataset)
    refuse_unless_film(tags.text["SOPClassUID"], tags.text.get("Modality", ""))
    photometric = _photometric(tags)
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    pixels = decode(*data, syntax, tags, max_pixels)
    codes = settle_bits(pixels, tags)
    scale = Grayscale(codes.bits, codes.signed, syntax != ExplicitVRBigEndian, options, codes.narrowed)
    inverted = _GREY[photometric] or tags.text.get("PresentationLUTShape") == "INVERSE"
    array, steps = _to_grey(codes, tags, scale, inverted)
    meta = _describe(tags, codes, photometric, [*tags.notes, *pixels.notes, *codes.notes, *steps])
    return Radiograph(array[None], meta)  # [1, H, W]


def _pixel_data(dataset: Dataset) -> tuple[bytes, str]:
    """The bytes of PixelData and their VR."""
    kind = dataset.file_meta.get("MediaStorageSOPClassUID")
    if kind == _DICOMDIR:
        raise UnusableError("a DICOMDIR, the index of a medium", "give the image files that it lists")
    data = element_bytes(dataset, "PixelData")
    if data is None:
        name = f" ({kind.name})" if isinstance(kind, UID) and kind.name != kind else ""
        reason = f"DICOM{name} without pixel data, or cut off before their end"
        raise UnusableError(reason, f"give an image, or {AGAIN}")
    return data


def _photometric(tags: Attributes) -> str:
    """``MONOCHROME1`` or ``MONOCHROME2``, of one frame."""
    frames = tags.whole.get("NumberOfFrames", 1)
    if "NumberOfFrames" in tags.unreadable:
        raise UnusableError("NumberOfFrames is no whole number", "correct it in the file, or remove it")
    if frames > 1:
        raise UnusableError(f"multi-frame DICOM ({frames} frames)", "export each frame to a file of its own")
    name, shape = "PhotometricInterpretation", tags.text.get("PresentationLUTShape", "")
    declared = tags.text.get(name, "").upper().replace(" ", "")
    if not declared and shape in _SHAPES:
        tags.notes.append(f"{name} missing: {_SHAPES[shape]} by PresentationLUTShape")
        declared = _SHAPES[shape]
    if not declared:
        reason = f"{name} is missing, so it is unknown whether bone is bright or dark"
        raise UnusableError(reason, "write MONOCHROME1 or MONOCHROME2 into the file, or export it again")
    if declared not in _GREY or tags.whole.get("SamplesPerPixel", 1) > 1:
        raise UnusableError("colour DICOM, or an unknown PhotometricInterpretation", "give the grey original")
    return declared


def _describe(tags: Attributes, codes: Codes, photometric: str, steps: list[str]) -> dict[str, Any]:
    spacing = find_spacing(tags)
    intent = tags.text.get("PresentationIntentType")
    if intent == "FOR PROCESSING":
        steps = ["for processing: detector values, not a picture for presentation", *steps]
    if _is_bone_dark(tags, inverted="inverted" in steps):
        steps = [*steps, "bone is dark: values rise with the X-ray intensity"]
    if turned := _turned(tags.text.get("PatientOrientation", "")):
        steps = [*steps, turned]
    return describe(
        PixelMap.identity(codes.values.shape),
        bits=codes.bits,
        photometric=photometric,
        steps=[*steps, *spacing.notes, f"spacing: {spacing.source}"],
        spacing=spacing.mm,
        spacing_from=spacing.source,
        intent=intent,
        view=tags.text.get("ViewPosition"),
        laterality=tags.text.get("ImageLaterality") or tags.text.get("Laterality"),
    )


def _turned(orientation: str) -> str:
    """What a PatientOrientation (PS3.3 C.7.6.1.1.1) says of a film that isn't upright or is mirrored; else empty."""
    ends = [end.strip(" \0") for end in orientation.split("\\")]
    if len(ends) != 2 or not all(end and set(end) <= set("APLRFH") for end in ends):
        return ""
    row, column = (end[0] for end in ends)
    how = {
        "left and right exchanged": row == "R" and column == "F",
        "upside down": column == "H",
        "on its side": row in "FH",
    }
    found = [words for words, is_so in how.items() if is_so]
    return f"PatientOrientation {ends[0]}\\{ends[1]}: {found[0]}, left as stored" if found else ""


def _to_grey(codes: Codes, tags: Attributes, scale: Grayscale, inverted: bool) -> tuple[np.ndarray, list[str]]:
    """float32 ``[H, W]`` in [0, 1] of stored codes; up to 16 bits by one table over all codes."""
    values = codes.values
    table = np.arange(1 << scale.bits, dtype=np.int64) if scale.bits <= 16 else None
    levels = values.astype(np.int64) if table is None else table
    if scale.signed:
        levels = np.where(levels < 1 << (scale.bits - 1), levels, levels - (1 << scale.bits))

    def of_image(mapped: np.ndarray) -> np.ndarray:
        inside = np.ones(values.shape, dtype=bool) if codes.padded is None else ~codes.padded
        padding = padding_range(tags, scale.signed)
        if padding is not None:
            stored = levels if table is None else _look_up(levels, values)
            inside &= (stored < padding[0]) | (stored > padding[1])
        return (mapped if table is None else _look_up(mapped, values))[inside]  # padding may lie beyond the table

    grey, steps = to_unit_range(levels, tags, scale, inverted, _ends(values, scale), of_image)
    if table is not None:
        grey = _look_up(grey, values)
    if codes.padded is not None:
        grey[codes.padded] = 0
    return grey, steps


def _ends(values: np.ndarray, scale: Grayscale) -> tuple[int, int]:
    """The least and greatest code of the image."""
    half = 1 << (scale.bits - 1) if scale.signed else 0
    shifted = values ^ values.dtype.type(half) if half else values  # two's complement in the order of its values
    return int(shifted.min()) - half, int(shifted.max()) - half


def _look_up(table: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """``table[codes]``, block by block."""
    codes = np.ascontiguousarray(codes)
    grey = np.empty(codes.shape, dtype=table.dtype)
    flat_codes, flat_grey = codes.reshape(-1), grey.reshape(-1)
    for start in range(0, codes.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        np.take(table, flat_codes[block], out=flat_grey[block], mode="clip")  # "raise" would copy
    return grey


def _is_bone_dark(tags: Attributes, *, inverted: bool) -> bool:
    """Whether the file says that its array shows bone dark; PS3.3 C.8.7.1.1.2 (RF, XA) and C.8.11.3.1.2 (DX)."""
    if tags.text.get("PixelIntensityRelationship") not in ("LIN", "LOG"):
        return False
    sign = tags.whole.get("PixelIntensityRelationshipSign")
    if sign not in (1, -1):  # in fluoroscopy both relationships are to the X-ray intensity itself
        sign = 1 if tags.text.get("SOPClassUID") in FLUOROSCOPY else None
    return sign is not None and (sign == 1) != inverted
