"""Decoding of DICOM pixel data: one decoder for each kind of stream, and no half pictures.

Decoders of lossy JPEG differ by a grey level, and pydicom takes whichever is installed. Here each kind of stream has
one, so that a file gives the same array everywhere: Pillow for 8-bit JPEG, pylibjpeg's libraries for the other JPEG
families, pydicom itself for RLE. They are given the stream alone and decode it as it describes itself; what its file
declares (transfer syntax, BitsAllocated, BitsStored) may be of another encoding of the same film, and is compared
afterwards (:mod:`cxw_monai.io.dicom.bits`).

Some of them return what they have got where a stream is cut off. A stream is therefore decoded only if its end is
there. GDCM (in ITK) is no fallback: it cuts values off at BitsStored, and gives pictures for damaged streams too.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from cxw_monai.io.radiograph import AGAIN, UnusableError, refuse_huge

from .attributes import Attributes
from .stream import Codestream, read_codestream, read_fragments, rle_bytes

__all__ = ["TRANSCODE", "Pixels", "decode"]

TRANSCODE = "convert it to an uncompressed or JPEG 2000 transfer syntax"

_LIBRARIES = {"JPEG": "libjpeg", "JPEG-LS": "libjpeg", "JPEG 2000": "openjpeg"}
_TOOLS = {"JPEG": "dcmdjpeg or gdcmconv --raw", "JPEG-LS": "dcmdjpls or gdcmconv --raw", "JPEG 2000": "gdcmconv --raw"}
_UNCOMPRESSED = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
)
_FAMILIES = tuple(f"1.2.840.10008.1.2.4.{last}" for last in (50, 51, 57, 70, 80, 81, 90, 91, 201, 202, 203))
_STANDARD = "1.2.840.10008.1.2."  # other transfer syntaxes may have any byte order
_ITEM = b"\xfe\xff\x00\xe0"
_UNDAMAGED = "correct the attribute in the file, or export it again"


@dataclass(frozen=True)
class Pixels:
    """Decoded pixel data."""

    words: np.ndarray  # [H, W], unsigned bit patterns
    allocated: int  # bits of a word
    stream: Codestream | None = None  # None for RLE and uncompressed data
    precision: int | None = None  # bits of a value by the compressed data themselves, where they say
    notes: list[str] = field(default_factory=list)  # what was taken from elsewhere than the file declares it


def decode(data: bytes, vr: str, syntax: UID, tags: Attributes, max_pixels: int) -> Pixels:
    """The words of a single-frame grey image, of the bytes and the value representation of its PixelData.

    Raises:
        UnusableError: needs a decoder that isn't installed or doesn't exist, is cut off or damaged, isn't grey, or
            lacks an attribute that nothing else declares.
    """
    if not _is_encapsulated(data, syntax, tags):
        return _native(data, vr, syntax, tags, max_pixels)
    fragments = read_fragments(data)
    if syntax == RLELossless:
        return _rle(fragments, tags, max_pixels)
    stream = read_codestream(fragments)
    if stream is None:
        name = f"{syntax} ({syntax.name})" if syntax.name != syntax else str(syntax)
        if syntax in _FAMILIES:
            reason = f"the pixel data hold nothing of their transfer syntax {name}"
            raise UnusableError(reason, "export it again from its source")
        raise UnusableError(f"transfer syntax {name} is not supported", TRANSCODE)
    return _compressed(stream, syntax, tags, max_pixels)


def _is_encapsulated(data: bytes, syntax: UID, tags: Attributes) -> bool:
    """Whether the data are fragments. Some files are compressed or decompressed without a new transfer syntax."""
    compressed = syntax not in _UNCOMPRESSED
    if data[:4] == _ITEM and compressed:
        return True
    rows, columns, allocated = (tags.whole.get(name) for name in ("Rows", "Columns", "BitsAllocated"))
    bits = (rows or 0) * (columns or 0) * (allocated or 0)
    known = bits > 0 and (not compressed or syntax.startswith(_STANDARD))
    if known and (len(data) + 1) // 2 == (bits + 15) // 16:
        return False
    return data[:4] == _ITEM or compressed


def _size(tags: Attributes, stream: Codestream | None, notes: list[str], max_pixels: int) -> tuple[int, int]:
    """Rows and columns, where they agree and aren't too many."""
    claimed = (0, 0) if stream is None else (stream.rows, stream.columns)
    found: list[int] = []
    for name, of_stream in zip(("Rows", "Columns"), claimed, strict=True):
        size = tags.whole.get(name) or of_stream
        if not size:
            raise UnusableError(f"{name} is missing or 0", "write it into the file, or export it again")
        if not tags.whole.get(name):
            notes.append(f"{name} missing: {of_stream} of the compressed stream")
        found.append(size)
    if stream is not None and claimed != tuple(found):  # a larger one would take long to decode
        texts = [f"{rows}x{columns}" for rows, columns in (claimed, found)]
        reason = f"the compressed stream claims {texts[0]} pixels, the header {texts[1]}"
        raise UnusableError(reason, "export it again from its source")
    refuse_huge(found, max_pixels)
    return found[0], found[1]


def _native(data: bytes, vr: str, syntax: UID, tags: Attributes, max_pixels: int) -> Pixels:
    notes: list[str] = []
    if syntax not in _UNCOMPRESSED:
        notes.append("pixel data aren't compressed, though the transfer syntax says so")
    shape = _size(tags, None, notes, max_pixels)
    count = shape[0] * shape[1]
    allocated = tags.whole.get("BitsAllocated")
    if not allocated:
        allocated = 8 * (len(data) // count)
        notes.append(f"BitsAllocated missing: {allocated} by the length of the pixel data")
    if allocated not in (1, 8, 16, 32):
        reason = f"BitsAllocated is {allocated} of pixel data that aren't compressed, not supported"
        raise UnusableError(reason, "export it again with 16 bits allocated")
    needed = (count * allocated + 7) // 8
    if len(data) < needed:
        reason = f"pixel data cannot be decoded, truncated: {len(data)} of the {needed} bytes that its header declares"
        raise UnusableError(reason)
    if len(data) >= 2 * needed:
        reason = f"{len(data)} bytes of pixel data where its header declares {needed}: more frames or bits than it says"
        raise UnusableError(reason, _UNDAMAGED)
    if len(data) > needed + needed % 2:
        notes.append(f"{len(data) - needed} bytes behind the pixels left out")
    if allocated == 1:
        words = np.unpackbits(np.frombuffer(data, np.uint8, needed), bitorder="little", count=count)
        return Pixels(words.reshape(shape), 8, notes=notes)
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    if allocated == 8 and order == ">" and vr == "OW":  # pairs of pixels in 16-bit words
        words = np.frombuffer(data, "<u2", (needed + 1) // 2 if len(data) > needed else needed // 2).byteswap()
        words = words.view(np.uint8)[:count]
        if len(words) < count:
            raise UnusableError(f"pixel data cannot be decoded, truncated: {len(data)} bytes")
    else:
        words = np.frombuffer(data, f"{order}u{allocated // 8}", count)
    return Pixels(words.astype(words.dtype.newbyteorder("="), copy=False).reshape(shape), allocated, notes=notes)


def _rle(fragments: Sequence[bytes], tags: Attributes, max_pixels: int) -> Pixels:
    notes: list[str] = []
    shape = _size(tags, None, notes, max_pixels)
    frame = b"".join(fragments)
    size = rle_bytes(frame)
    if size not in (1, 2, 4):
        raise UnusableError(f"RLE of {size} segments, a colour image", "give the original grey image")
    if tags.whole.get("BitsAllocated") not in (None, 8 * size):
        notes.append(f"BitsAllocated {8 * size} of the compressed data, {tags.whole['BitsAllocated']} declared")
    plain = Dataset()
    plain.Rows, plain.Columns = shape
    plain.SamplesPerPixel, plain.PhotometricInterpretation, plain.PixelRepresentation = 1, "MONOCHROME2", 0
    plain.BitsAllocated, plain.BitsStored, plain.HighBit = 8 * size, 8 * size, 8 * size - 1
    plain.PixelData = encapsulate([frame + b"\0" * (len(frame) % 2)])
    plain["PixelData"].VR, plain["PixelData"].is_undefined_length = "OB", True
    plain.file_meta = FileMetaDataset()
    plain.file_meta.TransferSyntaxUID = RLELossless
    plain.is_little_endian, plain.is_implicit_VR = True, False
    try:
        words = _by_pydicom(plain)
    except Exception as error:  # whatever the damage provokes
        raise UnusableError("pixel data cannot be decoded, damaged or truncated") from error
    precision = 8 * size if notes else None
    return Pixels(words.reshape(shape), 8 * size, precision=precision, notes=notes)


def _by_pydicom(plain: Dataset) -> np.ndarray:
    try:
        from pydicom.pixels import get_decoder
    except ImportError:  # pydicom 2
        plain.convert_pixel_data("rle")
        return plain.pixel_array
    return get_decoder(RLELossless).as_array(plain, raw=True, decoding_plugin="pydicom")[0]


def _compressed(stream: Codestream, syntax: UID, tags: Attributes, max_pixels: int) -> Pixels:
    """A stream of the JPEG families, as it describes itself."""
    notes: list[str] = []
    if syntax in _UNCOMPRESSED:
        notes.append(f"pixel data are {stream.kind}, though the transfer syntax says that they aren't compressed")
    if stream.components != 1:
        reason = f"colour: the compressed stream has {stream.components} components"
        raise UnusableError(reason, "give the original grey image")
    if stream.behind:
        notes.append(f"{stream.behind} bytes behind the end of the compressed stream left out")
    shape = _size(tags, stream, notes, max_pixels)
    decoder = _by_pillow if stream.is_dct and stream.precision == 8 else _decoder(_LIBRARIES[stream.kind], syntax)
    try:
        words = decoder(stream.data)
    except Exception as error:  # decoders raise whatever the damage provokes
        reason = (
            f"pixel data cannot be decoded: an unsupported form of {stream.kind}, or damaged inside (it has its end)"
        )
        raise UnusableError(reason, f"{TRANSCODE}, e.g. with {_TOOLS[stream.kind]}") from error
    words = words.reshape(words.shape[:2]) if words.size == shape[0] * shape[1] else words
    if words.shape != shape or words.dtype.kind not in "iu":
        raise UnusableError(f"pixel data decode to shape {words.shape}, {words.dtype}")
    if words.dtype.kind == "i":
        if tags.whole.get("PixelRepresentation") == 0 and int(words.min()) < 0:
            reason = "the compressed stream holds negative values, PixelRepresentation declares unsigned ones"
            raise UnusableError(reason, "correct PixelRepresentation in the file, or export it again")
        words = words.view(f"u{words.dtype.itemsize}")
        words = words & words.dtype.type((1 << stream.precision) - 1)
    elif int(words.max()) >> stream.precision:
        reason = f"pixel data decode to more than the {stream.precision} bits of the compressed stream"
        raise UnusableError(reason, f"{AGAIN}, or {TRANSCODE} there")
    return Pixels(words, 8 * words.dtype.itemsize, stream, stream.precision, notes)


def _decoder(library: str, syntax: UID) -> Callable[[bytes], np.ndarray]:
    try:
        import_module("pylibjpeg")
        return import_module(library).decode
    except ImportError as error:
        reason = f"transfer syntax {syntax} needs a decoder that isn't installed"
        raise UnusableError(reason, f"pip install pylibjpeg pylibjpeg-{library}") from error


def _by_pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        if image.mode != "L":
            raise ValueError(f"decodes to {image.mode}")
        return np.asarray(image)
