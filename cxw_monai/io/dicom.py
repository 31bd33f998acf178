"""Single-frame grey DICOM images through pydicom (2.4 or 3).

Only the attributes listed here are read, so no patient name, id or date is ever held, logged or reported.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from os import PathLike

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit

from cxw_monai.io.grayscale import GrayscaleError, to_unit_range
from cxw_monai.io.image import Radiograph, RadiographError

__all__ = ["PREAMBLE", "looks_like_bare_dicom", "read_dicom"]

PREAMBLE = b"DICM"

_TAGS = [
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
    "PixelData",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "ModalityLUTSequence",
    "RescaleSlope",
    "RescaleIntercept",
    "VOILUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "PresentationLUTShape",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "EstimatedRadiographicMagnificationFactor",
    "ViewPosition",
    "ImageLaterality",
    "Laterality",
]

_JPEG = ("libjpeg", "pylibjpeg pylibjpeg-libjpeg")
_JPEG2000 = ("openjpeg", "pylibjpeg pylibjpeg-openjpeg")
_CODECS = {  # transfer syntax -> (module that decodes it, packages to install)
    **{f"1.2.840.10008.1.2.4.{last}": _JPEG for last in (50, 51, 57, 70, 80, 81)},
    **{f"1.2.840.10008.1.2.4.{last}": _JPEG2000 for last in (90, 91, 201, 202, 203)},
}
_AGAIN = "copy it again from its source"


def looks_like_bare_dicom(head: bytes) -> bool:
    """Whether a file without preamble begins with a DICOM element of group 0002 or 0008, in any byte order."""
    return _bare_syntax(head) is not None


def _bare_syntax(head: bytes) -> str | None:
    """Transfer syntax of a data set that begins with the file's first byte, or None where it isn't one."""
    for order, is_little in (("little", True), ("big", False)):
        group, element = (int.from_bytes(head[at : at + 2], order) for at in (0, 2))
        if len(head) < 12 or group not in (0x0002, 0x0008) or element > 0x3000:
            continue
        if head[4:6].isalpha() and head[4:6].isupper():
            return ExplicitVRLittleEndian if is_little else ExplicitVRBigEndian
        if is_little and int.from_bytes(head[4:8], "little") < 1 << 16:  # a first element is short
            return ImplicitVRLittleEndian
    return None


def read_dicom(path: str | PathLike[str], *, use_voi: bool, max_pixels: int) -> Radiograph:
    """Read a DICOM image of one grey frame: Modality LUT, VOI LUT or window, inversion, scale to [0, 1].

    Files without preamble or file meta are read when their first bytes are those of a DICOM element; the transfer
    syntax is then the uncompressed one that these bytes show. Bits above BitsStored (old overlays) are ignored.

    Args:
        path: the file.
        use_voi: apply the first VOI LUT or, without one, the first window.
        max_pixels: the most pixels that are decoded.

    Returns:
        The radiograph, float32 ``[1, H, W]`` in [0, 1]. Spacing is PixelSpacing, else ImagerPixelSpacing divided by the
        declared magnification; a missing, zero or unreadable one is None.

    Raises:
        RadiographError: not readable, no pixel data, several frames, colour, too large, needs a decoder, or grayscale
            attributes that contradict themselves.
    """
    with _quiet_pydicom():
        dataset = _parse(path)
        try:
            _refuse_unusable(dataset, path, max_pixels)
            codes = _decode(dataset, path)  # [H, W]
            array, steps = _to_grey(codes, dataset, use_voi)
            spacing, spacing_steps = _spacing(dataset)
            meta = {
                "path": str(path),
                "spacing_mm": spacing,
                "original_shape": codes.shape,
                "bits": int(dataset.BitsStored),
                "photometric": str(dataset.PhotometricInterpretation),
                "steps": steps + spacing_steps,
                "view": str(dataset.get("ViewPosition") or "") or None,
                "laterality": str(dataset.get("ImageLaterality") or dataset.get("Laterality") or "") or None,
            }
        except RadiographError:
            raise
        except GrayscaleError as error:
            raise RadiographError(path, str(error), "correct the tag, or read with voi='none'") from error
        except Exception as error:  # pydicom converts attributes when they are asked for, and raises anything then
            reason = f"DICOM attributes of the image are missing or malformed ({type(error).__name__})"
            raise RadiographError(path, reason, _AGAIN) from error
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


def _parse(path: str | PathLike[str]) -> Dataset:
    """The data set, reduced to the attributes needed, with a transfer syntax."""
    try:
        with open(path, "rb") as stream:
            head = stream.read(132)
        bare = head[128:] != PREAMBLE
        dataset = pydicom.dcmread(path, force=bare, specific_tags=_TAGS)
        if bare and "TransferSyntaxUID" not in dataset.file_meta:
            dataset.file_meta.TransferSyntaxUID = _bare_syntax(head)
    except Exception as error:  # pydicom's parser raises whatever the damage provokes
        reason = f"cannot be parsed as DICOM, damaged or truncated ({type(error).__name__})"
        raise RadiographError(path, reason, _AGAIN) from error
    if "TransferSyntaxUID" not in dataset.file_meta:
        raise RadiographError(path, "DICOM without a transfer syntax", _AGAIN)
    return dataset


def _refuse_unusable(dataset: Dataset, path: str | PathLike[str], max_pixels: int) -> None:
    """Refuse, from the attributes alone, what isn't one grey frame of a sensible size."""
    if not dataset.get("PixelData") or not dataset.get("Rows") or not dataset.get("Columns"):
        raise RadiographError(
            path, "DICOM without pixel data (or cut off before it)", "give an image, or copy it again"
        )
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1:
        raise RadiographError(path, f"multi-frame DICOM ({frames} frames)", "export each frame to a file of its own")
    photometric = dataset.get("PhotometricInterpretation")
    if photometric not in ("MONOCHROME1", "MONOCHROME2") or dataset.get("SamplesPerPixel", 1) != 1:
        raise RadiographError(path, "colour DICOM, or no photometric interpretation", "give the original grey image")
    if dataset.Rows * dataset.Columns > max_pixels:
        reason = f"{dataset.Rows}x{dataset.Columns} is more than the limit of {max_pixels} pixels"
        raise RadiographError(path, reason, "resample it, or raise max_pixels")
    bits = int(dataset.BitsStored)
    if not 1 <= bits <= min(int(dataset.BitsAllocated), 32) or dataset.get("HighBit", bits - 1) != bits - 1:
        reason = f"{bits} bits stored of {dataset.BitsAllocated}, high bit {dataset.get('HighBit')}, not supported"
        raise RadiographError(path, reason, "export it again with HighBit = BitsStored - 1")


def _decode(dataset: Dataset, path: str | PathLike[str]) -> np.ndarray:
    """Stored codes ``[H, W]`` in native byte order."""
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        if syntax == JPEGBaseline8Bit:  # decoders differ by a grey level: always take Pillow, which is always there
            if hasattr(dataset, "pixel_array_options"):
                dataset.pixel_array_options(decoding_plugin="pillow")
            else:  # pydicom 2
                dataset.convert_pixel_data("pillow")
        codes = dataset.pixel_array
    except Exception as error:  # decoders raise whatever the damage provokes
        module, packages = _CODECS.get(str(syntax), (None, ""))
        if module is not None and not _can_import(module):
            reason = f"transfer syntax {syntax} needs a decoder that isn't installed"
            raise RadiographError(path, reason, f"pip install {packages}") from error
        reason = f"pixel data cannot be decoded, damaged or truncated ({type(error).__name__})"
        raise RadiographError(path, reason, _AGAIN) from error
    if codes.shape != (dataset.Rows, dataset.Columns) or codes.dtype.kind not in "iu":
        raise RadiographError(path, f"pixel data decode to shape {codes.shape}, {codes.dtype}", _AGAIN)
    return np.asarray(codes, dtype=codes.dtype.newbyteorder("="))


def _can_import(module: str) -> bool:
    """Whether an optional decoder is installed and works."""
    try:
        import_module(module)
    except ImportError:
        return False
    return True


def _to_grey(codes: np.ndarray, dataset: Dataset, use_voi: bool) -> tuple[np.ndarray, list[str]]:
    """float32 ``[H, W]`` in [0, 1] of stored codes; up to 16 bits by one table over all codes."""
    bits, signed = int(dataset.BitsStored), dataset.PixelRepresentation == 1
    unsigned = codes.view(f"u{codes.dtype.itemsize}") & ((1 << bits) - 1)
    wide = bits > 16
    levels = unsigned.astype(np.int64) if wide else np.arange(1 << bits, dtype=np.int64)
    if signed:
        levels = np.where(levels < 1 << (bits - 1), levels, levels - (1 << bits))
    little_endian = dataset.file_meta.TransferSyntaxUID.is_little_endian
    grey, steps = to_unit_range(levels, bits, signed, dataset, little_endian=little_endian, use_voi=use_voi)
    grey = grey.astype(np.float32)
    return (grey if wide else grey[unsigned]), steps


def _spacing(dataset: Dataset) -> tuple[tuple[float, float] | None, list[str]]:
    """(row, column) spacing in mm or None, and where it comes from."""
    for name in ("PixelSpacing", "ImagerPixelSpacing"):
        pair = _positive(dataset.get(name))
        if len(pair) != 2:
            continue
        magnification = _positive(dataset.get("EstimatedRadiographicMagnificationFactor"))
        if name == "ImagerPixelSpacing" and magnification:
            return (pair[0] / magnification[0], pair[1] / magnification[0]), [f"spacing: {name} / magnification"]
        return (pair[0], pair[1]), [f"spacing: {name}"]
    return None, ["spacing: unknown"]


def _positive(value: object) -> list[float]:
    """An attribute's numbers if all are finite and above 0, else nothing (DICOM writers fill in 0 for unknown)."""
    if value is None or value == "":
        return []
    numbers = [float(one) for one in (value if hasattr(value, "__len__") else [value])]
    return numbers if all(np.isfinite(one) and one > 0 for one in numbers) else []
