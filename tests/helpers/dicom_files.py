"""Writes small DICOM files for the tests."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

DX = "1.2.840.10008.5.1.4.1.1.1.1"


def write_dicom(
    path: Path,
    pixels: np.ndarray,
    *,
    bits: int | None = None,
    photometric: str = "MONOCHROME2",
    syntax: str = ExplicitVRLittleEndian,
    sop_class: str = DX,
    frame: bytes | None = None,
    raw: dict[str, bytes] | None = None,
    **attributes: object,
) -> Path:
    """A DX of ``pixels`` ``[H, W]``, or of ``frame``, its compressed stream; a None attribute is removed.

    ``raw`` are attributes by their bytes, which may be no value of their kind.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["test"])
    meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    little, implicit = meta.TransferSyntaxUID.is_little_endian, meta.TransferSyntaxUID.is_implicit_VR
    ds = FileDataset(
        str(path), {}, file_meta=meta, preamble=b"\0" * 128, is_implicit_VR=implicit, is_little_endian=little
    )
    ds.SOPClassUID = sop_class
    ds.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    ds.PatientName = "Secret^Name"
    ds.Rows, ds.Columns = pixels.shape
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = photometric
    ds.BitsAllocated = 8 * pixels.dtype.itemsize
    ds.BitsStored = bits or ds.BitsAllocated
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    ds.PixelData = pixels.astype(pixels.dtype.newbyteorder("<" if little else ">")).tobytes()
    ds["PixelData"].VR = "OW"
    if frame is not None:
        ds.PixelData = encapsulate([frame + b"\0" * (len(frame) % 2)])
        ds["PixelData"].VR = "OB"
        ds["PixelData"].is_undefined_length = True
    for name, value in attributes.items():
        if value is None:
            delattr(ds, name)
        else:
            setattr(ds, name, value)
    for name, value in (raw or {}).items():
        tag, vr = Tag(name), dictionary_VR(name).split()[0]
        padded = value + b" " * (len(value) % 2)
        ds._dict[tag] = RawDataElement(tag, vr, len(padded), padded, 0, implicit, little)
    ds.save_as(path)
    return path


def fragments(*parts: bytes, table: bool = True) -> bytes:
    """Encapsulated pixel data of these fragments, with an empty offset table, or none."""
    items = [*([b""] if table else []), *parts]
    return b"".join(b"\xfe\xff\x00\xe0" + struct.pack("<I", len(item)) + item for item in items)


def lossless_jpeg(values: np.ndarray, precision: int) -> bytes:
    """A lossless JPEG (ITU-T T.81 H, each sample predicted by its left neighbour) of ``[H, W]`` whole numbers."""
    rows, columns = values.shape
    values = values.astype(np.int64)
    before = np.roll(values, 1, axis=1)
    before[1:, 0], before[0, 0] = values[:-1, 0], 1 << (precision - 1)
    differences = (values - before + (1 << 15)) % (1 << 16) - (1 << 15)
    bits = []
    for difference in differences.flat:
        size = 16 if difference == -(1 << 15) else int(abs(difference)).bit_length()  # 17 codes of 5 bits
        bits.append(f"{size:05b}")
        if 0 < size < 16:
            bits.append(f"{difference if difference > 0 else difference + (1 << size) - 1:0{size}b}")
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    coded = int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\x00")
    table = bytes([0, *(17 if length == 5 else 0 for length in range(1, 17)), *range(17)])
    parts = [
        b"\xff\xd8",
        b"\xff\xc4" + struct.pack(">H", 2 + len(table)) + table,
        b"\xff\xc3" + struct.pack(">HBHHB", 11, precision, rows, columns, 1) + b"\x01\x11\x00",
        b"\xff\xda" + struct.pack(">HB", 8, 1) + b"\x01\x00\x01\x00\x00",
        coded,
        b"\xff\xd9",
    ]
    return b"".join(parts)


def as_film(name: str) -> bytes:
    """A file that comes with pydicom, its MR class turned into CR or its modality NM into OT, to be read as a film."""
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"this pydicom does not bring {name}")
    content = Path(path).read_bytes()
    content = content.replace(b"1.2.840.10008.5.1.4.1.1.4\0", b"1.2.840.10008.5.1.4.1.1.1\0")
    return content.replace(b"\x08\0\x60\0CS\x02\0NM", b"\x08\0\x60\0CS\x02\0OT")


def lut_sequence(table: list[int], first: int, depth: int, vr: str = "US", explanation: str = "") -> Sequence:
    """A one-item LUT sequence."""
    item = Dataset()
    item.add_new(0x00283002, vr, [len(table), first, depth])
    item.add_new(0x00283006, "OW", np.asarray(table, dtype="<u2").tobytes())
    if explanation:
        item.LUTExplanation = explanation
    return Sequence([item])
