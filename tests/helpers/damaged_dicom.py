"""Ways to damage a DICOM file, or to write it as other writers do: each takes its bytes and gives others."""

from __future__ import annotations

import io
import random
import struct
import warnings
import zlib

import numpy as np
import pydicom
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

_ABSURD: dict[str, tuple[object, ...]] = {
    "Rows": (0, 1, 17, 65535),
    "Columns": (0, 1, 17, 65535),
    "BitsAllocated": (0, 1, 7, 8, 12, 24, 32, 64, 65535),
    "BitsStored": (0, 1, 7, 13, 17, 32, 33, 65535),
    "HighBit": (0, 3, 15, 31, 65535),
    "PixelRepresentation": (1, 2, 65535),
    "SamplesPerPixel": (0, 2, 3, 65535),
    "PhotometricInterpretation": ("MONOCHROME1", "RGB", "YBR_FULL_422", "PALETTE COLOR", "", "\\", "MONOCHROME2 X"),
    "PlanarConfiguration": (0, 1, 7),
    "NumberOfFrames": ("0", "1", "-1", "2147483647", "99999999999999", "1.5", "x", "1\\2"),
    "PixelAspectRatio": ("2\\1", "0\\0", "1", "x\\1"),
    "ImagerPixelSpacing": ("0.2\\0.2", "0,2\\0,2", "0\\0", "1e308\\1e308", "x"),
    "NominalScannedPixelSpacing": ("0.2\\0.2", "0.2", "nan\\nan"),
    "EstimatedRadiographicMagnificationFactor": ("1.25", "1,25", "0", "1e-308", "inf", "x"),
    "DistanceSourceToDetector": ("1800", "0", "-1", "1e308", "x"),
    "DistanceSourceToPatient": ("1500", "0", "1e-308", ""),
    "PixelSpacingCalibrationType": ("GEOMETRY", "FIDUCIAL", "x"),
    "SOPClassUID": ("1.2.840.10008.5.1.4.1.1.12.1", "1.2.840.10008.5.1.4.1.1.12.2", ""),
    "PixelSpacing": (
        "0,2\\0,2",
        "0,2,0,2",
        "0\\0",
        "-1\\-1",
        "nan\\nan",
        "1e308\\1e308",
        "1e-320\\1",
        "0.2",
        "a\\b",
        "1\\2\\3",
    ),
    "WindowCenter": ("1500,5", "1,500", "1e308", "-1e308", "nan", "inf", "", "1\\2\\3", "x"),
    "WindowWidth": ("3000,0", "0", "0.5", "1", "-5", "1e308", "1e-308", "nan", "inf", "", "x"),
    "VOILUTFunction": ("SIGMOID", "LINEAR_EXACT", "CUBIC", ""),
    "RescaleSlope": ("0,5", "0", "-1", "1e308", "1e-308", "nan", "inf", "x", "1\\2"),
    "RescaleIntercept": ("1e308", "-1e308", "nan", "x"),
    "PixelPaddingValue": (0, 1, 65535),
    "PixelPaddingRangeLimit": (0, 65535),
    "PresentationLUTShape": ("INVERSE", "IDENTITY", "x"),
    "PixelIntensityRelationship": ("LIN", "LOG", "DISP", "x"),
    "PixelIntensityRelationshipSign": (1, -1, 0),
}
_SYNTAXES = (
    "1.2.840.10008.1.2",
    ExplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.5",
    *(f"1.2.840.10008.1.2.4.{last}" for last in (50, 51, 57, 70, 80, 81, 90, 91, 100, 110, 201)),
    "1.2.3",
    "",
)


def absurd(content: bytes, rng: random.Random) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(content))
    for keyword in rng.sample(sorted(_ABSURD), rng.choice((1, 1, 2, 4))):
        vr = pydicom.datadict.dictionary_VR(keyword).split()[0]
        value = rng.choice(_ABSURD[keyword])
        raw = value.encode() if isinstance(value, str) else struct.pack("<H", value % 65536)
        element = pydicom.dataelem.RawDataElement
        tag = pydicom.tag.Tag(keyword)
        dataset._dict[tag] = element(tag, vr, len(raw), raw + b" " * (len(raw) % 2), 0, False, True)
    return _saved(dataset, content)


def descriptor(content: bytes, rng: random.Random) -> bytes:
    """LUTs whose descriptor or data are wrong."""
    dataset = pydicom.dcmread(io.BytesIO(content))
    item, vr = pydicom.Dataset(), rng.choice(("US", "SS"))
    values = rng.choices((0, 1, 2, 255, 256, 4096, 32767) if vr == "SS" else (0, 1, 8, 16, 17, 256, 65535), k=3)
    item.add_new(0x00283002, vr, values[: rng.choice((3, 3, 1))])
    item.add_new(0x00283006, "OW", bytes(rng.choice((0, 1, 2, 512, 8192))))
    name = rng.choice(("VOILUTSequence", "ModalityLUTSequence"))
    setattr(dataset, name, pydicom.Sequence([item] * rng.choice((0, 1, 1, 3))))
    return _saved(dataset, content)


def absent(content: bytes, rng: random.Random) -> bytes:
    """Attributes that aren't there, or are empty."""
    dataset = pydicom.dcmread(io.BytesIO(content))
    there = [keyword for keyword in sorted(_ABSURD) if keyword in dataset]
    for keyword in rng.sample(there, min(len(there), rng.choice((1, 1, 2, 3)))):
        if rng.random() < 0.5:
            del dataset[keyword]
        else:
            dataset[keyword].value = None
    return _saved(dataset, content)


def lut(content: bytes, rng: random.Random) -> bytes:
    """LUTs as writers leave them: any depth, sign, value representation, byte order and length."""
    dataset = pydicom.dcmread(io.BytesIO(content))
    count = rng.choice((256, 4096, 65536, 100))
    table = np.linspace(0, rng.choice((255, 4095, 65535, 32767)), count).astype("<u2")
    table = table[:: rng.choice((1, -1))]
    data = rng.choice((table.tobytes(), table.astype(np.uint8).tobytes(), table[: count // 2].tobytes(), b""))
    item = pydicom.Dataset()
    first = rng.choice((0, 0, 100, 40000, 65436))
    item.add_new(0x00283002, "US", [count % 65536, first, rng.choice((8, 10, 12, 16, 16, 0, 32))])
    if rng.random() < 0.9:
        item.add_new(0x00283006, rng.choice(("OW", "OB", "UN")), data + b"\0" * (len(data) % 2))
    if rng.random() < 0.1:
        del item[0x00283002]
    name = rng.choice(("VOILUTSequence", "ModalityLUTSequence"))
    setattr(dataset, name, pydicom.Sequence([item] * rng.choice((1, 1, 2))))
    return _saved(dataset, content)


def rewritten(content: bytes, rng: random.Random) -> bytes:
    """The same film as another writer leaves it: bytes behind its stream, other fragments, other deflate."""
    dataset = pydicom.dcmread(io.BytesIO(content))
    if dataset.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian:
        return _deflated_again(content, rng)
    if not dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        dataset.PixelData += bytes(rng.choice((2, 100)))
        return _saved(dataset, content)
    parts = _fragments(dataset.PixelData)
    frame = b"".join(parts)
    if str(dataset.file_meta.TransferSyntaxUID) != "1.2.840.10008.1.2.5":
        frame += rng.choice((b"", b"\0" * 2, b"\0" * 3000, b"\xff" * 2000, rng.randbytes(500)))
    at = rng.randrange(1, len(frame))
    parts = rng.choice(((frame,), (frame[:at], frame[at:]), (frame[:at], b"", frame[at:])))
    items = [b"", *(part + b"\0" * (len(part) % 2 if part is parts[-1] else 0) for part in parts)]
    dataset.PixelData = b"".join(b"\xfe\xff\x00\xe0" + struct.pack("<I", len(item)) + item for item in items)
    dataset["PixelData"].is_undefined_length = True
    return _saved(dataset, content)


def _fragments(data: bytes) -> list[bytes]:
    """Fragments without the offset table."""
    found, at = [], 0
    while at + 8 <= len(data):
        (size,) = struct.unpack("<I", data[at + 4 : at + 8])
        found.append(data[at + 8 : at + 8 + size])
        at += 8 + size
    return found[1:]


def _deflated_again(content: bytes, rng: random.Random) -> bytes:
    """A deflated data set with a header, without an end, or with bytes behind it."""
    uid = str(DeflatedExplicitVRLittleEndian).encode()
    start = content.index(uid) + len(uid)  # the last element of the file meta
    plain = zlib.decompress(content[start:], -zlib.MAX_WBITS)
    packer = zlib.compressobj(rng.choice((0, 1, 9)), zlib.DEFLATED, rng.choice((-15, 15, 31)))
    packed = packer.compress(plain)
    unfinished, packed = packed + packer.copy().flush(zlib.Z_SYNC_FLUSH), packed + packer.flush()
    return content[:start] + rng.choice((unfinished, packed, packed + b"\0", packed + rng.randbytes(300), plain))


def swapped_syntax(content: bytes, rng: random.Random) -> bytes:
    """Another transfer syntax declared than the one it is in."""
    dataset = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True)
    old = str(dataset.file_meta.TransferSyntaxUID).encode()
    field = old + b"\0" * (len(old) % 2)
    new = str(rng.choice(_SYNTAXES)).encode()
    new += b"\0" * (len(new) % 2)
    head = b"\x02\x00\x10\x00UI"
    return content.replace(head + struct.pack("<H", len(field)) + field, head + struct.pack("<H", len(new)) + new, 1)


def _saved(dataset: pydicom.Dataset, content: bytes) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset.save_as(stream)
        except Exception:  # values that can't be written: another damage instead
            return content[::-1]
    return stream.getvalue()


def duplicated(content: bytes, rng: random.Random) -> bytes:
    """An element again, before or after the first, with other values (explicit little endian; else noise)."""
    tag = struct.pack("<HH", 0x0028, rng.choice((0x0010, 0x0011, 0x0100, 0x0101, 0x0102, 0x0103)))
    at = content.find(tag, 132)
    if at < 0:
        return content[: rng.randrange(len(content))]
    again = tag + b"US\x02\x00" + struct.pack("<H", rng.choice((0, 1, 7, 48, 65535)))
    at += rng.choice((0, 10))
    return content[:at] + again * rng.choice((1, 1, 50)) + content[at:]


def nested(content: bytes, rng: random.Random) -> bytes:
    """Sequences within sequences, closed or not."""
    tag = struct.pack("<HH", 0x0028, 0x3010)
    at = max(content.find(struct.pack("<HH", 0x0028, 0x0100), 132), 132)
    depth = rng.choice((2, 20, 500, 5000))
    opened = (tag + b"SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff") * depth
    closed = (b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0") * rng.choice((0, depth, depth - 1))
    return content[:at] + opened + closed + content[at:]
