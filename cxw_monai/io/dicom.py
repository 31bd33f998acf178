"""Single-frame grey DICOM images through pydicom (2.4 or 3).

Only the attributes listed here are looked at, so no patient name, id or date is ever logged or reported.

What is decided here, none of it silently (``meta["steps"]`` tells):

- *Colour* (RGB, YBR, PALETTE COLOR) is refused, also where the three channels are equal: such secondary captures show a
  screen, with a window and writing burned in. Export the grey original.
- *Pixel padding* (PixelPaddingValue, PixelPaddingRangeLimit) becomes 0, black, after the inversion.
- *FOR PROCESSING* images hold detector values that the vendor's processing has yet to turn into a picture (linear,
  often without a logarithm). They are read like any other, nothing is added; the steps and ``meta["intent"]`` say so.
- *Polarity* is what the file declares (PhotometricInterpretation, PresentationLUTShape). Fluoroscopy (RF, XA) is often
  declared with bone dark; where PixelIntensityRelationship says that values rise with the X-ray intensity, so that bone
  is dark in the array, the steps say so.
- *Bits above BitsStored* (old overlays) are ignored.
"""

from __future__ import annotations

import logging
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from typing import IO, Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import data_element_generator
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from cxw_monai.io.dicom_pixels import AGAIN, decode
from cxw_monai.io.grayscale import Grayscale, padding_range, to_unit_range
from cxw_monai.io.image import Radiograph, RadiographError, describe, refuse_huge
from cxw_monai.io.integrity import refuse_bomb
from cxw_monai.io.scaling import GreyOptions, ScalingError
from cxw_monai.pixel_map import PixelMap

__all__ = ["PREAMBLE", "looks_like_bare_dicom", "read_dicom"]

PREAMBLE = b"DICM"

_KEYWORDS = (
    "SOPClassUID",
    "PresentationIntentType",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "PlanarConfiguration",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "PixelData",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "ModalityLUTSequence",
    "RescaleSlope",
    "RescaleIntercept",
    "VOILUTSequence",
    "WindowCenter",
    "WindowWidth",
    "WindowCenterWidthExplanation",
    "VOILUTFunction",
    "PresentationLUTShape",
    "PixelIntensityRelationship",
    "PixelIntensityRelationshipSign",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "EstimatedRadiographicMagnificationFactor",
    "ViewPosition",
    "ImageLaterality",
    "Laterality",
)
_TAGS = {Tag(keyword): keyword for keyword in _KEYWORDS}
_GREY_REMEDY = "correct the tag, or read with voi='none'"
_SPACING = ("PixelSpacing", "ImagerPixelSpacing", "EstimatedRadiographicMagnificationFactor")
_DICOMDIR = "1.2.840.10008.1.3.10"
_FLUOROSCOPY = ("1.2.840.10008.5.1.4.1.1.12.1", "1.2.840.10008.5.1.4.1.1.12.2")  # XA, RF
_META_BYTES = 1 << 14  # no file meta is longer
_BLOCK = 1 << 16  # codes looked up at a time, so that numpy's 8-byte indices stay in the processor's cache


def looks_like_bare_dicom(head: bytes) -> bool:
    """Whether a file without preamble begins with a DICOM element of group 0002 or 0008, in any byte order."""
    for order in ("little", "big"):
        group, element = (int.from_bytes(head[at : at + 2], order) for at in (0, 2))
        if len(head) < 12 or group not in (0x0002, 0x0008) or element > 0x3000:
            continue
        explicit = head[4:6].isalpha() and head[4:6].isupper()
        implicit = order == "little" and int.from_bytes(head[4:8], "little") < 1 << 16  # a first element is short
        if explicit or implicit:
            return True
    return False


def read_dicom(path: str | PathLike[str], *, options: GreyOptions, max_pixels: int) -> Radiograph:
    """Read a DICOM image of one grey frame; see the module for what is decided here.

    Modality LUT (or rescale), VOI LUT or window, inversion, scale to [0, 1], padding to black
    (:mod:`cxw_monai.io.grayscale`). Files without preamble or file meta are read when their first bytes are those of a
    DICOM element; a missing transfer syntax is taken to be the uncompressed one that they are written in.

    Args:
        path: the file.
        options: the choice of grey scale.
        max_pixels: the most pixels that are decoded.

    Returns:
        The radiograph, float32 ``[1, H, W]`` in [0, 1]. Spacing is PixelSpacing, else ImagerPixelSpacing divided by the
        declared magnification; a missing, zero or unreadable one is None.

    Raises:
        RadiographError: not readable, no pixel data, several frames, colour, too large, needs a decoder, or grayscale
            attributes that contradict themselves.
    """
    with _quiet_pydicom():
        dataset = _parse(path, max_pixels)
        try:
            tags = _attributes(dataset)
            _refuse_unusable(dataset.file_meta, tags, path, max_pixels)
            codes = decode(dataset, tags, path)  # [H, W]
            little_endian = dataset.file_meta.TransferSyntaxUID.is_little_endian
            scale = Grayscale(int(tags["BitsStored"]), tags["PixelRepresentation"] == 1, little_endian, options)
            array, steps = _to_grey(codes, tags, scale)
            meta = _describe(path, tags, codes.shape, steps)
        except RadiographError:
            raise
        except ScalingError as error:
            raise RadiographError(path, str(error), error.remedy or _GREY_REMEDY) from error
        except Exception as error:  # pydicom converts attributes when they are asked for, and raises anything then
            reason = f"DICOM attributes of the image are missing or malformed ({type(error).__name__})"
            raise RadiographError(path, reason, AGAIN) from error
    return Radiograph(array[None], meta)  # [1, H, W]


@contextmanager
def _quiet_pydicom() -> Iterator[None]:
    """Silence pydicom's warnings and log lines, which may quote the values of attributes."""
    logger = logging.getLogger("pydicom")

    def silence(record: logging.LogRecord) -> bool:
        return False

    logger.addFilter(silence)  # a filter of its own, so that readers in other threads can't undo each other
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.removeFilter(silence)


def _parse(path: str | PathLike[str], max_pixels: int) -> Dataset:
    """The data set, with a transfer syntax."""
    try:
        with open(path, "rb") as stream:
            _refuse_deflated_bomb(path, stream, max_pixels)
            stream.seek(0)
            dataset = pydicom.dcmread(stream, force=True)  # its `specific_tags` compares each with each
        if "TransferSyntaxUID" not in dataset.file_meta:  # then it isn't compressed
            implicit, little_endian = _encoding(dataset)
            explicit = ExplicitVRLittleEndian if little_endian else ExplicitVRBigEndian
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    except RadiographError:
        raise
    except Exception as error:  # pydicom's parser raises whatever the damage provokes
        reason = f"cannot be parsed as DICOM, damaged or truncated ({type(error).__name__})"
        raise RadiographError(path, reason, AGAIN) from error
    return dataset


def _refuse_deflated_bomb(path: str | PathLike[str], stream: IO[bytes], max_pixels: int) -> None:
    """Refuse a deflated data set too large to hold: pydicom unpacks it at once, before any attribute can be asked."""
    head = stream.read(_META_BYTES)
    if DeflatedExplicitVRLittleEndian.encode() not in head:
        return
    stream.seek(132 if head[128:132] == PREAMBLE else 0)
    meta = data_element_generator(stream, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
    deflated = any(DeflatedExplicitVRLittleEndian.encode() in (element.value or b"") for element in meta)
    if deflated:  # the stream now stands behind the file meta; 4 bytes a pixel and a lot of attributes
        refuse_bomb(path, stream, zlib.decompressobj(-zlib.MAX_WBITS), 4 * max_pixels + (1 << 26))


def _encoding(dataset: Dataset) -> tuple[bool, bool]:
    """Whether value representations are implicit, and the byte order little, as the parser found them."""
    if hasattr(dataset, "original_encoding"):
        return dataset.original_encoding
    return dataset.read_implicit_vr, dataset.read_little_endian  # pydicom 2


def _attributes(dataset: Dataset) -> dict[str, Any]:
    """Keyword -> value of what there is of the attributes listed above; no other is ever converted from its bytes."""
    values: dict[str, Any] = {}
    for tag in dataset.keys() & _TAGS.keys():
        keyword = _TAGS[tag]
        try:
            values[keyword] = dataset[tag].value
        except (TypeError, ValueError, OverflowError):
            if keyword not in _SPACING:  # a spacing that is no number is no spacing
                raise
    return values


def _refuse_unusable(
    file_meta: FileMetaDataset, tags: Mapping[str, Any], path: str | PathLike[str], max_pixels: int
) -> None:
    """Refuse, from the attributes alone, what isn't one grey frame of a sensible size."""
    kind = file_meta.get("MediaStorageSOPClassUID")
    if kind == _DICOMDIR:
        raise RadiographError(path, "a DICOMDIR, the index of a medium", "give the image files that it lists")
    if not tags.get("PixelData") or not tags.get("Rows") or not tags.get("Columns"):
        name = f" ({kind.name})" if isinstance(kind, UID) and kind.name != kind else ""
        reason = f"DICOM{name} without pixel data, or cut off before their end"
        raise RadiographError(path, reason, "give an image, or copy it again from its source")
    frames = int(tags.get("NumberOfFrames") or 1)
    if frames > 1:
        raise RadiographError(path, f"multi-frame DICOM ({frames} frames)", "export each frame to a file of its own")
    grey = tags.get("PhotometricInterpretation") in ("MONOCHROME1", "MONOCHROME2")
    if not grey or tags.get("SamplesPerPixel", 1) != 1:
        raise RadiographError(path, "colour DICOM, or no photometric interpretation", "give the original grey image")
    refuse_huge(path, (tags["Rows"], tags["Columns"]), max_pixels)
    bits, allocated = int(tags["BitsStored"]), int(tags["BitsAllocated"])
    if not 1 <= bits <= min(allocated, 32):
        raise RadiographError(path, f"{bits} bits stored of {allocated}, not supported", "export it again as 16 bits")


def _describe(
    path: str | PathLike[str], tags: Mapping[str, Any], shape: tuple[int, ...], steps: list[str]
) -> dict[str, Any]:
    """The radiograph's ``meta``."""
    spacing, spacing_step = _spacing(tags)
    intent = _text(tags, "PresentationIntentType")
    if intent == "FOR PROCESSING":
        steps = ["for processing: detector values, not a picture for presentation", *steps]
    if _is_bone_dark(tags, inverted="inverted" in steps):
        steps = [*steps, "bone is dark: values rise with the X-ray intensity"]
    return describe(
        path,
        PixelMap.identity(shape),
        bits=int(tags["BitsStored"]),
        photometric=str(tags["PhotometricInterpretation"]),
        steps=[*steps, spacing_step],
        spacing=spacing,
        intent=intent,
        view=_text(tags, "ViewPosition"),
        laterality=_text(tags, "ImageLaterality") or _text(tags, "Laterality"),
    )


def _to_grey(codes: np.ndarray, tags: Mapping[str, Any], scale: Grayscale) -> tuple[np.ndarray, list[str]]:
    """float32 ``[H, W]`` in [0, 1] of stored codes; up to 16 bits by one table over all codes."""
    mask = (1 << scale.bits) - 1
    padded = _padded_beyond_stored_bits(codes, tags, scale)
    if codes.max() > mask:  # overlays, signs
        codes = codes & codes.dtype.type(mask)
    table = np.arange(mask + 1, dtype=np.int64) if scale.bits <= 16 else None
    levels = codes.astype(np.int64) if table is None else table
    if scale.signed:
        levels = np.where(levels < 1 << (scale.bits - 1), levels, levels - (1 << scale.bits))

    def of_image(values: np.ndarray) -> np.ndarray:
        inside = np.ones(codes.shape, dtype=bool) if padded is None else ~padded
        padding = padding_range(tags, scale.signed)
        if padding is not None:
            stored = levels if table is None else levels[codes]
            inside &= (stored < padding[0]) | (stored > padding[1])
        return (values if table is None else values[codes])[inside]

    grey, steps = to_unit_range(levels, tags, scale, of_image)
    if table is not None:
        grey = _look_up(grey, codes)
    if padded is not None:
        grey[padded] = 0
    return grey, steps


def _look_up(table: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """``table[codes]``, block by block."""
    codes = np.ascontiguousarray(codes)
    grey = np.empty(codes.shape, dtype=table.dtype)
    flat_codes, flat_grey = codes.reshape(-1), grey.reshape(-1)
    for start in range(0, codes.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        np.take(table, flat_codes[block], out=flat_grey[block], mode="clip")  # "raise" would copy
    return grey


def _padded_beyond_stored_bits(codes: np.ndarray, tags: Mapping[str, Any], scale: Grayscale) -> np.ndarray | None:
    """Where whole allocated words are padding whose value BitsStored can't hold; None for the usual padding."""
    padding, (least, most) = padding_range(tags, scale.signed), scale.limits
    if padding is None or (least <= padding[0] and padding[1] <= most):
        return None
    words = codes.view(f"i{codes.dtype.itemsize}") if scale.signed else codes
    outside = (words < least) | (words > most)
    return outside & (words >= padding[0]) & (words <= padding[1])


def _is_bone_dark(tags: Mapping[str, Any], *, inverted: bool) -> bool:
    """Whether the file says that its array shows bone dark; PS3.3 C.8.7.1.1.2 (RF, XA) and C.8.11.3.1.2 (DX)."""
    if tags.get("PixelIntensityRelationship") not in ("LIN", "LOG"):
        return False
    sign = tags.get("PixelIntensityRelationshipSign")
    if sign not in (1, -1):  # in fluoroscopy both relationships are to the X-ray intensity itself
        sign = 1 if tags.get("SOPClassUID") in _FLUOROSCOPY else None
    return sign is not None and (sign == 1) != inverted


def _spacing(tags: Mapping[str, Any]) -> tuple[tuple[float, float] | None, str]:
    """(row, column) spacing in mm or None, and where it comes from."""
    for name in _SPACING[:2]:
        pair = _positive(tags, name)
        if len(pair) != 2:
            continue
        magnification = _positive(tags, "EstimatedRadiographicMagnificationFactor")
        if name == "ImagerPixelSpacing" and magnification:
            return (pair[0] / magnification[0], pair[1] / magnification[0]), f"spacing: {name} / magnification"
        return (pair[0], pair[1]), f"spacing: {name}"
    return None, "spacing: unknown"


def _positive(tags: Mapping[str, Any], name: str) -> list[float]:
    """An attribute's numbers if all are finite and above 0, else nothing (DICOM writers fill in 0 for unknown)."""
    value = tags.get(name)
    if value is None or value == "":
        return []
    try:
        numbers = [float(one) for one in (value if hasattr(value, "__len__") else [value])]
    except (TypeError, ValueError):  # an empty one of two
        return []
    return numbers if all(np.isfinite(one) and one > 0 for one in numbers) else []


def _text(tags: Mapping[str, Any], name: str) -> str | None:
    """A code string, or None where it is absent or empty."""
    return str(tags.get(name) or "") or None
