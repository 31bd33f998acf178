"""Missing and malformed attributes, and deflated files of every producer."""

from __future__ import annotations

import re
import zlib

import numpy as np
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from cxw_monai.io import RadiographError, read_radiograph
from cxw_monai.io.dicom import film as film_reader
from cxw_monai.io.dicom.attributes import read_attributes
from tests.helpers import dicom_files as _files

write_dicom = _files.write_dicom

RAMP12 = (np.arange(400, dtype=np.uint16) * 10).reshape(20, 20)  # 0..3990 of 0..4095
RAMP8 = np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.mark.parametrize(
    ("attributes", "step"),
    [
        ({"PixelRepresentation": None}, "PixelRepresentation missing: taken as unsigned"),
        ({"BitsStored": None}, "BitsStored missing: 12 by HighBit + 1"),
        ({"HighBit": None}, None),
        ({"SamplesPerPixel": None}, None),
        ({"BitsAllocated": None}, "BitsAllocated missing: 16 by the length of the pixel data"),
        (
            {"PhotometricInterpretation": None, "PresentationLUTShape": "IDENTITY"},
            "PhotometricInterpretation missing: MONOCHROME2 by PresentationLUTShape",
        ),
        ({"PhotometricInterpretation": "monochrome2"}, None),
        ({"raw": {"PhotometricInterpretation": b"MONOCHROME2\0"}}, None),
        ({"raw": {"BitsStored": b"12  "}}, "BitsStored missing: 12 by HighBit + 1"),
    ],
)
def test_what_is_told_elsewhere_may_be_missing(tmp_path, attributes, step):
    film = read_radiograph(write_dicom(tmp_path / "a.dcm", RAMP12, bits=12, **attributes))
    np.testing.assert_allclose(film.array[0], RAMP12 / 4095, atol=1e-7)
    assert step is None or step in film.meta["steps"]


def test_missing_photometric_interpretation_by_an_inverse_shape(tmp_path):
    attributes = {"PhotometricInterpretation": None, "PresentationLUTShape": "INVERSE"}
    film = read_radiograph(write_dicom(tmp_path / "a.dcm", RAMP12, bits=12, **attributes))
    np.testing.assert_allclose(film.array[0], 1 - RAMP12 / 4095, atol=1e-6)


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"BitsStored": None, "HighBit": None}, "BitsStored is missing, and so is HighBit"),
        ({"PhotometricInterpretation": None}, "PhotometricInterpretation is missing"),
        ({"Rows": None}, "Rows is missing or 0"),
        ({"Columns": 0}, "Columns is missing or 0"),
        ({"BitsAllocated": 12}, "BitsAllocated is 12"),
        ({"PixelRepresentation": 7}, "PixelRepresentation is 7"),
        ({"raw": {"NumberOfFrames": b"x"}}, "NumberOfFrames is no whole number"),
        ({"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}, "800 bytes of pixel data where its header declares 400"),
    ],
)
def test_what_nothing_tells_is_named_with_what_to_do(tmp_path, attributes, reason):
    path = write_dicom(tmp_path / "a.dcm", RAMP12, bits=12, **attributes)
    with pytest.raises(RadiographError) as caught:
        read_radiograph(path)
    assert reason in caught.value.reason and caught.value.path == str(path)
    assert re.search("correct|write|export it again", caught.value.remedy)
    assert not re.search(r"damaged|\w+Error\b", caught.value.reason + caught.value.remedy)


@pytest.mark.parametrize("missing", ["Rows", "Columns", "BitsAllocated", "BitsStored"])
def test_a_compressed_stream_tells_what_is_missing(tmp_path, missing):
    pytest.importorskip("pylibjpeg"), pytest.importorskip("libjpeg")
    frame = _files.lossless_jpeg(RAMP12, 12)
    attributes = {missing: None} | ({"HighBit": None} if missing == "BitsStored" else {})
    path = write_dicom(tmp_path / "a.dcm", RAMP12, bits=12, syntax="1.2.840.10008.1.2.4.70", frame=frame, **attributes)
    np.testing.assert_allclose(read_radiograph(path).array[0], RAMP12 / 4095, atol=1e-7)


@pytest.mark.parametrize(
    ("center", "width"), [(b"2047,5", b"4095"), (b"2047,5", b"4095,0"), (b" 2047.5 ", b"+4095"), (b"2.0475E3", b"4095")]
)
def test_numbers_as_writers_leave_them(tmp_path, center, width):
    raw = {"WindowCenter": center, "WindowWidth": width}
    film = read_radiograph(write_dicom(tmp_path / "a.dcm", RAMP12, bits=12, raw=raw))
    np.testing.assert_allclose(film.array[0], np.clip((RAMP12 - 2047.0) / 4094 + 0.5, 0, 1), atol=1e-6)
    told = [step for step in film.meta["steps"] if step.endswith("decimal comma read as a point")]
    assert len(told) == (center + width).count(b",")


def _raw(content: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(content) + packer.flush()


def _open(content: bytes) -> bytes:
    """Without a last block, as some flush it."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(content) + packer.flush(zlib.Z_SYNC_FLUSH)


def _gzip(content: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return packer.compress(content) + packer.flush()


PACKERS = {
    "raw": _raw,
    "padded": lambda content: _raw(content) + b"\0",
    "followed by noise": lambda content: _raw(content) + b"\xff\x17\x00" * 50,
    "zlib": zlib.compress,
    "zlib, padded": lambda content: zlib.compress(content) + b"\0",
    "zlib, without its sum": lambda content: zlib.compress(content)[:-4],
    "without a last block": _open,
    "gzip": _gzip,
    "not at all": bytes,
}


@pytest.mark.parametrize("way", PACKERS)
@pytest.mark.parametrize("preamble", [True, False])
def test_deflated_files_of_every_producer(tmp_path, way, preamble):
    plain = write_dicom(tmp_path / "plain.dcm", RAMP12, bits=12, syntax=ExplicitVRLittleEndian).read_bytes()
    start = plain.index(b"\x08\x00\x16\x00", 132)
    uid = str(DeflatedExplicitVRLittleEndian).encode()
    meta = b"\x02\x00\x01\x00OB\0\0\x02\x00\x00\x00\x00\x01" + b"\x02\x00\x10\x00UI\x16\x00" + uid  # of no group length
    path = tmp_path / "a.dcm"
    path.write_bytes((bytes(128) + b"DICM" if preamble else b"") + meta + PACKERS[way](plain[start:]))
    film = read_radiograph(path)
    np.testing.assert_allclose(film.array[0], RAMP12 / 4095, atol=1e-7)


@pytest.mark.parametrize("way", ["raw", "zlib", "without a last block"])
def test_a_deflated_file_cut_off_is_refused(tmp_path, way):
    noise = np.random.default_rng(0).integers(0, 4096, (40, 40), dtype=np.uint16)
    plain = write_dicom(tmp_path / "plain.dcm", noise, bits=12, syntax=ExplicitVRLittleEndian).read_bytes()
    start = plain.index(b"\x08\x00\x16\x00", 132)
    uid = str(DeflatedExplicitVRLittleEndian).encode()
    packed, path = PACKERS[way](plain[start:]), tmp_path / "a.dcm"
    for kept in (0.99, 0.7, 0.3, 0.02):
        path.write_bytes(bytes(128) + b"DICM\x02\x00\x10\x00UI\x16\x00" + uid + packed[: int(kept * len(packed))])
        with pytest.raises(RadiographError, match="truncated|cut off"):
            read_radiograph(path)


@pytest.mark.parametrize("shape", [b"inverse", b"Inverse", b"INVERSE"])
def test_a_presentation_lut_shape_in_any_case(tmp_path, shape):
    film = read_radiograph(write_dicom(tmp_path / "a.dcm", RAMP12, bits=12, raw={"PresentationLUTShape": shape}))
    np.testing.assert_allclose(film.array[0], 1 - RAMP12 / 4095, atol=1e-6)


def test_codes_in_small_letters_are_read(tmp_path):
    raw = {
        "PresentationIntentType": b"For Processing",
        "PixelIntensityRelationship": b"log",
        "ViewPosition": b"pa",
        "ImageLaterality": b"u",
        "WindowCenter": b"2048",
        "WindowWidth": b"4096",
        "WindowCenterWidthExplanation": b"Lung",
    }
    path = write_dicom(tmp_path / "a.dcm", RAMP12, bits=12, raw=raw, PixelIntensityRelationshipSign=1)
    meta = read_radiograph(path, voi_item="lung").meta
    assert (meta["intent"], meta["view"], meta["laterality"]) == ("FOR PROCESSING", "PA", "U")
    assert "bone is dark: values rise with the X-ray intensity" in meta["steps"]


@pytest.mark.parametrize(
    ("orientation", "how"),
    [
        (b"R\\F", "left and right exchanged"),
        (b"rl\\fa", "left and right exchanged"),
        (b"R\\H", "upside down"),
        (b"P\\H", "upside down"),
        (b"F\\L", "on its side"),
        (b"L\\F", None),
        (b"P\\F", None),
        (b"A\\F", None),
        (b"P\\L", None),  # a mammogram from above
        (b"", None),
        (b"R", None),
        (b"x\\y", None),
    ],
)
def test_a_film_declared_to_be_mirrored_or_turned_is_told_so(tmp_path, caplog, monkeypatch, orientation, how):
    monkeypatch.setattr(film_reader, "_told", set())
    path = write_dicom(tmp_path / "a.dcm", RAMP12, bits=12, raw={"PatientOrientation": orientation})
    film = read_radiograph(path)
    read_radiograph(path)  # told once
    np.testing.assert_allclose(film.array[0], RAMP12 / 4095, atol=1e-6)  # as stored
    found = [step for step in film.meta["steps"] if step.startswith("PatientOrientation")]
    assert len(found) == len(caplog.messages) == (how is not None)
    assert how is None or (how in found[0] and caplog.messages[0].startswith(f"{path}: {found[0]}"))


def _item(**attributes: object) -> Sequence:
    item = Dataset()
    for name, value in attributes.items():
        setattr(item, name, value)
    return Sequence([item])


@pytest.mark.parametrize("where", ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"])
def test_window_and_spacing_of_an_enhanced_object_of_one_frame(tmp_path, where):
    groups = _item(
        FrameVOILUTSequence=_item(WindowCenter=1024, WindowWidth=2048),
        FramePixelDataPropertiesSequence=_item(ImagerPixelSpacing=[0.2, 0.3]),
        PatientOrientationInFrameSequence=_item(PatientOrientation=["R", "F"]),
    )
    enhanced_xa = "1.2.840.10008.5.1.4.1.1.12.1.1"
    path = write_dicom(tmp_path / "a.dcm", RAMP12, bits=12, sop_class=enhanced_xa, NumberOfFrames=1, **{where: groups})
    film = read_radiograph(path)
    np.testing.assert_allclose(film.array[0], np.clip(RAMP12 / 2047, 0, 1), atol=1e-6)
    assert film.meta["spacing_mm"] == pytest.approx((0.2, 0.3))
    assert any(step.startswith("PatientOrientation R") for step in film.meta["steps"])
    path = write_dicom(tmp_path / "b.dcm", RAMP12, bits=12, WindowCenter=2048, WindowWidth=4096, **{where: groups})
    np.testing.assert_allclose(read_radiograph(path).array[0], RAMP12 / 4095, atol=1e-6)  # its own comes first


def test_functional_groups_that_cannot_be_read_are_noted():
    dataset, tag = Dataset(), Tag("SharedFunctionalGroupsSequence")
    dataset._dict[tag] = RawDataElement(tag, "US", 2, b"\7\0", 0, False, True)
    assert read_attributes(dataset).notes == ["SharedFunctionalGroupsSequence left out: it cannot be read"]
