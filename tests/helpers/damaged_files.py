"""Valid image files of every format, ways to damage them, and bombs.

Every damaged file is a pure function of its number: ``mutate(seeds, number).content`` is the file again.
"""

from __future__ import annotations

import gzip
import io
import random
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGBaseline8Bit

from tests.helpers import damaged_dicom
from tests.helpers import dicom_files as _files


@dataclass(frozen=True)
class Seed:
    """A valid file."""

    name: str
    content: bytes


@dataclass(frozen=True)
class Case:
    """A damaged file.

    ``is_cut``: the seed's own bytes up to some point, pixel data that end early, or the seed written in another way. If
    it is read, then to the seed's picture.
    """

    seed: Seed
    kind: str
    content: bytes
    is_cut: bool = False


def make_seeds(write_dicom: Callable[..., Path], lut_sequence: Callable[..., object], real: Path | None) -> list[Seed]:
    """Small valid files of every format and encoding; with ``real``, a folder, its small DICOM files too."""
    rng = np.random.default_rng(5)
    ramp = np.add.outer(np.arange(40), 2 * np.arange(48)) * 20 + rng.integers(0, 200, (40, 48))  # 0 to 2,860
    values12, values8 = ramp.astype(np.uint16), (ramp // 16).astype(np.uint8)
    seeds = [*_dicom_seeds(values12, values8, write_dicom, lut_sequence), *_raster_seeds(values12, values8)]
    for suffix in (".nii", ".nii.gz"):
        image = nib.Nifti1Image(values12, np.diag([0.2, 0.2, 1, 1])).to_bytes()
        seeds.append(Seed(f"slice{suffix}", gzip.compress(image, mtime=0) if suffix.endswith("gz") else image))
    for encoding, pack in (("raw", bytes), ("gzip", lambda data: gzip.compress(data, mtime=0))):
        head = f"NRRD0004\ntype: uint16\ndimension: 2\nsizes: 48 40\nendian: little\nencoding: {encoding}\n\n"
        seeds.append(Seed(f"{encoding}.nrrd", head.encode() + pack(values12.tobytes())))
    if real is not None:
        small = [path for path in sorted(real.glob("*.dcm")) if path.stat().st_size < 140_000]
        seeds += [Seed(f"real_{path.name}", path.read_bytes()) for path in small]
    return seeds


def _dicom_seeds(
    values12: np.ndarray, values8: np.ndarray, write_dicom: Callable[..., Path], lut_sequence: Callable[..., object]
) -> Iterator[Seed]:
    jpeg = io.BytesIO()
    Image.fromarray(values8).save(jpeg, "JPEG")
    table = [min(4 * n, 65535) for n in range(4096)]
    variants = {
        "window": (values12, {"bits": 12, "WindowCenter": 1500, "WindowWidth": 3000, "PixelSpacing": [0.2, 0.2]}),
        "mono1": (values8, {"photometric": "MONOCHROME1", "RescaleSlope": -2, "RescaleIntercept": 9}),
        "signed": (values12.astype(np.int16) - 900, {"PixelPaddingValue": -900, "RescaleSlope": 1}),
        "luts": (values12, {"bits": 12, "ModalityLUTSequence": lut_sequence(table, 0, 16)}),
        "voilut": (values12, {"bits": 12, "VOILUTSequence": lut_sequence(table, 0, 16)}),
        "deflated": (values12, {"bits": 12, "syntax": DeflatedExplicitVRLittleEndian}),
        "jpeg": (values8, {"syntax": JPEGBaseline8Bit, "frame": jpeg.getvalue()}),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, (values, attributes) in variants.items():
            path = write_dicom(Path(folder) / "a.dcm", values, **attributes)
            yield Seed(f"{name}.dcm", path.read_bytes())
    for kind in ("", "_implicit", "_bigendian", "_RLE", "_jp2klossless", "_jpeg_ls_lossless"):
        yield Seed(f"MR_small{kind}.dcm", _files.as_film(f"MR_small{kind}.dcm"))


def _raster_seeds(values12: np.ndarray, values8: np.ndarray) -> Iterator[Seed]:
    grey16, grey8 = Image.fromarray(values12 * 16), Image.fromarray(values8)
    kinds = [
        ("grey16.png", grey16, {}),
        ("grey8.png", grey8, {}),
        ("palette.png", grey8.convert("P"), {}),
        ("grey.jpg", grey8, {}),
        ("progressive.jpg", grey8.convert("RGB"), {"progressive": True}),
        ("raw16.tif", grey16, {}),
        ("lzw.tif", grey16, {"compression": "tiff_lzw"}),
        ("deflate.tif", grey8, {"compression": "tiff_adobe_deflate"}),
    ]
    for name, image, options in kinds:
        stream = io.BytesIO()
        image.save(stream, {"jpg": "JPEG", "png": "PNG", "tif": "TIFF"}[name[-3:]], **options)
        yield Seed(name, stream.getvalue())


_NUMBERS = (b"\0", b"\x7f", b"\x80", b"\xff", b"\xff\xff", b"\0\x80", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\xff" * 8)


def mutate(seeds: list[Seed], number: int) -> Case:
    """The damaged file of a number."""
    rng = random.Random(number)
    weights = [0.2 if seed.name.startswith("real_") else 1 for seed in seeds]  # large, so they cost more
    seed = rng.choices(seeds, weights)[0]
    kinds: list[tuple[str, Callable[[bytes, random.Random], bytes]]] = [("flip", _flip), ("bytes", _replace)]
    kinds += [("numbers", _numbers), ("move", _move), ("cut", _cut), ("cut", _cut)]
    if b"DICM" in seed.content[:132]:
        kinds += [("absurd", damaged_dicom.absurd)] * 3 + [
            ("descriptor", damaged_dicom.descriptor),
            ("syntax", damaged_dicom.swapped_syntax),
        ]
        kinds += [
            ("duplicate", damaged_dicom.duplicated),
            ("nested", damaged_dicom.nested),
            ("absent", damaged_dicom.absent),
            ("lut", damaged_dicom.lut),
        ]
        kinds += [("rewritten", damaged_dicom.rewritten)] * 2
    if seed.name.endswith(".png"):
        kinds += [("ihdr", _png_header), ("ihdr", _png_header), ("chunk", _png_chunk), ("short", _png_short)]
    if seed.name.endswith((".nii", ".nrrd", ".tif", ".jpg")):
        kinds += [("header", _header_numbers)] * 3
    kind, damage = rng.choice(kinds)
    return Case(seed, kind, damage(seed.content, rng), kind in ("cut", "short", "rewritten"))


def _flip(content: bytes, rng: random.Random) -> bytes:
    """Single bits anywhere."""
    damaged = bytearray(content)
    for _ in range(rng.choice((1, 1, 3, 30))):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def _replace(content: bytes, rng: random.Random) -> bytes:
    """Bytes near the beginning."""
    damaged = bytearray(content)
    for _ in range(rng.choice((1, 3, 10))):
        damaged[rng.randrange(min(len(damaged), 1500))] = rng.randrange(256)
    return bytes(damaged)


def _numbers(content: bytes, rng: random.Random) -> bytes:
    """Extreme integers anywhere."""
    return _overwrite(content, rng, len(content))


def _header_numbers(content: bytes, rng: random.Random) -> bytes:
    """Extreme integers near the beginning; half of the time near the end, where TIFF has its tags."""
    damaged = _overwrite(content, rng, min(len(content), 360))
    return damaged if rng.random() < 0.5 else _overwrite(damaged[::-1], rng, min(len(content), 200))[::-1]


def _overwrite(content: bytes, rng: random.Random, end: int) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.choice((1, 2, 4))):
        value, at = rng.choice(_NUMBERS), rng.randrange(end)
        damaged[at : at + len(value)] = value
    return bytes(damaged)


def _move(content: bytes, rng: random.Random) -> bytes:
    """A block removed, doubled or zeroed."""
    start, size = rng.randrange(len(content)), rng.choice((1, 2, 8, 100, 1000))
    block = content[start : start + size]
    return content[:start] + rng.choice((b"", block * 2, bytes(len(block)))) + content[start + size :]


def _cut(content: bytes, rng: random.Random) -> bytes:
    """The end is missing: anything, or a little."""
    missing = rng.choice((rng.randrange(1, len(content)), rng.randrange(1, min(len(content), 600))))
    return content[:-missing]


def _chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    """``(name, data)`` of a PNG's chunks."""
    found, at = [], 8
    while at + 12 <= len(content):
        (size,) = struct.unpack(">I", content[at : at + 4])
        found.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + size]))
        at += 12 + size
    return found


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in chunks)


def _png_header(content: bytes, rng: random.Random) -> bytes:
    """Absurd sizes, depths and colour types, with a right checksum."""
    (name, header), *rest = _chunks(content)
    fields = list(struct.unpack(">IIBBBBB", header))
    place = rng.randrange(7)
    large = (0, 1, 39, 41, 47, 49, 65535, 1 << 31, (1 << 31) - 1, (1 << 32) - 1)
    fields[place] = rng.choice(large) if place < 2 else rng.choice((0, 1, 2, 3, 4, 6, 7, 8, 16, 255))
    return _png([(name, struct.pack(">IIBBBBB", *fields)), *rest])


def _png_chunk(content: bytes, rng: random.Random) -> bytes:
    """A chunk that declares a length other than its own, is doubled, is left out, or is unknown."""
    chunks = _chunks(content)
    place = rng.randrange(len(chunks))
    way = rng.randrange(4)
    if way == 0:
        start = 8 + sum(12 + len(data) for _, data in chunks[:place])
        size = struct.pack(">I", rng.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)))
        return content[:start] + size + content[start + 4 :]
    changes = {1: [chunks[place]] * 2, 2: [], 3: [(bytes(rng.choices(b"abIDATzXt", k=4)), bytes(50)), chunks[place]]}
    return _png(chunks[:place] + changes[way] + chunks[place + 1 :])


def _png_short(content: bytes, rng: random.Random) -> bytes:
    """Pixel data that end early, in a whole zlib stream of whole chunks."""
    chunks = _chunks(content)
    raw = zlib.decompress(b"".join(data for name, data in chunks if name == b"IDAT"))
    short = zlib.compress(raw[: rng.randrange(len(raw))])
    head = [chunk for chunk in chunks if chunk[0] not in (b"IDAT", b"IEND")]
    return _png([*head, (b"IDAT", short), (b"IEND", b"")])


def make_bombs() -> list[Case]:
    """Files of a few MB that hold 4 GB of zeros, or declare as much, in every format that can."""
    nrrd = b"NRRD0004\ntype: uint8\ndimension: 2\nsizes: 32 32\nencoding: %s\n\n"
    profile = b"a\0\0\x78\x9c" + _zeros(1024)
    bombs = {
        "deflated.dcm": _deflated_bomb(),
        "slice.nii.gz": _gzip(nib.Nifti1Image(np.zeros((32, 32), np.uint8), np.eye(4)).to_bytes()[:352]),
        "slice_gz.nrrd": nrrd % b"gzip" + _gzip(b""),
        "pixels.png": _png_bomb(32, 32),
        "size.png": _png_bomb(60_000, 60_000),
        "text.png": _png_bomb(32, 32, (b"zTXt", profile)),
        "profile.png": _png_bomb(32, 32, (b"iCCP", profile)),
        "size_jp2.dcm": _patched("MR_small_jp2klossless.dcm", b"\xff\x51", {6: 60_000, 10: 60_000}),
        "tile_jp2.dcm": _patched("MR_small_jp2klossless.dcm", b"\xff\x51", dict.fromkeys((6, 10, 22, 26), 60_000)),
        "size_jls.dcm": _patched("MR_small_jpeg_ls_lossless.dcm", b"\xff\xf7", {5: 0xFFFFFFFF}),
        "size_jpg.dcm": _patched("JPEG-lossy.dcm", b"\xff\xc1", {5: 0xFFFFFFFF}),
        "skip.nrrd": b"NRRD0004\ntype: uint8\ndimension: 2\nsizes: 32 32\nencoding: raw\nline skip: 99999999999\n\n0",
    }
    return [Case(Seed(name, content), "bomb", content) for name, content in bombs.items()]


def _zeros(megabytes: int, head: bytes = b"") -> bytes:
    """A raw deflate stream of ``head`` and then zeros."""
    packers = [zlib.compressobj(9, zlib.DEFLATED, -15) for _ in range(3)]
    start = packers[0].compress(head) + packers[0].flush(zlib.Z_FULL_FLUSH)
    block = packers[1].compress(bytes(1 << 20)) + packers[1].flush(zlib.Z_FULL_FLUSH)
    return start + block * megabytes + packers[2].flush()


def _deflated_bomb() -> bytes:
    """Pixel data of 3 GB for 32 x 32 pixels."""
    meta = b"\x02\x00\x10\x00UI\x16\x00" + str(DeflatedExplicitVRLittleEndian).encode()
    meta = b"\x02\x00\x00\x00UL\x04\x00" + struct.pack("<I", len(meta)) + meta
    shorts = ((2, 1), (0x10, 32), (0x11, 32), (0x100, 8), (0x101, 8), (0x102, 7), (0x103, 0))
    body = b"".join(struct.pack("<HH2sHH", 0x28, element, b"US", 2, value) for element, value in shorts)
    head = b"\x28\x00\x04\x00CS\x0c\x00MONOCHROME2 " + body + b"\xe0\x7f\x10\x00OW\0\0" + struct.pack("<I", 3 << 30)
    return bytes(128) + b"DICM" + meta + _zeros(4096, head)


def _patched(name: str, marker: bytes, values: dict[int, int]) -> bytes:
    """A file of pydicom's with 32-bit numbers at some distances behind a marker of its codestream changed."""
    content = bytearray(_files.as_film(name))
    start = content.index(marker)
    for distance, value in values.items():
        content[start + distance : start + distance + 4] = struct.pack(">I", value)
    return bytes(content)


def _gzip(head: bytes) -> bytes:
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + _zeros(4096, head) + bytes(8)


def _png_bomb(width: int, height: int, *extra: tuple[bytes, bytes]) -> bytes:
    header = (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return _png([header, *extra, (b"IDAT", b"\x78\x9c" + _zeros(4096) + bytes(4)), (b"IEND", b"")])
