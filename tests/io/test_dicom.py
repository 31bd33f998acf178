"""DICOM on synthetic files with hand-computed values."""

from __future__ import annotations

import json
import logging
import warnings

import numpy as np
import pydicom
import pytest
from pydicom.pixel_data_handlers.util import apply_voi_lut
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from cxw_monai.io import RadiographError, read_radiograph
from cxw_monai.io.pixel_map import PixelMap
from tests.helpers import dicom_files as _files

write_dicom, lut_sequence = _files.write_dicom, _files.lut_sequence

RAMP12 = (np.arange(400, dtype=np.uint16) * 10).reshape(20, 20)  # 0..3990 of 0..4095


def test_declared_range_without_a_window(tmp_path):
    radiograph = read_radiograph(write_dicom(tmp_path / "a.dcm", RAMP12, bits=12, ViewPosition="PA", Laterality="L"))
    np.testing.assert_allclose(radiograph.array[0], RAMP12 / 4095, atol=1e-7)
    meta = radiograph.meta
    assert (meta["bits"], meta["photometric"], meta["view"], meta["laterality"]) == (12, "MONOCHROME2", "PA", "L")
    assert meta["steps"] == ["declared range 0 to 4095", "spacing: unknown"]
    assert meta["spacing_mm"] is None and meta["original_shape"] == (20, 20)
    assert meta["pixel_map"] == PixelMap.identity((20, 20))
    json.dumps({**meta, "pixel_map": meta["pixel_map"].to_dict()})


@pytest.mark.parametrize("window", [{}, {"WindowCenter": 1000, "WindowWidth": 500}])
def test_monochrome1_and_presentation_inverse_are_exact_complements(tmp_path, window):
    plain = read_radiograph(write_dicom(tmp_path / "2.dcm", RAMP12, bits=12, **window)).array
    one = write_dicom(tmp_path / "1.dcm", RAMP12, bits=12, photometric="MONOCHROME1", **window)
    shape = write_dicom(tmp_path / "s.dcm", RAMP12, bits=12, PresentationLUTShape="INVERSE", **window)
    both = write_dicom(
        tmp_path / "b.dcm", RAMP12, bits=12, photometric="MONOCHROME1", PresentationLUTShape="INVERSE", **window
    )
    for path in (one, shape, both):  # both tags say the same thing: inverted once
        inverted = read_radiograph(path)
        np.testing.assert_allclose(inverted.array, 1 - plain, atol=6e-8)
        assert "inverted" in inverted.meta["steps"]


def test_linear_window_by_hand(tmp_path):
    # PS3.3 C.11.2.1.2.1: y = (x - (c - 0.5)) / (w - 1) + 0.5, here c = 100, w = 51: 0 at 74.5, 1 at 124.5
    pixels = np.array([0, 74, 75, 100, 124, 125, 200] * 40, np.uint16)[:256].reshape(16, 16)
    path = write_dicom(tmp_path / "a.dcm", pixels, bits=12, WindowCenter=[100, 7], WindowWidth=[51, 9])
    radiograph = read_radiograph(path)
    np.testing.assert_allclose(radiograph.array[0].flat[:7], [0, 0, 0.01, 0.51, 0.99, 1, 1], atol=1e-6)
    assert radiograph.meta["steps"][0] == "window 1 of 2: center 100, width 51, LINEAR"
    full = read_radiograph(path, voi="none")
    np.testing.assert_allclose(full.array[0], pixels / 4095, atol=1e-7)


@pytest.mark.parametrize(
    ("function", "expected"),
    [("LINEAR_EXACT", [0, 0.25, 0.5, 1]), ("SIGMOID", [0.01798621, 0.26894142, 0.5, 0.98201379])],
)
def test_other_window_functions_by_hand(tmp_path, function, expected):
    # c = 100, w = 40: exact (x - 100) / 40 + 0.5; sigmoid 1 / (1 + exp(-4 (x - 100) / 40))
    pixels = np.array([60, 90, 100, 140] * 64, np.uint16).reshape(16, 16)
    path = write_dicom(tmp_path / "a.dcm", pixels, WindowCenter=100, WindowWidth=40, VOILUTFunction=function)
    np.testing.assert_allclose(read_radiograph(path).array[0].flat[:4], expected, atol=1e-6)


def test_rescale_comes_before_the_window_and_may_fall(tmp_path):
    # Modality value = 4095 - stored; window 1 at 3000.5 and above, 0 at 1000.5 and below (c = 2001, w = 2001)
    path = write_dicom(
        tmp_path / "a.dcm", RAMP12, bits=12, RescaleSlope=-1, RescaleIntercept=4095, WindowCenter=2001, WindowWidth=2001
    )
    modality = 4095.0 - RAMP12
    np.testing.assert_allclose(read_radiograph(path).array[0], np.clip((modality - 1000.5) / 2000, 0, 1), atol=1e-6)
    np.testing.assert_allclose(read_radiograph(path, voi="none").array[0], modality / 4095, atol=1e-6)


def test_modality_lut_then_voi_lut(tmp_path):
    # Stored v -> Modality LUT (10-bit entries, first value 2): 3 v up to 12 entries -> VOI LUT of 8-bit entries
    pixels = np.array([0, 2, 3, 5, 13, 15] * 43, np.uint8)[:256].reshape(16, 16)
    modality = [3 * entry for entry in range(12)]  # 2 -> 0, 3 -> 3, 5 -> 9, 13 -> 33
    voi = [0] * 300
    voi[3], voi[9], voi[33], voi[299] = 51, 102, 204, 255
    path = write_dicom(
        tmp_path / "a.dcm",
        pixels,
        ModalityLUTSequence=lut_sequence(modality, 2, 10),
        VOILUTSequence=lut_sequence(voi, 0, 8),
        WindowCenter=1,
        WindowWidth=2,
    )
    radiograph = read_radiograph(path)
    # below the first entry: the first (0); above the last: the last (33 -> 204)
    np.testing.assert_allclose(radiograph.array[0].flat[:6], [0, 0, 0.2, 0.4, 0.8, 0.8], atol=1e-6)
    assert radiograph.meta["steps"][:2] == ["Modality LUT", "VOI LUT 1 of 1"]
    full = read_radiograph(path, voi="none")  # the LUT's own range, 0..33
    np.testing.assert_allclose(full.array[0].flat[:6], np.array([0, 0, 3, 9, 33, 33]) / 33, atol=1e-6)


def test_a_voi_lut_of_8_bit_entries_takes_inputs_above_255(tmp_path):
    table = [min(entry // 16, 255) for entry in range(4096)]
    path = write_dicom(tmp_path / "a.dcm", RAMP12, bits=12, VOILUTSequence=lut_sequence(table, 0, 8))
    np.testing.assert_allclose(read_radiograph(path).array[0], (RAMP12 // 16) / 255, atol=1e-6)


def test_windows_agree_with_pydicom(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", RAMP12, bits=12, WindowCenter=1234.5, WindowWidth=1777)
    dataset = pydicom.dcmread(path)
    expected = apply_voi_lut(dataset.pixel_array, dataset) / 4095
    np.testing.assert_allclose(read_radiograph(path).array[0], expected, atol=1e-6)


def test_signed_pixels_and_unused_high_bits(tmp_path):
    signed = np.array([-2048, -1, 0, 2047] * 64, np.int16).reshape(16, 16)
    expected = (signed.astype(float) + 2048) / 4095
    np.testing.assert_allclose(
        read_radiograph(write_dicom(tmp_path / "s.dcm", signed, bits=12)).array[0], expected, atol=1e-6
    )
    # The same codes without sign extension, then with overlay bits above the twelve
    for high in (0x0000, 0x7000):
        codes = ((signed.view(np.uint16) & 0x0FFF) | high).view(np.int16)
        path = write_dicom(tmp_path / "o.dcm", codes, bits=12)
        np.testing.assert_allclose(read_radiograph(path).array[0], expected, atol=1e-6)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_files_without_preamble_or_meta(tmp_path, syntax):
    whole = write_dicom(tmp_path / "whole.dcm", RAMP12, bits=12, syntax=syntax)
    content = whole.read_bytes()
    first = content.index(b"\x00\x08\x00\x16" if syntax == ExplicitVRBigEndian else b"\x08\x00\x16\x00", 132)
    parts = {
        "no_preamble": content[132:],
        "no_meta": content[first:],  # from the data set's first element, (0008,0016)
        "no_syntax": content[:132] + content[first:],
    }
    expected = read_radiograph(whole).array
    np.testing.assert_allclose(expected[0], RAMP12 / 4095, atol=1e-7)
    for name, part in parts.items():
        (tmp_path / name).write_bytes(part)
        np.testing.assert_array_equal(read_radiograph(tmp_path / name).array, expected)


def test_a_spacing_that_is_no_number_is_unknown(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", RAMP12, PixelSpacing=[0.25, 0.25])
    path.write_bytes(path.read_bytes().replace(b"0.25\\0.25", b"0.2x\\0.25"))
    assert read_radiograph(path).meta["spacing_mm"] is None


@pytest.mark.parametrize(
    ("attributes", "spacing"),
    [
        ({"PixelSpacing": [0.3, 0.2], "ImagerPixelSpacing": [1, 1]}, (0.3, 0.2)),
        ({"PixelSpacing": [0, 0], "ImagerPixelSpacing": [0.2, 0.1]}, (0.2, 0.1)),
        ({"PixelSpacing": [0.3, 0], "ImagerPixelSpacing": [0.2, 0.1]}, (0.2, 0.1)),
        ({"ImagerPixelSpacing": [0.2, 0.1], "EstimatedRadiographicMagnificationFactor": 0}, (0.2, 0.1)),
        ({"PixelSpacing": ["", ""]}, None),
        ({"ImagerPixelSpacing": [0.3, 0.15], "EstimatedRadiographicMagnificationFactor": 1.5}, (0.2, 0.1)),
        ({"PixelSpacing": [0, 0]}, None),
        ({}, None),
    ],
)
def test_spacing(tmp_path, attributes, spacing):
    found = read_radiograph(write_dicom(tmp_path / "a.dcm", RAMP12, **attributes)).meta["spacing_mm"]
    assert found == (pytest.approx(spacing) if spacing else None)


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"PixelData": None}, "without pixel data"),
        ({"NumberOfFrames": 2}, "multi-frame DICOM (2 frames)"),
        ({"photometric": "PALETTE COLOR"}, "colour DICOM"),
        ({"SamplesPerPixel": 3, "photometric": "RGB"}, "colour DICOM"),
        ({"Rows": 30}, "pixel data cannot be decoded"),
        ({"BitsStored": 12, "HighBit": 10}, "12 bits stored of 16, high bit 10"),
        ({"BitsStored": 12, "HighBit": 16}, "12 bits stored of 16, high bit 16"),
        ({"RescaleSlope": 0, "RescaleIntercept": 5}, "RescaleSlope is 0"),
        ({"BitsStored": None, "HighBit": None}, "BitsStored is missing, and so is HighBit"),
    ],
)
def test_errors(tmp_path, attributes, reason):
    path = write_dicom(tmp_path / "a.dcm", RAMP12, **attributes)
    with pytest.raises(RadiographError) as caught:
        read_radiograph(path)
    assert reason in caught.value.reason and caught.value.path == str(path)
    assert "Secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("sop_class", "reason"),
    [
        ("1.2.840.10008.5.1.4.1.1.104.1", "DICOM (Encapsulated PDF Storage) without pixel data"),
        ("1.2.840.10008.5.1.4.1.1.88.11", "DICOM (Basic Text SR Storage) without pixel data"),
        ("1.2.840.10008.1.3.10", "a DICOMDIR, the index of a medium"),
        ("1.2.3.4.5", "DICOM without pixel data"),
    ],
)
def test_what_holds_no_image_is_named(tmp_path, sop_class, reason):
    path = write_dicom(tmp_path / "a.dcm", RAMP12, PixelData=None, sop_class=sop_class)
    with pytest.raises(RadiographError) as caught:
        read_radiograph(path)
    assert caught.value.reason.startswith(reason)


def test_size_limit_is_checked_before_decoding(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", RAMP12, Rows=50000, Columns=50000)
    with pytest.raises(RadiographError, match="50000x50000 is more than the limit of 80000000 pixels"):
        read_radiograph(path)


def test_nothing_of_the_file_is_warned_or_logged(tmp_path, caplog):
    path = write_dicom(tmp_path / "a.dcm", RAMP12)
    content = path.read_bytes()
    path.write_bytes(content + b"\0\0")  # more pixel data than declared: pydicom warns
    caplog.set_level(logging.DEBUG)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_radiograph(path)
    assert caplog.records == []
