"""VOI and Modality LUTs, rescales and windows as writers really leave them; values by hand."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from cxw_monai.io import RadiographError, read_radiograph
from tests.helpers import dicom_files as _files

write_dicom, lut_sequence = _files.write_dicom, _files.lut_sequence

RAMP12 = (np.arange(400, dtype=np.uint16) * 10).reshape(20, 20)  # 0..3990 of 0..4095
RAMP8 = np.arange(256, dtype=np.uint8).reshape(16, 16)
FULL = RAMP12 / 4095
XA, RF = "1.2.840.10008.5.1.4.1.1.12.1", "1.2.840.10008.5.1.4.1.1.12.2"


def _sequence(descriptor, data, descriptor_vr="US", data_vr="OW"):
    item = Dataset()
    item.add_new(0x00283002, descriptor_vr, descriptor)
    item.add_new(0x00283006, data_vr, data)
    return Sequence([item])


def _read(tmp_path, pixels=RAMP12, bits=12, asked=None, **attributes):
    return read_radiograph(write_dicom(tmp_path / "a.dcm", pixels, bits=bits, **attributes), **(asked or {}))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(("top", "declared", "bits"), [(4095, 16, 12), (1023, 16, 10), (16383, 16, 14), (255, 12, 8)])
def test_a_voi_lut_is_scaled_by_the_bits_that_it_needs(tmp_path, top, declared, bits, photometric):
    table = [round(entry * top / 4095) for entry in range(4096)]
    film = _read(tmp_path, photometric=photometric, VOILUTSequence=lut_sequence(table, 0, declared))
    expected = np.asarray(table)[RAMP12] / top
    np.testing.assert_allclose(film.array[0], 1 - expected if photometric == "MONOCHROME1" else expected, atol=1e-6)
    assert film.meta["steps"][0] == f"VOI LUT 1 of 1, {bits} bits by its largest entry, {declared} declared"


@pytest.mark.parametrize(
    ("top", "declared", "white"),
    [(2000, 12, 4095), (2048, 12, 4095), (500, 10, 1023), (30000, 16, 65535), (32767, 16, 65535)],
)
def test_a_dim_voi_lut_stays_dim(tmp_path, top, declared, white):
    table = [round(entry * top / 4095) for entry in range(4096)]
    film = _read(tmp_path, VOILUTSequence=lut_sequence(table, 0, declared))
    np.testing.assert_allclose(film.array[0], np.asarray(table)[RAMP12] / white, atol=1e-6)
    assert film.meta["steps"][0] == "VOI LUT 1 of 1"


@pytest.mark.parametrize(("top", "declared"), [(256, 16), (1024, 16), (4096, 16), (4096, 12), (256, 8)])
def test_a_voi_lut_whose_white_is_off_by_one(tmp_path, top, declared):
    table = [entry * top // 4096 for entry in range(1, 4097)]
    pixels = np.tile(np.array([0, 1023, 2047, 4095], np.uint16), (16, 4))
    film = _read(tmp_path, pixels=pixels, VOILUTSequence=lut_sequence(table, 0, declared))
    expected = np.array([top // 4096, top // 4, top // 2, top - 1]) / (top - 1)
    np.testing.assert_allclose(film.array[0, 0, :4], expected, atol=1e-6)


@pytest.mark.parametrize("declared", [8, 10])
def test_a_modality_lut_of_more_bits_than_declared_is_read_by_its_entries(tmp_path, declared):
    film = _read(tmp_path, ModalityLUTSequence=lut_sequence(list(range(4096))[::-1], 0, declared))
    np.testing.assert_allclose(film.array[0], 1 - FULL, atol=1e-6)
    assert film.meta["steps"][:2] == [
        f"Modality LUT of 12 bits by its largest entry, {declared} declared",
        "Modality LUT",
    ]


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("vr", ["US", "SS"])
def test_first_mapped_value_of_either_sign(tmp_path, signed, vr):
    pixels = RAMP12.astype(np.int16) - 2048 if signed else RAMP12
    first = -500 if signed else 1000  # below it the first entry, above the last
    table = np.arange(500, 2548)  # 12 bits, declared 16
    written = first % 65536 if vr == "US" else first
    luts = _sequence([len(table), written, 16], table.astype("<u2").tobytes(), vr)
    film = _read(tmp_path, pixels=pixels, VOILUTSequence=luts)
    expected = table[np.clip(pixels.astype(int) - first, 0, len(table) - 1)] / 4095
    np.testing.assert_allclose(film.array[0], expected, atol=1e-6)


def test_a_lut_of_65536_entries_declares_0(tmp_path):
    table = np.arange(65536)[::-1]
    film = _read(tmp_path, pixels=RAMP12, bits=16, VOILUTSequence=_sequence([0, 0, 16], table.astype("<u2").tobytes()))
    np.testing.assert_allclose(film.array[0], (65535 - RAMP12) / 65535, atol=1e-6)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("form", ["words", "packed", "doubled"])
def test_entries_of_8_bits(tmp_path, syntax, form):
    table = np.arange(256)[::-1]
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    data = {
        "words": table.astype(f"{order}u2").tobytes(),
        "packed": (table[::2] + (table[1::2] << 8)).astype(f"{order}u2").tobytes(),  # the first in the low byte
        "doubled": (table * 257).astype(f"{order}u2").tobytes(),
    }[form]
    film = _read(
        tmp_path, pixels=RAMP8.astype(np.uint16), bits=8, syntax=syntax, VOILUTSequence=_sequence([256, 0, 8], data)
    )
    np.testing.assert_allclose(film.array[0], (255 - RAMP8) / 255, atol=1e-6)


@pytest.mark.parametrize("name", ["ModalityLUTSequence", "VOILUTSequence"])
@pytest.mark.parametrize(("descriptor_vr", "data_vr"), [("SS", "SS"), ("US", "SS"), ("US", "US"), ("US", "OB")])
def test_output_is_unsigned_whatever_it_was_written_with(tmp_path, name, descriptor_vr, data_vr):
    table = np.minimum(np.arange(4096) * 16, 65535).astype(np.uint16)
    data = table.tobytes() if data_vr == "OB" else table.view(np.int16 if data_vr == "SS" else np.uint16).tolist()
    film = _read(tmp_path, **{name: _sequence([4096, 0, 16], data, descriptor_vr, data_vr)})
    np.testing.assert_allclose(film.array[0], table[RAMP12] / 65535, atol=3e-4)


@pytest.mark.parametrize("name", ["ModalityLUTSequence", "VOILUTSequence"])
@pytest.mark.parametrize("missing", ["both", "LUTData", "LUTDescriptor", "empty data", "short descriptor", "items"])
def test_an_item_without_its_parts_counts_as_absent(tmp_path, name, missing):
    sequence = lut_sequence(list(range(4096))[::-1], 0, 12)
    if missing == "both":
        sequence = Sequence([Dataset()])
    elif missing == "items":
        sequence = Sequence([])
    elif missing == "empty data":
        sequence[0].LUTData = None
    elif missing == "short descriptor":
        sequence = _sequence([4096, 0], np.arange(4096).astype("<u2").tobytes())
    else:
        delattr(sequence[0], missing)
    film = _read(tmp_path, **{name: sequence})
    np.testing.assert_allclose(film.array[0], FULL, atol=1e-6)
    assert any("left out: no descriptor or no data" in step for step in film.meta["steps"]) == (missing != "items")


def test_a_rescale_takes_the_place_of_an_empty_modality_lut(tmp_path):
    film = _read(
        tmp_path, ModalityLUTSequence=Sequence([Dataset()]), RescaleSlope=-1, RescaleIntercept=4095, WindowCenter=2048,
        WindowWidth=4096,
    )  # fmt: skip
    np.testing.assert_allclose(film.array[0], 1 - FULL, atol=1e-3)


@pytest.mark.parametrize(
    "descriptor", [[3, 0, 8], [5000, 0, 12]], ids=["entries beyond their depth", "fewer entries than declared"]
)
def test_a_voi_lut_that_contradicts_itself_is_left_out_unless_it_is_asked_for(tmp_path, descriptor):
    luts = _sequence(descriptor, np.array([1, 2, 300]).astype("<u2").tobytes())
    film = _read(tmp_path, VOILUTSequence=luts)
    np.testing.assert_allclose(film.array[0], FULL, atol=1e-6)
    assert film.meta["steps"][0].startswith("VOI LUT 1 of 1 left out: ")
    windowed = _read(tmp_path, VOILUTSequence=luts, WindowCenter=1000, WindowWidth=1001)
    np.testing.assert_allclose(windowed.array[0], np.clip((RAMP12 - 499.5) / 1000, 0, 1), atol=1e-6)
    with pytest.raises(RadiographError, match="1 VOI LUTs .* left out: .*; take another voi or voi_item") as caught:
        _read(tmp_path, VOILUTSequence=luts, asked={"voi": "lut"})
    assert "voi='auto'" in caught.value.remedy and read_radiograph(caught.value.path, voi="none").array.any()


@pytest.mark.parametrize(
    ("center", "width", "function"),
    [
        (b"2048", b"0", b""),
        (b"2048", b"-100", b""),
        (b"2048", b"0.5", b""),
        (b"2048", b"1", b"LINEAR"),
        (b"2048", b"0", b"SIGMOID"),
        (b"2048", b"-1", b"LINEAR_EXACT"),
        (b"nan", b"400", b""),
        (b"2048", b"nan", b""),
        (b"inf", b"400", b""),
        (b"", b"400", b""),
        (b"2048", b"", b""),
        (b"x", b"400", b""),
        (b"2,048", b"4,096", b""),  # two thousand, or two and a bit
        (b"2048", b"400", b"CUBIC"),
        (b"60000", b"400", b""),  # every pixel black
        (b"-60000", b"400", b""),  # every pixel white
        (b"2048", b"1e9", b""),  # flat
        (b"0", b"1e308", b""),
    ],
)
def test_a_window_that_cannot_be_used_is_left_out(tmp_path, center, width, function):
    raw = {"WindowCenter": center, "WindowWidth": width, "VOILUTFunction": function}
    film = _read(tmp_path, raw=raw)
    np.testing.assert_allclose(film.array[0], FULL, atol=1e-6)
    assert "left out: " in film.meta["steps"][0] and film.meta["steps"][1] == "declared range 0 to 4095"
    with pytest.raises(RadiographError, match="1 windows; window 1 of 1.* left out"):
        _read(tmp_path, raw=raw, asked={"voi": "window"})


@pytest.mark.parametrize(
    ("centers", "widths", "asked", "used"),
    [
        (b"1\\2048", b"0\\2001", {}, 2),
        (b"2048\\7", b"2001", {}, 1),
        (b"9\\2048", b"\\2001", {"voi": "window"}, 2),
        (b"2048\\2048", b"0\\2001", {"voi": "window", "voi_item": 1}, 2),
        (b"2048,0\\9", b"2001,0\\0", {}, 1),
    ],
)
def test_the_first_usable_window_is_taken(tmp_path, centers, widths, asked, used):
    film = _read(tmp_path, raw={"WindowCenter": centers, "WindowWidth": widths}, asked=asked)
    np.testing.assert_allclose(film.array[0], np.clip((RAMP12 - 2047.5) / 2000 + 0.5, 0, 1), atol=1e-6)
    assert any(step.startswith(f"window {used} of 2: center 2048, width 2001") for step in film.meta["steps"])


@pytest.mark.parametrize("function", [b"linear exact", b"LINEAR_EXACT", b"LINEAR_EXACT "])
def test_functions_by_another_spelling(tmp_path, function):
    raw = {"WindowCenter": b"2048", "WindowWidth": b"2000", "VOILUTFunction": function}
    film = _read(tmp_path, raw=raw)
    np.testing.assert_allclose(film.array[0], np.clip((RAMP12.astype(float) - 2048) / 2000 + 0.5, 0, 1), atol=1e-6)


@pytest.mark.parametrize("sop_class", [XA, RF])
@pytest.mark.parametrize("relation", ["LIN", "LOG", "DISP", ""])
@pytest.mark.parametrize("kind", ["LUT", "rescale", "both"])
def test_xa_and_rf_are_shown_without_their_modality_lut(tmp_path, sop_class, relation, kind):
    back = {"ModalityLUTSequence": lut_sequence([4095 - entry // 2 for entry in range(4096)], 0, 12)}
    rescale = {"RescaleSlope": -2, "RescaleIntercept": 99}
    if kind == "rescale":  # without a relationship it is applied
        back, relation = rescale, relation or "LIN"
    elif kind == "both":
        back |= rescale
    attributes = {"PixelIntensityRelationship": relation, "WindowCenter": 2048, "WindowWidth": 4096, **back}
    film = _read(tmp_path, sop_class=sop_class, **attributes)
    np.testing.assert_allclose(film.array[0], RAMP12 / 4095, atol=1e-6)
    assert any("left out: XA and RF are shown without it" in step for step in film.meta["steps"])
    other = _read(tmp_path, **attributes)  # a DX is shown with it
    assert not np.allclose(other.array, film.array, atol=0.1)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ({"RescaleSlope": b"x", "RescaleIntercept": b"0"}, "RescaleSlope is no finite number"),
        ({"RescaleSlope": b"nan", "RescaleIntercept": b"0"}, "RescaleSlope is no finite number"),
        ({"RescaleSlope": b"1", "RescaleIntercept": b"1.2.3"}, "RescaleIntercept is no finite number"),
    ],
)
def test_a_rescale_that_is_no_number_is_named(tmp_path, raw, reason):
    with pytest.raises(RadiographError, match=rf"{reason}; correct \w+ in the file, or remove it"):
        _read(tmp_path, raw=raw)


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("RescaleSlope", {"RescaleSlope": b"1,000", "RescaleIntercept": b"0,000"}),
        ("RescaleIntercept", {"RescaleSlope": b"1,0", "RescaleIntercept": b"-1,024"}),
    ],
)
def test_a_rescale_that_can_be_read_two_ways_is_named(tmp_path, name, raw):
    with pytest.raises(RadiographError, match=rf"{name} can be read two ways: .*; write {name} without a comma"):
        _read(tmp_path, raw=raw)


def test_a_rescale_with_decimal_commas_and_one_of_its_two_values(tmp_path):
    window = {"WindowCenter": 1024.25, "WindowWidth": 2048}
    film = _read(tmp_path, raw={"RescaleSlope": b"0,5"}, **window)  # 0..2047.5
    np.testing.assert_allclose(film.array[0], np.clip((RAMP12 / 2 - 1023.75) / 2047 + 0.5, 0, 1), atol=1e-6)
    assert film.meta["steps"][:2] == [
        "RescaleSlope: decimal comma read as a point",
        "RescaleSlope alone: the other one taken as 0",
    ]


def test_luts_of_implicit_files_are_read_by_their_bytes(tmp_path):
    path = write_dicom(
        tmp_path / "a.dcm", RAMP12, bits=12, syntax=ImplicitVRLittleEndian,
        VOILUTSequence=lut_sequence(list(range(4096))[::-1], 0, 16),
    )  # fmt: skip
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
    np.testing.assert_allclose(read_radiograph(path).array[0], 1 - FULL, atol=1e-6)
