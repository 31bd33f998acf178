"""Compressed pixel data whose headers don't fit: depth, sign, size, padding, fragments, transfer syntax."""

from __future__ import annotations

import importlib.util
import io
import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, RLELossless

from cxw_monai.io import RadiographError, read_radiograph
from tests.helpers import dicom_files as _files

write_dicom, fragments = _files.write_dicom, _files.fragments

JPEG_LOSSLESS, JPEG_LS, JPEG2000 = (f"1.2.840.10008.1.2.4.{last}" for last in (70, 80, 90))
RAMP = np.add.outer(np.arange(32), np.arange(40)) / 70  # 0 to 1


def _codes(bits: int, signed: bool = False) -> np.ndarray:
    codes = np.rint(RAMP * ((1 << bits) - 1)).astype(np.int64)
    return codes - (1 << (bits - 1)) if signed else codes


def _encode(codec: str, codes: np.ndarray, precision: int) -> tuple[str, bytes]:
    """``(transfer syntax, stream)`` of whole numbers, as bit patterns of ``precision`` bits for JPEG and JPEG-LS."""
    pytest.importorskip("pylibjpeg")
    patterns = (codes & ((1 << precision) - 1)).astype(np.uint8 if precision <= 8 else np.uint16)
    if codec == "lossless":
        pytest.importorskip("libjpeg")
        return JPEG_LOSSLESS, _files.lossless_jpeg(patterns, precision)
    if codec == "ls":
        pytest.importorskip("libjpeg")
        encode = pytest.importorskip("jpeg_ls").encode_buffer
        rows, columns = codes.shape
        stream = encode(
            patterns.tobytes(), rows=rows, columns=columns, samples_per_pixel=1, bits_stored=precision
        )  # fmt: skip
        return JPEG_LS, bytes(stream)
    encode = getattr(pytest.importorskip("openjpeg"), "encode", None)
    if encode is None:
        pytest.skip("this openjpeg only decodes")
    if codec == "signed 2000":
        patterns = codes.astype(np.int8 if precision <= 8 else np.int16)
    return JPEG2000, bytes(encode(patterns, bits_stored=precision))


def _write(tmp_path, codec, codes, precision, *, stored, allocated=16, signed=False, **attributes):
    syntax, frame = _encode(codec, codes, precision)
    pixels = np.zeros(codes.shape, np.int16 if signed else np.uint16)
    header = {"BitsAllocated": allocated, "BitsStored": stored, "HighBit": stored - 1, **attributes}
    return write_dicom(tmp_path / "a.dcm", pixels, syntax=syntax, frame=frame, **header)


@pytest.mark.parametrize("codec", ["lossless", "ls", "2000"])
@pytest.mark.parametrize(
    ("precision", "stored", "allocated"),
    [
        (12, 10, 16),
        (10, 8, 8),
        (14, 12, 16),
        (12, 8, 8),
        (8, 8, 16),
        (8, 12, 16),
        (12, 16, 16),
        (16, 16, 16),
    ],
)
def test_the_depth_of_the_stream_counts(tmp_path, codec, precision, stored, allocated):
    path = _write(tmp_path, codec, _codes(precision), precision, stored=stored, allocated=allocated)
    film = read_radiograph(path)
    np.testing.assert_allclose(film.array[0], _codes(precision) / ((1 << precision) - 1), atol=1e-6)
    told = f"{precision} bits of the compressed stream, {stored} declared" in film.meta["steps"]
    assert told == (precision != stored) and film.meta["bits"] == precision


@pytest.mark.parametrize("codec", ["lossless", "ls", "2000", "signed 2000"])
@pytest.mark.parametrize("precision", [12, 16])
@pytest.mark.parametrize("signed", [False, True])
def test_values_within_the_stored_bits_keep_their_range(tmp_path, codec, precision, signed):
    # 12 bits encoded as words of 16, the sign extended or not, are still 12 bits
    codes = _codes(12, signed) if signed or codec != "signed 2000" else _codes(12) // 2
    film = read_radiograph(_write(tmp_path, codec, codes, precision, stored=12, signed=signed))
    np.testing.assert_allclose(film.array[0], (codes + 2048 * signed) / 4095, atol=1e-6)
    assert film.meta["bits"] == 12


@pytest.mark.parametrize("codec", ["lossless", "ls", "2000"])
def test_the_depth_of_the_stream_counts_where_the_upper_bits_are_alike(tmp_path, codec):
    codes = 2048 + _codes(10)  # 2048 to 3071: bits 10 and 11 are 0 and 1 in every pixel
    film = read_radiograph(_write(tmp_path, codec, codes, 12, stored=10))
    np.testing.assert_allclose(film.array[0], codes / 4095, atol=1e-6)
    assert "12 bits of the compressed stream, 10 declared" in film.meta["steps"]


def test_upper_bits_of_uncompressed_data_that_are_the_same_in_every_pixel_are_no_part_of_the_picture(tmp_path):
    codes = _codes(10)
    film = read_radiograph(write_dicom(tmp_path / "a.dcm", (2048 + codes).astype(np.uint16), bits=10))
    np.testing.assert_allclose(film.array[0], codes / 1023, atol=1e-6)
    assert "bits above the 10 stored left out, the same in every pixel" in film.meta["steps"]


@pytest.mark.parametrize("codec", ["lossless", "ls", "2000"])
def test_words_of_16_bits_whose_values_need_more_than_is_stored_are_refused(tmp_path, codec):
    path = _write(tmp_path, codec, _codes(12), 16, stored=10)
    with pytest.raises(RadiographError, match="values of 12 bits, BitsStored declares 10; correct BitsStored"):
        read_radiograph(path)


def test_uncompressed_values_beyond_the_stored_bits_are_refused_unless_an_overlay_is_declared(tmp_path):
    codes = _codes(12).astype(np.uint16)
    path = write_dicom(tmp_path / "a.dcm", codes, bits=10)
    with pytest.raises(RadiographError, match="values of 12 bits, BitsStored declares 10"):
        read_radiograph(path)
    overlay = (np.indices(codes.shape).sum(0) % 2).astype(np.uint16) << 12
    path = write_dicom(tmp_path / "a.dcm", codes | overlay, bits=12)
    with pytest.raises(RadiographError, match="values of 13 bits, BitsStored declares 12"):
        read_radiograph(path)
    dataset = pydicom.dcmread(path)
    dataset.add_new(0x60000100, "US", 16)
    dataset.add_new(0x60000102, "US", 12)
    dataset.save_as(path)
    film = read_radiograph(path)
    np.testing.assert_allclose(film.array[0], codes / 4095, atol=1e-6)
    assert "overlay planes above the 12 bits stored left out" in film.meta["steps"]


@pytest.mark.parametrize(("size", "allocated", "stored"), [(1, 16, 16), (1, 16, 12), (2, 8, 8)])
def test_rle_is_read_by_its_segments(tmp_path, size, allocated, stored):
    codes = _codes(8 if size == 1 else 16).astype(np.uint8 if size == 1 else np.uint16)
    path = write_dicom(tmp_path / "a.dcm", codes)
    dataset = pydicom.dcmread(path)
    dataset.compress(RLELossless)
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = allocated, stored, stored - 1
    dataset.save_as(path)
    if size == 2:  # 16 bits where 8 are stored: how many are the value's is not told
        with pytest.raises(RadiographError, match="values of 16 bits, BitsStored declares 8"):
            read_radiograph(path)
        return
    film = read_radiograph(path)
    np.testing.assert_allclose(film.array[0], codes / 255, atol=1e-6)
    assert "BitsAllocated 8 of the compressed data, 16 declared" in film.meta["steps"]


def test_a_window_for_more_bits_than_the_stream_has_is_left_out(tmp_path):
    path = _write(tmp_path, "lossless", _codes(8), 8, stored=12, WindowCenter=2048, WindowWidth=4096)
    film = read_radiograph(path)  # all of it would be black
    np.testing.assert_allclose(film.array[0], _codes(8) / 255, atol=1e-6)
    path = _write(tmp_path, "lossless", _codes(8), 8, stored=12, WindowCenter=128, WindowWidth=256)
    assert "window 1 of 1: center 128, width 256, LINEAR" in read_radiograph(path).meta["steps"]


def test_signs_that_contradict_each_other(tmp_path):
    path = _write(tmp_path, "signed 2000", _codes(12, True), 12, stored=12)
    with pytest.raises(RadiographError, match="negative values, PixelRepresentation declares unsigned"):
        read_radiograph(path)
    path = _write(tmp_path, "signed 2000", _codes(12, True), 12, stored=12, PixelRepresentation=None)
    film = read_radiograph(path)
    np.testing.assert_allclose(film.array[0], _codes(12) / 4095, atol=1e-6)
    assert "PixelRepresentation missing: signed, as the compressed stream" in film.meta["steps"]
    path = _write(tmp_path, "2000", _codes(12, True), 12, stored=12, signed=True)  # patterns without a sign
    np.testing.assert_allclose(read_radiograph(path).array[0], _codes(12) / 4095, atol=1e-6)
    path = _write(tmp_path, "lossless", _codes(12, True), 12, stored=16, signed=True)
    with pytest.raises(RadiographError, match="16 signed bits declared, 12 bits without a sign"):
        read_radiograph(path)


@pytest.mark.parametrize(
    ("high", "shift", "ok"), [(15, 4, True), (15, 0, False), (13, 0, False)], ids=["shifted", "plain", "elsewhere"]
)
def test_high_bit_of_a_stream(tmp_path, high, shift, ok):
    path = _write(tmp_path, "lossless", _codes(12) << shift, 16 if shift else 12, stored=12, HighBit=high)
    film = read_radiograph(path)
    np.testing.assert_allclose(film.array[0], _codes(12) / 4095, atol=1e-6)
    assert any("HighBit" in step for step in film.meta["steps"])


def _baseline(**options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(_codes(8).astype(np.uint8)).save(stream, "JPEG", quality=95, **options)
    return stream.getvalue()


@pytest.mark.parametrize("allocated", [8, 16])
@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_jpeg_of_8_bits_in_words_of_any_size(tmp_path, allocated, options):
    codes = _codes(8).astype(np.uint8 if allocated == 8 else np.uint16)
    path = write_dicom(tmp_path / "a.dcm", codes, bits=8, syntax=JPEGBaseline8Bit, frame=_baseline(**options))
    np.testing.assert_allclose(read_radiograph(path).array[0], codes / 255, atol=0.03)


GARBAGE = bytes(np.random.default_rng(0).integers(1, 256, 3000, dtype=np.uint8)) + b"\xff\xd9"


@pytest.mark.parametrize("behind", [b"\0" * 3, b"\0" * 5001, b"\xff" * 2000, GARBAGE], ids=["3", "5001", "FF", "noise"])
@pytest.mark.parametrize("codec", ["lossless", "ls", "2000", "baseline"])
def test_what_follows_the_end_of_a_stream_is_no_part_of_it(tmp_path, codec, behind):
    syntax, frame = (JPEGBaseline8Bit, _baseline()) if codec == "baseline" else _encode(codec, _codes(8), 8)
    codes = _codes(8).astype(np.uint8)
    film = read_radiograph(write_dicom(tmp_path / "a.dcm", codes, syntax=syntax, frame=frame + behind))
    np.testing.assert_allclose(film.array[0], codes / 255, atol=0.03)
    told = any("behind the end of the compressed stream left out" in step for step in film.meta["steps"])
    assert told == (behind == GARBAGE)
    cut = frame[: int(len(frame) * 0.8)] + (behind if behind != GARBAGE else b"")
    with pytest.raises(RadiographError, match="truncated"):
        read_radiograph(write_dicom(tmp_path / "b.dcm", codes, syntax=syntax, frame=cut))


@pytest.mark.parametrize("way", ["many", "odd", "no table", "filled table", "uncounted padding"])
def test_fragments_of_every_kind(tmp_path, way):
    frame, codes = _baseline(), _codes(8).astype(np.uint8)
    path = write_dicom(tmp_path / "a.dcm", codes, syntax=JPEGBaseline8Bit, frame=frame)
    dataset = pydicom.dcmread(path)
    even = frame + b"\0" * (len(frame) % 2)
    dataset.PixelData = {
        "many": fragments(frame[:200], frame[200:300], b"", even[300:]),
        "odd": fragments(frame[:201], even[201:]),
        "no table": fragments(even, table=False),
        "filled table": fragments(struct.pack("<I", 0), even, table=False),
        "uncounted padding": fragments(frame[:201])[:-201] + frame[:201] + b"\0" + fragments(even[201:], table=False),
    }[way]
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
    np.testing.assert_allclose(read_radiograph(path).array[0], codes / 255, atol=0.03)


def test_several_frames_that_the_header_does_not_count_are_refused(tmp_path):
    frame, codes = _baseline() + b"\0" * (len(_baseline()) % 2), _codes(8).astype(np.uint8)
    path = write_dicom(tmp_path / "a.dcm", codes, syntax=JPEGBaseline8Bit, frame=frame)
    dataset = pydicom.dcmread(path)
    dataset.PixelData = encapsulate([frame, frame])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
    with pytest.raises(RadiographError, match="the pixel data hold 2 compressed frames"):
        read_radiograph(path)


@pytest.mark.parametrize("declared", ["1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.55"])
def test_a_stream_of_another_kind_than_its_transfer_syntax(tmp_path, declared):
    _, frame = _encode("ls", _codes(12), 12)
    path = write_dicom(tmp_path / "a.dcm", _codes(12).astype(np.uint16), bits=12, syntax=declared, frame=frame)
    np.testing.assert_allclose(read_radiograph(path).array[0], _codes(12) / 4095, atol=1e-6)


def _declare(path: Path, syntax: str) -> Path:
    """The file with another transfer syntax in its file meta."""
    content = path.read_bytes()
    at = content.index(b"\x02\x00\x10\x00UI")
    old = struct.unpack("<H", content[at + 6 : at + 8])[0]
    value = syntax.encode() + b"\0" * (len(syntax) % 2)
    path.write_bytes(content[: at + 6] + struct.pack("<H", len(value)) + value + content[at + 8 + old :])
    return path


def test_pixels_that_were_unpacked_or_packed_without_a_new_transfer_syntax(tmp_path):
    codes = _codes(8).astype(np.uint8)
    plain = _declare(write_dicom(tmp_path / "a.dcm", codes), JPEGBaseline8Bit)
    film = read_radiograph(plain)
    np.testing.assert_allclose(film.array[0], codes / 255, atol=1e-6)
    assert "pixel data aren't compressed, though the transfer syntax says so" in film.meta["steps"]
    packed = write_dicom(tmp_path / "b.dcm", codes, syntax=JPEGBaseline8Bit, frame=_baseline())
    _declare(packed, ExplicitVRLittleEndian)
    film = read_radiograph(packed)
    np.testing.assert_allclose(film.array[0], codes / 255, atol=0.03)
    assert "pixel data are JPEG, though the transfer syntax says that they aren't compressed" in film.meta["steps"]


def test_pixel_data_that_hold_nothing_of_their_transfer_syntax(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", _codes(8).astype(np.uint8), syntax=JPEGBaseline8Bit, frame=bytes(900))
    with pytest.raises(RadiographError, match="hold nothing of their transfer syntax .*50.*; export it again"):
        read_radiograph(path)


def test_a_stream_of_another_size_or_of_colour_is_refused(tmp_path):
    codes = _codes(8).astype(np.uint8)
    path = write_dicom(tmp_path / "a.dcm", codes.T, syntax=JPEGBaseline8Bit, frame=_baseline())
    with pytest.raises(RadiographError, match="the compressed stream claims 32x40 pixels, the header 40x32"):
        read_radiograph(path)
    stream = io.BytesIO()
    Image.fromarray(codes).convert("RGB").save(stream, "JPEG")
    path = write_dicom(tmp_path / "a.dcm", codes, syntax=JPEGBaseline8Bit, frame=stream.getvalue())
    with pytest.raises(RadiographError, match="colour: the compressed stream has 3 components"):
        read_radiograph(path)


@pytest.mark.skipif(importlib.util.find_spec("libjpeg") is None, reason="pylibjpeg-libjpeg isn't installed")
def test_a_whole_jpeg_that_the_decoder_does_not_know_is_no_damaged_file(tmp_path):
    dataset = pydicom.dcmread(get_testdata_file("JPEG-lossy.dcm", download=False))  # its scan header has a stop of 0
    dataset.Modality = "CR"
    dataset.save_as(tmp_path / "a.dcm")
    with pytest.raises(RadiographError) as caught:
        read_radiograph(tmp_path / "a.dcm")
    assert "an unsupported form of JPEG" in caught.value.reason and "truncated" not in caught.value.reason
    assert "uncompressed" in caught.value.remedy and "dcmdjpeg or gdcmconv --raw" in caught.value.remedy
    stream = dataset.PixelData[dataset.PixelData.index(b"\xff\xd8\xff") :]
    dataset.PixelData = encapsulate([stream[: len(stream) // 2]])
    dataset.save_as(tmp_path / "b.dcm")
    with pytest.raises(RadiographError) as caught:
        read_radiograph(tmp_path / "b.dcm")
    assert "truncated" in caught.value.reason and "dcmdjpeg" not in caught.value.remedy
