"""Transfer syntaxes: the same pixels from each, always by the same decoder, and no half pictures."""

from __future__ import annotations

import io
import struct
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate, generate_pixel_data_frame
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
)

from cxw_monai.io import RadiographError, read_radiograph
from tests.helpers import dicom_files as _files

write_dicom = _files.write_dicom

RAMP8 = np.arange(256, dtype=np.uint8).reshape(16, 16)
RAMP12 = (np.arange(400, dtype=np.uint16) * 10).reshape(20, 20)
FILM = np.clip(np.add.outer(np.arange(64) * 2, np.arange(64)) + np.eye(64) * 40, 0, 255).astype(np.uint8)
JPEG, JPEG2000, OVERLAY_BITS = "libjpeg", "openjpeg", 0x7000


@pytest.fixture
def bundled(tmp_path):
    """A file that comes with pydicom, as a film: its name -> path."""

    def write(name: str) -> Path:
        (tmp_path / name).write_bytes(_files.as_film(name))
        return tmp_path / name

    return write


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("MR_small_implicit.dcm", None),
        ("MR_small_bigendian.dcm", None),
        ("MR_small_RLE.dcm", None),
        ("MR_small_jp2klossless.dcm", JPEG2000),
        ("MR_small_jpeg_ls_lossless.dcm", JPEG),
    ],
)
def test_one_image_in_six_encodings(bundled, name, codec):
    if codec:
        pytest.importorskip(codec)
    plain = read_radiograph(bundled("MR_small.dcm"))
    np.testing.assert_array_equal(read_radiograph(bundled(name)).array, plain.array)
    dataset = pydicom.dcmread(bundled("MR_small.dcm"))  # signed 16 bits, window 600 +- 800
    by_hand = np.clip((dataset.pixel_array - (dataset.WindowCenter - 0.5)) / (dataset.WindowWidth - 1.0) + 0.5, 0, 1)
    np.testing.assert_allclose(plain.array[0], by_hand, atol=1e-6)


@pytest.mark.parametrize(("name", "top"), [("JPGExtended.dcm", 4095), ("JPEGLSNearLossless_16.dcm", 65535)])
def test_lossy_encodings_of_more_than_8_bits(bundled, name, top):
    pytest.importorskip(JPEG)
    codes = pydicom.dcmread(bundled(name)).pixel_array.view(np.uint16)  # pydicom 2 takes the one for signed
    np.testing.assert_allclose(read_radiograph(bundled(name), voi="none", min_size=8).array[0], codes / top, atol=1e-6)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
@pytest.mark.parametrize("signed", [False, True])
def test_uncompressed_and_deflated(tmp_path, syntax, signed):
    pixels = RAMP12.astype(np.int16) - 2048 if signed else RAMP12
    path = write_dicom(tmp_path / "a.dcm", pixels, bits=12, syntax=syntax)
    np.testing.assert_allclose(read_radiograph(path).array[0], RAMP12 / 4095, atol=1e-7)


def test_8_bits_in_big_endian_words(tmp_path):
    swapped = RAMP8.reshape(-1, 2)[:, ::-1].reshape(RAMP8.shape)  # OW: pairs of pixels in 16-bit words
    path = write_dicom(tmp_path / "a.dcm", swapped, syntax=ExplicitVRBigEndian)
    np.testing.assert_allclose(read_radiograph(path).array[0], RAMP8 / 255, atol=1e-7)


@pytest.mark.parametrize("signed", [False, True])
def test_rle_with_overlay_bits(tmp_path, signed):
    pixels = (RAMP12.astype(np.int16) - 2048) if signed else RAMP12
    words = (pixels.view(np.uint16) & 0x0FFF) | OVERLAY_BITS
    path = write_dicom(tmp_path / "a.dcm", words.view(pixels.dtype), bits=12)
    dataset = pydicom.dcmread(path)
    dataset.compress(RLELossless)
    dataset.save_as(path)
    np.testing.assert_allclose(read_radiograph(path).array[0], RAMP12 / 4095, atol=1e-7)


def _baseline(path: Path, cut: float = 1.0) -> Path:
    stream = io.BytesIO()
    Image.fromarray(FILM).save(stream, "JPEG", quality=70)
    frame = stream.getvalue()
    return write_dicom(path, FILM, syntax=JPEGBaseline8Bit, frame=frame[: int(len(frame) * cut)])


@pytest.mark.skipif(int(pydicom.__version__.split(".")[0]) < 3, reason="pydicom 2 has no table of decoders")
def test_another_decoder_installed_changes_nothing(tmp_path, monkeypatch):
    from pydicom.pixels import decoders
    from pydicom.pixels.decoders.base import Decoder

    path = _baseline(tmp_path / "a.dcm")
    expected = read_radiograph(path).array
    with Image.open(io.BytesIO(next(_frames(path)))) as image:
        np.testing.assert_array_equal(expected[0], np.asarray(image) / np.float32(255))

    def black(stream: bytes, runner: object) -> bytes:
        return bytes(FILM.size)

    rival = {"rival": black, **decoders.JPEGBaseline8BitDecoder._available}  # first, as pydicom takes them
    monkeypatch.setattr(decoders.JPEGBaseline8BitDecoder, "_available", rival)
    assert isinstance(decoders.JPEGBaseline8BitDecoder, Decoder)
    assert not pydicom.dcmread(path).pixel_array.any()  # pydicom alone takes the rival
    np.testing.assert_array_equal(read_radiograph(path).array, expected)


@pytest.mark.skipif(int(pydicom.__version__.split(".")[0]) < 3, reason="pydicom 2 has no table of decoders")
def test_a_decoder_less_changes_nothing_that_it_does_not_decode(tmp_path, monkeypatch):
    from pydicom.pixels import decoders

    path = _baseline(tmp_path / "a.dcm")
    expected = read_radiograph(path).array
    _remove(monkeypatch, "pylibjpeg", "libjpeg", "openjpeg")
    only = {name: run for name, run in decoders.JPEGBaseline8BitDecoder._available.items() if name == "pillow"}
    monkeypatch.setattr(decoders.JPEGBaseline8BitDecoder, "_available", only)
    np.testing.assert_array_equal(read_radiograph(path).array, expected)


def _remove(monkeypatch, *modules: str) -> None:
    for name in modules:
        monkeypatch.setitem(sys.modules, name, None)  # as if not installed


@pytest.mark.parametrize(
    ("name", "modules", "packages"),
    [
        ("JPGExtended.dcm", ("libjpeg",), "pylibjpeg pylibjpeg-libjpeg"),
        ("MR_small_jpeg_ls_lossless.dcm", ("pylibjpeg",), "pylibjpeg pylibjpeg-libjpeg"),
        ("MR_small_jp2klossless.dcm", ("openjpeg",), "pylibjpeg pylibjpeg-openjpeg"),  # though Pillow could
    ],
)
def test_a_missing_decoder_is_named(bundled, monkeypatch, name, modules, packages):
    _remove(monkeypatch, *modules)
    with pytest.raises(RadiographError) as caught:
        read_radiograph(bundled(name))
    assert "needs a decoder that isn't installed" in caught.value.reason
    assert caught.value.remedy == f"pip install {packages}"


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.112", "1.2.3.4"])
def test_a_syntax_without_decoder_is_named(tmp_path, syntax):  # MPEG2, JPEG XL, a private one
    path = write_dicom(tmp_path / "a.dcm", RAMP8, syntax=JPEGBaseline8Bit, frame=b"\0" * 100)
    content, old = path.read_bytes(), JPEGBaseline8Bit.encode()
    at = content.index(old)  # its length stands before it
    value = syntax.encode() + b"\0" * (len(syntax) % 2)
    path.write_bytes(content[: at - 2] + struct.pack("<H", len(value)) + value + content[at + len(old) :])
    with pytest.raises(RadiographError, match=f"transfer syntax {syntax}.* is not supported; convert it"):
        read_radiograph(path)


def _frames(path):
    dataset = pydicom.dcmread(path)
    return generate_pixel_data_frame(dataset.PixelData, 1)


def _cut_frame(source: str | Path, target: Path, cut: float) -> Path:
    """A whole DICOM file around a compressed stream that is cut off."""
    dataset = pydicom.dcmread(source)
    frame = next(_frames(source))
    frame = frame[: int(len(frame) * cut)]
    dataset.PixelData = encapsulate([frame + b"\0" * (len(frame) % 2)])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(target)
    return target


COMPRESSED = [
    ("MR_small_RLE.dcm", None),
    ("MR_small_jp2klossless.dcm", JPEG2000),
    ("MR_small_jpeg_ls_lossless.dcm", JPEG),
    ("JPGExtended.dcm", JPEG),
]


@pytest.mark.parametrize("cut", [0.5, 0.9, 0.99])
@pytest.mark.parametrize(("name", "codec"), COMPRESSED)
def test_a_stream_cut_off_is_an_error(bundled, tmp_path, name, codec, cut):
    if codec:
        pytest.importorskip(codec)
    whole = bundled(name)
    read_radiograph(_cut_frame(whole, tmp_path / "whole.dcm", 1.0))
    with pytest.raises(RadiographError, match="truncated"):
        read_radiograph(_cut_frame(whole, tmp_path / "cut.dcm", cut))


@pytest.mark.parametrize("cut", [0.5, 0.9, 0.99])
def test_a_baseline_stream_cut_off_is_an_error_whatever_pillow_is_told(tmp_path, monkeypatch, cut):
    for lenient in (False, True):
        monkeypatch.setattr("PIL.ImageFile.LOAD_TRUNCATED_IMAGES", lenient)
        with pytest.raises(RadiographError, match="truncated"):
            read_radiograph(_baseline(tmp_path / "cut.dcm", cut))


@pytest.mark.parametrize("name", ["GH133_mg_voilut", "RG1_J2KR", "rsna_cr_chest_jpeg"])
def test_a_real_stream_cut_off_is_an_error(shared_data, tmp_path, name):
    pytest.importorskip(JPEG), pytest.importorskip(JPEG2000)
    path = _cut_frame(shared_data / "dicom" / "images" / f"{name}.dcm", tmp_path / "cut.dcm", 0.9)
    with pytest.raises(RadiographError, match="truncated"):
        read_radiograph(path)


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("encoding", ["plain", "big", "deflated", "jpeg", "rle"])
def test_a_file_cut_off_is_an_error(tmp_path, encoding, keep):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)
    path = tmp_path / "a.dcm"
    if encoding == "jpeg":
        _baseline(path)
    elif encoding == "rle":
        dataset = pydicom.dcmread(write_dicom(path, noise))
        dataset.compress(RLELossless)
        dataset.save_as(path)
    else:
        syntax = {"big": ExplicitVRBigEndian, "deflated": DeflatedExplicitVRLittleEndian}.get(encoding)
        write_dicom(path, noise, **({"syntax": syntax} if syntax else {}))
    read_radiograph(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(RadiographError, match="truncated|cut off"):
        read_radiograph(path)
