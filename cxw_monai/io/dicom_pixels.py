"""Decoding of DICOM pixel data: one decoder per transfer syntax, and no half pictures.

Decoders of lossy JPEG differ by a grey level, and pydicom takes whichever is installed. Here each transfer syntax has
one, so that a file gives the same array everywhere: Pillow for 8-bit JPEG, pylibjpeg for the other JPEG families,
pydicom itself for RLE and for what is not compressed.

Some of them return what they have got where a stream is cut off. A JPEG or JPEG 2000 stream is therefore decoded only
if its end marker is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from os import PathLike
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

try:
    from pydicom.pixels import get_decoder
except ImportError:  # pydicom 2
    get_decoder = None

from cxw_monai.io.image import RadiographError
from cxw_monai.io.integrity import codestream_size

__all__ = ["AGAIN", "decode"]

AGAIN = "copy it again from its source"

_JPEG = ("pylibjpeg", "libjpeg", "pylibjpeg pylibjpeg-libjpeg")
_JPEG2000 = ("pylibjpeg", "openjpeg", "pylibjpeg pylibjpeg-openjpeg")
_DECODERS = {  # transfer syntax -> (pydicom's plugin, module that must be there, packages to install)
    **{f"1.2.840.10008.1.2.4.{last}": _JPEG for last in (50, 51, 57, 70, 80, 81)},
    **{f"1.2.840.10008.1.2.4.{last}": _JPEG2000 for last in (90, 91, 201, 202, 203)},
    str(RLELossless): ("pydicom", "pydicom", "pydicom"),
}
_UNCOMPRESSED = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
)
_JPEG_DCT = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
_END_MARKER = b"\xff\xd9"  # EOI of JPEG and JPEG-LS, EOC of JPEG 2000; cannot occur within their coded data
_TAIL_BYTES = 1024


def decode(dataset: Dataset, tags: Mapping[str, Any], path: str | PathLike[str]) -> np.ndarray:
    """Stored codes ``[H, W]`` as unsigned bit patterns of BitsAllocated, the lowest bit of a code in bit 0.

    Bits above BitsStored are kept, whatever they hold.

    Args:
        dataset: as read.
        tags: keyword -> value of its attributes.
        path: the file, for the error.

    Raises:
        RadiographError: needs a decoder that isn't installed or doesn't exist, is cut off or damaged.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax not in _UNCOMPRESSED:
        _refuse_unknown_or_cut(tags, syntax, path)
    try:
        codes = _pixel_array(dataset, tags, syntax)
    except Exception as error:  # decoders raise whatever the damage provokes
        reason = f"pixel data cannot be decoded, damaged or truncated ({type(error).__name__})"
        raise RadiographError(path, reason, AGAIN) from error
    if codes.shape != (tags["Rows"], tags["Columns"]) or codes.dtype.kind not in "iu":
        raise RadiographError(path, f"pixel data decode to shape {codes.shape}, {codes.dtype}", AGAIN)
    codes = np.asarray(codes, dtype=codes.dtype.newbyteorder("=")).view(f"u{codes.dtype.itemsize}")
    unused = _unused_low_bits(tags, syntax, path)
    return codes >> unused if unused else codes


def _refuse_unknown_or_cut(tags: Mapping[str, Any], syntax: UID, path: str | PathLike[str]) -> None:
    """Refuse a compressed stream that has no decoder here, no end, or another size."""
    known = _DECODERS.get(str(syntax))
    if known is None:
        name = f"{syntax} ({syntax.name})" if syntax.name != syntax else str(syntax)
        remedy = "convert it to an uncompressed or JPEG 2000 transfer syntax"
        raise RadiographError(path, f"transfer syntax {name} is not supported", remedy)
    plugin, module, packages = known
    if not _by_pillow(tags, syntax):
        try:
            import_module(module), import_module(plugin)
        except ImportError as error:
            reason = f"transfer syntax {syntax} needs a decoder that isn't installed"
            raise RadiographError(path, reason, f"pip install {packages}") from error
    if plugin == "pylibjpeg" and _END_MARKER not in tags["PixelData"][-_TAIL_BYTES:]:
        raise RadiographError(path, "pixel data are truncated: the compressed stream has no end", AGAIN)
    claimed = codestream_size(tags["PixelData"]) if plugin == "pylibjpeg" else None
    if claimed is not None and (claimed[0] > tags["Rows"] or claimed[1] > tags["Columns"]):  # would take long to decode
        stream, header = (f"{rows}x{columns}" for rows, columns in (claimed, (tags["Rows"], tags["Columns"])))
        raise RadiographError(path, f"the compressed stream claims {stream} pixels, the header {header}", AGAIN)


def _by_pillow(tags: Mapping[str, Any], syntax: UID) -> bool:
    return str(syntax) in _JPEG_DCT and tags["BitsAllocated"] == 8


def _pixel_array(dataset: Dataset, tags: Mapping[str, Any], syntax: UID) -> np.ndarray:
    """The decoder's array, unchanged and perhaps read-only; always by the same decoder."""
    plugin = "pillow" if _by_pillow(tags, syntax) else _DECODERS.get(str(syntax), ("",))[0]
    if get_decoder is None:  # pydicom 2
        if plugin:
            dataset.convert_pixel_data("rle" if plugin == "pydicom" else plugin)
        return dataset.pixel_array
    decoder = get_decoder(syntax)
    return decoder.as_array(dataset, raw=True, decoding_plugin=plugin, correct_unused_bits=False, view_only=True)[0]


def _unused_low_bits(tags: Mapping[str, Any], syntax: UID, path: str | PathLike[str]) -> int:
    """How many bits lie below the code: HighBit above BitsStored - 1, an old way to store 12 bits in 16."""
    bits, allocated = int(tags["BitsStored"]), int(tags["BitsAllocated"])
    high = int(tags.get("HighBit", bits - 1))
    packed = syntax in (*_UNCOMPRESSED, RLELossless)  # others hold numbers and no bits to choose from
    if not (high == bits - 1 or (packed and bits - 1 < high < allocated)):
        reason = f"{bits} bits stored of {allocated}, high bit {high}, not supported"
        raise RadiographError(path, reason, "export it again with HighBit = BitsStored - 1")
    return high + 1 - bits
