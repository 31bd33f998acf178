"""What a caller may choose of a DICOM's grey scale, padding, polarity and odd bit layouts; values by hand."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.sequence import Sequence

from cxw_monai.io import RadiographError, read_radiograph
from tests.helpers import dicom_files as _files

write_dicom, lut_sequence = _files.write_dicom, _files.lut_sequence

RAMP8 = np.arange(256, dtype=np.uint8).reshape(16, 16)
XA, RF = "1.2.840.10008.5.1.4.1.1.12.1", "1.2.840.10008.5.1.4.1.1.12.2"


@pytest.fixture
def choices(tmp_path):
    """A file of two VOI LUTs (255 - v, and v halved) and three windows of width 101 around 60, 110 and 160."""
    falling = lut_sequence([255 - v for v in range(256)], 0, 8, explanation="NORMAL")
    halved = lut_sequence([v // 2 for v in range(256)], 0, 8, explanation="FLAT")
    return write_dicom(
        tmp_path / "choices.dcm",
        RAMP8,
        VOILUTSequence=Sequence([*falling, *halved]),
        WindowCenter=[60, 110, 160],
        WindowWidth=[101, 101, 101],
        WindowCenterWidthExplanation=["NORMAL", "HARDER", "SOFTER"],
    )


def _window(center):  # width 101, LINEAR: (v - (c - 0.5)) / 100 + 0.5
    return np.clip((RAMP8 - (center - 0.5)) / 100 + 0.5, 0, 1)


@pytest.mark.parametrize(
    ("asked", "expected", "step"),
    [
        ({}, (255 - RAMP8) / 255, "VOI LUT 1 of 2"),
        ({"voi_item": 1}, RAMP8 // 2 / 255, "VOI LUT 2 of 2"),
        ({"voi_item": "flat "}, RAMP8 // 2 / 255, "VOI LUT 2 of 2"),
        ({"voi_item": "Harder"}, _window(110), "window 2 of 3: center 110, width 101, LINEAR"),
        ({"voi": "window"}, _window(60), "window 1 of 3: center 60, width 101, LINEAR"),
        ({"voi": "window", "voi_item": 2}, _window(160), "window 3 of 3: center 160, width 101, LINEAR"),
        ({"voi": "window", "voi_item": "normal"}, _window(60), "window 1 of 3: center 60, width 101, LINEAR"),
        ({"voi": "lut", "voi_item": "NORMAL"}, (255 - RAMP8) / 255, "VOI LUT 1 of 2"),
        ({"voi": "none"}, RAMP8 / 255, "declared range 0 to 255"),
        ({"window": (160, 101)}, _window(160), "window as asked: center 160, width 101, LINEAR"),
        ({"window": [160, 101], "voi": "none"}, _window(160), "window as asked: center 160, width 101, LINEAR"),
        # of 0..255, each once: the 20th percentile is 51, the 80th 204
        (
            {"percentiles": (20, 80)},
            np.clip((RAMP8 - 51.0) / 153, 0, 1),
            "percentiles 20 and 80 of the image: 51 to 204",
        ),
    ],
)
def test_choice_of_grey_scale(choices, asked, expected, step):
    radiograph = read_radiograph(choices, **asked)
    np.testing.assert_allclose(radiograph.array[0], expected, atol=1e-6)
    assert radiograph.meta["steps"] == [step, "spacing: unknown"]


@pytest.mark.parametrize(
    "asked",
    [{"voi_item": 2}, {"voi": "window", "voi_item": 3}, {"voi_item": "BONE"}, {"voi": "lut", "voi_item": "HARDER"}],
)
def test_what_the_file_lacks_is_an_error_and_never_another_choice(choices, asked):
    with pytest.raises(RadiographError, match="asked of a file with 2 VOI LUTs and 3 windows"):
        read_radiograph(choices, **asked)


def test_a_window_asked_of_a_file_without_one_is_an_error(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", RAMP8)
    read_radiograph(path)  # nothing to choose: the declared range
    for asked in ({"voi": "window"}, {"voi": "lut"}, {"voi_item": 1}):
        with pytest.raises(RadiographError, match="asked of a file with 0 VOI LUTs and 0 windows"):
            read_radiograph(path, **asked)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"voi": "first"}, "voi must be one of"),
        ({"voi_item": -1}, "voi_item must be 0 or more"),
        ({"voi_item": 1.5}, "voi_item must be a place"),
        ({"window": (100, 0)}, "width above 0"),
        ({"window": (100,)}, "two finite numbers"),
        ({"window": (float("nan"), 3)}, "two finite numbers"),
        ({"percentiles": (99, 1)}, "percentiles must rise"),
        ({"percentiles": (0, 101)}, "percentiles must rise"),
        ({"percentiles": (1, 99), "window": (1, 2)}, "not both"),
    ],
)
def test_wrong_arguments(choices, wrong, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_radiograph(choices, **wrong)
    assert not isinstance(caught.value, RadiographError)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("signed", [False, True])
def test_padding_is_black_after_inversion_too(tmp_path, photometric, signed):
    pixels = RAMP8.astype(np.int16) - 100 if signed else 8 * RAMP8.astype(np.uint16)
    low, high = int(pixels[0, 0]), int(pixels[0, 9])  # the first ten values
    path = write_dicom(
        tmp_path / "a.dcm",
        pixels,
        bits=12,
        photometric=photometric,
        PixelPaddingValue=low,
        PixelPaddingRangeLimit=high,
    )
    full = (pixels.astype(float) + (2048 if signed else 0)) / 4095
    expected = 1 - full if photometric == "MONOCHROME1" else full
    expected[0, :10] = 0
    for limit_first in (False, True):  # the two ends may stand either way round
        if limit_first:
            path = write_dicom(
                tmp_path / "b.dcm",
                pixels,
                bits=12,
                photometric=photometric,
                PixelPaddingValue=high,
                PixelPaddingRangeLimit=low,
            )
        radiograph = read_radiograph(path)
        np.testing.assert_allclose(radiograph.array[0], expected, atol=1e-6)
        assert f"padding {low} to {high} set to black" in radiograph.meta["steps"]


def test_padding_does_not_move_percentiles(tmp_path):
    pixels = RAMP8.copy()
    pixels[8:] = 255  # half of the pixels
    path = write_dicom(tmp_path / "a.dcm", pixels, photometric="MONOCHROME1", PixelPaddingValue=255)
    radiograph = read_radiograph(path, percentiles=(0, 100))
    np.testing.assert_allclose(radiograph.array[0, :8], 1 - RAMP8[:8] / 127, atol=1e-6)
    assert (radiograph.array[0, 8:] == 0).all()
    assert radiograph.meta["steps"][0] == "percentiles 0 and 100 of the image: 0 to 127"


def test_padding_outside_the_stored_bits(tmp_path):
    # -2000 in 16 allocated bits of which 10 (-512..511) are stored; its low ten bits are the legal code 48
    pixels = np.arange(-128, 128, dtype=np.int16).reshape(16, 16)
    legal = int(np.int16(-2000) & 0x3FF)
    assert legal == 48 and (pixels == legal).any()
    pixels[3, 3:9] = -2000
    path = write_dicom(tmp_path / "a.dcm", pixels, bits=10, photometric="MONOCHROME1", PixelPaddingValue=-2000)
    expected = 1 - (pixels.astype(float) + 512) / 1023
    expected[3, 3:9] = 0
    np.testing.assert_allclose(read_radiograph(path).array[0], expected, atol=1e-6)


def test_padding_written_with_the_wrong_sign(tmp_path):
    pixels = RAMP8.astype(np.uint16) * 257
    path = write_dicom(tmp_path / "a.dcm", pixels)
    content = path.read_bytes()
    at = content.index(b"\x28\x00\x03\x01US")  # after (0028,0103): a padding value -1 as SS in unsigned pixels
    content = content[: at + 10] + b"\x28\x00\x20\x01SS\x02\x00\xff\xff" + content[at + 10 :]
    path.write_bytes(content)
    radiograph = read_radiograph(path)
    expected = pixels / 65535
    expected[15, 15] = 0
    np.testing.assert_allclose(radiograph.array[0], expected, atol=1e-6)
    assert "padding 65535 set to black" in radiograph.meta["steps"]


@pytest.mark.parametrize("signed", [False, True])
def test_padding_that_no_pixel_can_hold(tmp_path, signed):
    pixels = RAMP8.astype(np.int8) if signed else RAMP8
    path = write_dicom(tmp_path / "a.dcm", pixels, PixelPaddingValue=-2000 if signed else 65535)
    expected = (pixels.astype(float) + 128 * signed) / 255
    np.testing.assert_allclose(read_radiograph(path).array[0], expected, atol=1e-6)


@pytest.mark.parametrize("noise", [0, 0xF])
def test_codes_in_the_upper_bits(tmp_path, noise):
    # 12 bits in bits 4 to 15, as old files have them, with or without an overlay in the low four
    codes = RAMP8.astype(np.uint16) * 16
    path = write_dicom(tmp_path / "a.dcm", (codes << 4) | noise, bits=12, HighBit=15)
    np.testing.assert_allclose(read_radiograph(path).array[0], codes / 4095, atol=1e-7)


def test_32_bits(tmp_path):
    pixels = RAMP8.astype(np.uint32) * 0x01010101
    path = write_dicom(tmp_path / "a.dcm", pixels, photometric="MONOCHROME1", PixelPaddingValue=0)
    expected = 1 - RAMP8 / 255
    expected[0, 0] = 0
    np.testing.assert_allclose(read_radiograph(path).array[0], expected, atol=1e-6)


def test_images_for_processing_are_told(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", RAMP8, PresentationIntentType="FOR PROCESSING")
    radiograph = read_radiograph(path)
    np.testing.assert_allclose(radiograph.array[0], RAMP8 / 255, atol=1e-7)  # as declared, nothing added
    assert radiograph.meta["intent"] == "FOR PROCESSING"
    assert radiograph.meta["steps"][0] == "for processing: detector values, not a picture for presentation"


@pytest.mark.parametrize(
    ("sop_class", "sign", "photometric", "dark"),
    [
        (RF, None, "MONOCHROME2", True),
        (XA, None, "MONOCHROME1", False),
        (_files.DX, 1, "MONOCHROME2", True),
        (_files.DX, 1, "MONOCHROME1", False),
        (_files.DX, -1, "MONOCHROME2", False),
        (_files.DX, None, "MONOCHROME2", False),  # not told
    ],
)
def test_dark_bone_is_told_and_left_as_declared(tmp_path, sop_class, sign, photometric, dark):
    relation = {"PixelIntensityRelationship": "LIN"} | ({"PixelIntensityRelationshipSign": sign} if sign else {})
    path = write_dicom(tmp_path / "a.dcm", RAMP8, sop_class=sop_class, photometric=photometric, **relation)
    radiograph = read_radiograph(path)
    assert ("bone is dark: values rise with the X-ray intensity" in radiograph.meta["steps"]) == dark
    expected = 1 - RAMP8 / 255 if photometric == "MONOCHROME1" else RAMP8 / 255
    np.testing.assert_allclose(radiograph.array[0], expected, atol=1e-7)


def test_angiography_rescale(tmp_path):
    # XA of 10 bits: modality value 2 v - 100, window 0.5 .. 1000.5 by c = 501, w = 1001
    pixels = (RAMP8.astype(np.uint16)) * 4
    path = write_dicom(
        tmp_path / "a.dcm",
        pixels,
        bits=10,
        sop_class=XA,
        NumberOfFrames=1,
        RescaleSlope=2,
        RescaleIntercept=-100,
        WindowCenter=501,
        WindowWidth=1001,
    )
    radiograph = read_radiograph(path)
    np.testing.assert_allclose(radiograph.array[0], np.clip((2.0 * pixels - 100 - 0.5) / 1000, 0, 1), atol=1e-6)
    assert radiograph.meta["steps"][0] == "rescale: slope 2, intercept -100"


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("offset", "dtype", "attributes"),
    [
        (0, np.uint16, {}),
        (0, np.int16, {}),
        (-2048, np.int16, {}),
        (0, np.uint16, {"RescaleSlope": -2, "RescaleIntercept": 100}),
        (0, np.uint32, {}),
        (0, np.uint16, {"WindowCenter": 40_000, "WindowWidth": 1000}),  # every pixel black: left out
    ],
)
def test_a_film_that_leaves_the_upper_bits_unused_is_not_black(tmp_path, photometric, offset, dtype, attributes):
    codes = (RAMP8.astype(np.int64) * 16 + 8 + offset).astype(dtype)  # 8 to 4088 of 4096
    path = write_dicom(tmp_path / "a.dcm", codes, photometric=photometric, **attributes)
    expected = (RAMP8.astype(float) * 16 + 8) / 4095
    if (attributes.get("RescaleSlope", 1) < 0) != (photometric == "MONOCHROME1"):
        expected = 1 - expected
    film = read_radiograph(path)
    np.testing.assert_allclose(film.array[0], expected, atol=1e-6)
    assert any(step.startswith("upper bits of ") for step in film.meta["steps"])
    declared = read_radiograph(path, voi="none")  # as declared, for whoever asks
    assert np.ptp(declared.array) < 1 / 15


def test_padding_does_not_hide_that_upper_bits_are_unused(tmp_path):
    codes = RAMP8.astype(np.uint16) * 16
    codes[0, :4] = 65535
    path = write_dicom(tmp_path / "a.dcm", codes, PixelPaddingValue=65535)
    expected = RAMP8.astype(float) * 16 / 4095
    expected[0, :4] = 0
    np.testing.assert_allclose(read_radiograph(path).array[0], expected, atol=1e-6)


def test_a_film_that_needs_all_but_three_bits_keeps_its_declared_range(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", RAMP8.astype(np.uint16) * 32)
    np.testing.assert_allclose(read_radiograph(path).array[0], RAMP8.astype(float) * 32 / 65535, atol=1e-6)


def test_a_window_of_another_depth_is_left_out_where_it_saturates_the_film(tmp_path):
    codes = 200 + RAMP8.astype(np.uint16) * 12  # 200 to 3260: of a window of 0 to 255, five pixels are grey
    path = write_dicom(tmp_path / "a.dcm", codes, bits=12, WindowCenter=128, WindowWidth=256)
    film = read_radiograph(path)
    np.testing.assert_allclose(film.array[0], codes / 4095, atol=1e-6)
    assert "it shows nearly all of the film black or white" in film.meta["steps"][0]
    codes[4:] = 100  # most of the film lies within it
    path = write_dicom(tmp_path / "b.dcm", codes, bits=12, WindowCenter=128, WindowWidth=256)
    np.testing.assert_allclose(read_radiograph(path).array[0], np.clip(codes / 255, 0, 1), atol=1e-6)


def test_percentiles_of_a_film_whose_padding_lies_beyond_its_bits(tmp_path):
    codes = RAMP8.astype(np.uint16) * 16
    codes[0, 1:4] = 65535
    path = write_dicom(tmp_path / "a.dcm", codes, bits=12, PixelPaddingValue=65535)
    expected = RAMP8.astype(float) * 16 / 4080
    expected[0, 1:4] = 0
    np.testing.assert_allclose(read_radiograph(path, percentiles=(0, 100)).array[0], expected, atol=1e-6)
