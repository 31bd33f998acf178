"""Damaged files of every format: the package's own error or a valid radiograph, nothing else."""

from __future__ import annotations

import bz2
import gzip
import random
import struct
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from pydicom.uid import DeflatedExplicitVRLittleEndian

from cxw_monai.io import RadiographError, read_radiograph
from tests.helpers import dicom_files as _files

RAMP = (np.arange(900, dtype=np.uint16) * 4).reshape(30, 30)
TRIALS = 150


def _write(path: Path) -> Path:
    if path.suffix == ".dcm":
        lut = _files.lut_sequence(list(range(4096)), 0, 16)
        return _files.write_dicom(path, RAMP, bits=12, ModalityLUTSequence=lut, WindowCenter=99, WindowWidth=300)
    if path.name.endswith((".nii", ".nii.gz")):
        nib.save(nib.Nifti1Image(RAMP, np.eye(4)), path)
    else:
        Image.fromarray(RAMP if path.suffix == ".png" else (RAMP // 16).astype(np.uint8)).save(path)
    return path


def _damage(content: bytes, rng: random.Random) -> bytes:
    """Cut off, or up to ten bytes of the first 1,200 replaced."""
    if rng.random() < 0.3:
        return content[: rng.randrange(len(content))]
    damaged = bytearray(content)
    for _ in range(rng.choice([1, 3, 10])):
        damaged[rng.randrange(min(len(damaged), 1200))] = rng.randrange(256)
    return bytes(damaged)


@pytest.mark.parametrize("name", ["a.dcm", "a.png", "a.jpg", "a.tif", "a.nii", "a.nii.gz"])
def test_damage_is_an_error_or_harmless(tmp_path, name):
    path, rng = _write(tmp_path / name), random.Random(name)
    whole, refused = path.read_bytes(), 0
    for _ in range(TRIALS):
        path.write_bytes(_damage(whole, rng))
        try:
            array = read_radiograph(path).array
        except RadiographError as error:
            assert error.path == str(path) and "\n" not in str(error)
            refused += 1
        else:
            assert array.ndim == 3 and 0 <= array.min() < array.max() <= 1
    assert refused > TRIALS // 5  # the cut files at least


def test_a_deflated_dicom_that_unpacks_to_gigabytes_is_refused(tmp_path):
    path = _files.write_dicom(tmp_path / "a.dcm", RAMP, syntax=DeflatedExplicitVRLittleEndian)
    assert read_radiograph(path).array.shape == (1, 30, 30)
    black = np.zeros((9000, 9000), np.uint8)  # 81 MB in a file of 80 kB
    _files.write_dicom(path, black, syntax=DeflatedExplicitVRLittleEndian)
    assert path.stat().st_size < 200_000
    with pytest.raises(RadiographError, match=r"a\.dcm: unpacks to more than 67\d+ bytes"):
        read_radiograph(path, max_pixels=1000)


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("bzip2", bz2.compress)])
def test_a_nrrd_that_unpacks_to_more_than_its_header_says_is_refused(tmp_path, encoding, pack):
    pytest.importorskip("nrrd")
    header = f"NRRD0004\ntype: uint16\ndimension: 2\nsizes: 30 30\nendian: little\nencoding: {encoding}\n\n".encode()
    path = tmp_path / "a.nrrd"
    path.write_bytes(header + pack(RAMP.tobytes()))
    assert read_radiograph(path).array.shape == (1, 30, 30)
    path.write_bytes(header + pack(RAMP.tobytes() + bytes(10_000_000)))
    with pytest.raises(RadiographError, match="unpacks to more than 7200 bytes"):
        read_radiograph(path)


def test_a_nrrd_with_lines_to_skip_is_refused(tmp_path):
    pytest.importorskip("nrrd")
    path = tmp_path / "a.nrrd"  # pynrrd would count to the end
    path.write_bytes(b"NRRD0004\ntype: uint8\ndimension: 2\nsizes: 30 30\nencoding: raw\nline skip: 99999999999\n\n0")
    with pytest.raises(RadiographError, match="data don't follow its header; save it without line or byte skip"):
        read_radiograph(path)


@pytest.mark.parametrize(
    ("name", "decoder", "marker", "at"),
    [
        ("MR_small_jpeg_ls_lossless.dcm", "libjpeg", b"\xff\xf7", 5),
        ("MR_small_jp2klossless.dcm", "openjpeg", b"\xff\x4f\xff\x51", 8),
    ],
)
def test_a_stream_that_claims_more_pixels_than_its_header_is_not_decoded(tmp_path, name, decoder, marker, at):
    pytest.importorskip("pylibjpeg"), pytest.importorskip(decoder)
    path, content = tmp_path / name, bytearray(_files.as_film(name))
    start = content.index(marker) + at
    path.write_bytes(content)
    assert read_radiograph(path).array.ndim == 3
    content[start : start + 4] = b"\0\0\xff\xff" if decoder == "openjpeg" else b"\xff\xff\xff\xff"
    path.write_bytes(content)
    with pytest.raises(RadiographError, match=r"the compressed stream claims \d+x65535 pixels, the header \d+x\d+;"):
        read_radiograph(path)


@pytest.mark.parametrize("tags", [{"RescaleIntercept": "-1e308", "RescaleSlope": 1}, {"RescaleSlope": "1e308"}])
def test_a_rescale_without_a_range_of_numbers_is_refused(tmp_path, tags):
    path = _files.write_dicom(tmp_path / "a.dcm", RAMP, **{"RescaleIntercept": 0, **tags})
    with pytest.raises(RadiographError, match="RescaleSlope and RescaleIntercept leave no range of numbers"):
        read_radiograph(path)


def _png(raw: bytes, interlaced: int) -> bytes:
    """An 8-bit grey PNG of 20x18 pixels (rows x columns) whose unfiltered rows are ``raw``."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 18, 20, 8, 0, 0, 0, interlaced)), (b"IDAT", zlib.compress(raw))]
    parts = [struct.pack(">I", len(data)) + name + data for name, data in [*chunks, (b"IEND", b"")]]
    sums = [struct.pack(">I", zlib.crc32(part[4:])) for part in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(part + crc for part, crc in zip(parts, sums, strict=True))


@pytest.mark.parametrize("interlaced", [0, 1])
def test_a_png_without_its_last_rows_is_refused(tmp_path, interlaced):
    # Adam7 has the columns x rows 3x3, 2x3, 5x2, 4x5, 9x5, 9x10, 18x10, and then there is a filter byte for each row
    passes = [(3, 3), (2, 3), (5, 2), (4, 5), (9, 5), (9, 10), (18, 10)] if interlaced else [(18, 20)]
    rows = [b"\0" + bytes(range(50, 50 + columns)) for columns, count in passes for _ in range(count)]
    path = tmp_path / "a.png"
    path.write_bytes(_png(b"".join(rows), interlaced))
    assert read_radiograph(path).array.min() > 0
    rows[-1] = bytes(19)  # black, but there
    path.write_bytes(_png(b"".join(rows), interlaced))
    assert read_radiograph(path).array[0, -1].max() == 0
    for missing in (1, 5, 10):  # whole rows: Pillow notices the others
        path.write_bytes(_png(b"".join(rows[:-missing]), interlaced))
        with pytest.raises(RadiographError, match=r"a\.png: truncated: \d+ of \d+ bytes of pixels"):
            read_radiograph(path)
