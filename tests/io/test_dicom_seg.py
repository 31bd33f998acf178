"""DICOM SEG: read back bit for bit, references, codes, patient data, and what the standard's validator says."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import subprocess
import warnings
from datetime import datetime
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes

from cxw_monai.io import RadiographError
from cxw_monai.io.dicom.file import is_dicom_header
from cxw_monai.io.results.dicom_seg import SEG_TYPES, SegAlgorithm, write_dicom_seg
from cxw_monai.io.structures import (
    PRIVATE_SCHEME,
    definitions,
    describe_structure,
    drawing_order,
    is_one_part,
    parts_of,
    split_side,
    structure_colours,
)
from tests.helpers import dicom_files as _files

STRUCTURES = ("lung_left", "right_lung", "heart", "my_finding", "pneumothorax")
CREATED = datetime(2024, 5, 6, 7, 8, 9)
UIDS = {"StudyInstanceUID": "1.2.3.4", "SeriesInstanceUID": "1.2.3.4.5", "SOPInstanceUID": "1.2.3.4.5.6"}
CLASSES = {
    "DX": "1.2.840.10008.5.1.4.1.1.1.1",
    "CR": "1.2.840.10008.5.1.4.1.1.1",
    "SC": "1.2.840.10008.5.1.4.1.1.7",
}
OWN_ERRORS = {"CR-ModalitySequenceLUT": "999.999.01.23.45.6789"}  # file -> what is invalid in its own header
REAL = [
    "RG1_J2KI", "RG1_J2KR", "CR-MONO1-10-chest", "rsna_cr_chest_jpeg", "rsna_cr_chest_jpeg_FAKE_MONO1",
    "dx_canine_thorax", "CR-ModalitySequenceLUT", "GH133_mg_voilut", "KarstenHilbertRF", "smpte_mlut_18",
    "smpte_vlut_04",
]  # fmt: skip


def _masks(rows: int, columns: int) -> np.ndarray:
    """Overlapping noise for all structures but the last, which is empty."""
    noise = np.random.default_rng(5).random((len(STRUCTURES), 67, 61)) < 0.4
    noise[-1] = False
    return np.tile(noise, (1, rows // 67 + 1, columns // 61 + 1))[:, :rows, :columns]


def _film(path: Path, rows: int = 21, columns: int = 34, **attributes: object) -> Path:
    pixels = np.arange(rows * columns, dtype=np.uint16).reshape(rows, columns)
    found = {**UIDS, "Modality": "DX", "PixelSpacing": [0.3, 0.2], **attributes}
    return _files.write_dicom(path, pixels, **{name: value for name, value in found.items() if value is not None})


def _write(film: Path, path: Path, masks: np.ndarray | None = None, **how: object) -> hd.seg.Segmentation:
    write_dicom_seg(path, film, _masks(21, 34) if masks is None else masks, STRUCTURES, **{"created": CREATED, **how})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the films' own invalid values
        return hd.seg.segread(path)


def _read_masks(seg: hd.seg.Segmentation, film_uid: str) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pixels = seg.get_pixels_by_source_instance([film_uid], combine_segments=False, skip_overlap_checks=True)
    assert set(np.unique(pixels)) <= {0, 1}  # a fractional one's are rescaled
    return pixels[0].transpose(2, 0, 1).astype(bool)  # [1, H, W, S] -> [S, H, W]


def _shared(path: Path) -> pydicom.Dataset:
    return pydicom.dcmread(path).SharedFunctionalGroupsSequence[0]


def test_masks_come_back_bit_for_bit_and_in_order(tmp_path):
    seg = _write(_film(tmp_path / "a.dcm"), tmp_path / "s.dcm")
    np.testing.assert_array_equal(_read_masks(seg, UIDS["SOPInstanceUID"]), _masks(21, 34))
    frames = pydicom.dcmread(tmp_path / "s.dcm").pixel_array  # by another way: a frame per structure, empty ones too
    np.testing.assert_array_equal(frames.astype(bool), _masks(21, 34))
    labels = [seg.get_segment_description(number).segment_label for number in seg.segment_numbers]
    assert labels == list(STRUCTURES)
    assert seg.SegmentsOverlap == "YES"


@pytest.mark.parametrize("kind", ["DX", "CR", "SC"])
@pytest.mark.parametrize(
    ("shape", "structures", "seg_type", "stored"),
    [
        ((21, 34), 5, "auto", "FRACTIONAL"),  # 714 bits a frame: the second begins within a byte
        ((21, 32), 5, "auto", "BINARY"),  # 84 bytes
        ((2, 4), 5, "auto", "BINARY"),  # one byte
        ((21, 34), 1, "auto", "BINARY"),
        ((21, 34), 5, "binary", "BINARY"),
        ((21, 32), 5, "fractional", "FRACTIONAL"),
    ],
)
def test_binary_only_where_every_frame_begins_with_a_byte(tmp_path, kind, shape, structures, seg_type, stored):
    film = _film(tmp_path / "a.dcm", *shape, sop_class=CLASSES[kind], Modality=kind.replace("SC", "OT"))
    masks, names = _masks(*shape)[:structures], STRUCTURES[:structures]
    write_dicom_seg(tmp_path / "s.dcm", film, masks, names, created=CREATED, seg_type=seg_type)
    np.testing.assert_array_equal(_read_masks(hd.seg.segread(tmp_path / "s.dcm"), UIDS["SOPInstanceUID"]), masks)
    found = pydicom.dcmread(tmp_path / "s.dcm")
    np.testing.assert_array_equal(
        found.pixel_array.reshape(masks.shape), masks * (255 if stored == "FRACTIONAL" else 1)
    )
    assert (found.SegmentationType, found.BitsAllocated) == (stored, 1 if stored == "BINARY" else 8)
    if stored == "FRACTIONAL":
        assert (found.SegmentationFractionalType, found.MaximumFractionalValue) == ("OCCUPANCY", 255)
        assert found.file_meta.TransferSyntaxUID == pydicom.uid.RLELossless
    else:  # a frame's bits follow those of the one before, the first pixel lowest (PS3.5 8.2)
        assert found.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
        bits = np.unpackbits(np.frombuffer(found.PixelData, np.uint8), bitorder="little")[: masks.size]
        np.testing.assert_array_equal(bits.reshape(masks.shape), masks)
    _validate(tmp_path / "s.dcm", None)


def test_an_unknown_type_is_refused(tmp_path):
    with pytest.raises(ValueError, match="seg_type must be one of auto, binary, fractional, got 'labelmap'"):
        _write(_film(tmp_path / "a.dcm"), tmp_path / "s.dcm", seg_type="labelmap")


def test_other_types_are_other_instances(tmp_path):
    film = _film(tmp_path / "a.dcm")
    uids = {_write(film, tmp_path / "s.dcm", seg_type=one).SOPInstanceUID for one in SEG_TYPES}
    assert len(uids) == 2  # of auto and fractional the same


@pytest.mark.parametrize(
    ("attributes", "spacing"),
    [
        ({"PixelSpacing": [0.3, 0.2]}, [0.3, 0.2]),
        ({"PixelSpacing": None, "ImagerPixelSpacing": [0.15, 0.25]}, [0.15, 0.25]),
        ({"PixelSpacing": [0, 0]}, None),
        ({"PixelSpacing": None}, None),
    ],
)
@pytest.mark.parametrize("shape", [(21, 34), (24, 32)])
def test_viewers_find_pixel_measures_and_an_orientation(tmp_path, attributes, spacing, shape):
    film = _film(tmp_path / "a.dcm", *shape, FrameOfReferenceUID="1.2.9", **attributes)
    masks = _masks(*shape)
    write_dicom_seg(tmp_path / "s.dcm", film, masks, STRUCTURES, created=CREATED)
    shared = _shared(tmp_path / "s.dcm")
    (measures,), (orientation,) = shared.PixelMeasuresSequence, shared.PlaneOrientationSequence
    assert measures.get("PixelSpacing") == spacing and measures.SliceThickness == 1
    assert orientation.ImageOrientationPatient == [1, 0, 0, 0, 1, 0]
    found = pydicom.dcmread(tmp_path / "s.dcm")
    assert "FrameOfReferenceUID" not in found and len(found.PerFrameFunctionalGroupsSequence) == len(STRUCTURES)
    for frame in found.PerFrameFunctionalGroupsSequence:
        assert not {"PlanePositionSequence", "PixelMeasuresSequence", "PlaneOrientationSequence"} & set(frame.dir())
    assert found.pixel_array.astype(bool).tolist() == masks.tolist()
    _validate(tmp_path / "s.dcm", None)


@pytest.mark.parametrize(
    ("colour", "lab"),
    [  # CIELab of sRGB, adapted to D50, by the formulas of ISO 15076-1: L, a, b
        ((255, 255, 255), (100.0, 0.0, 0.0)),
        ((0, 0, 0), (0.0, 0.0, 0.0)),
        ((255, 0, 0), (54.29, 80.80, 69.89)),
        ((0, 255, 0), (87.82, -79.27, 80.99)),
        ((0, 0, 255), (29.57, 68.29, -112.03)),
        ((128, 128, 128), (53.59, 0.0, 0.0)),
    ],
)
def test_colours_are_cielab_as_dicom_stores_it(tmp_path, monkeypatch, colour, lab):
    monkeypatch.setattr("cxw_monai.io.results.dicom_seg.structure_colours", lambda names: [colour] * len(names))
    stored = _write(_film(tmp_path / "a.dcm"), tmp_path / "s.dcm").SegmentSequence[0].RecommendedDisplayCIELabValue
    # PS3.3 C.10.7.1.1: 0 to 65535 stand for L of 0 to 100, and for a and b of -128 to 127
    lightness, a, b = stored[0] / 65535 * 100, *(value / 65535 * 255 - 128 for value in stored[1:])
    assert lightness == pytest.approx(lab[0], abs=0.4) and (a, b) == pytest.approx(lab[1:], abs=1.2)


def test_refers_to_the_film_in_a_series_of_its_own(tmp_path):
    algorithm = SegAlgorithm("lungs", "3.1", "Hospital", "Lungs by lungs 3.1")
    seg = _write(_film(tmp_path / "a.dcm", SeriesNumber=7), tmp_path / "s.dcm", algorithm=algorithm)
    assert seg.StudyInstanceUID == UIDS["StudyInstanceUID"]
    assert seg.SeriesInstanceUID not in UIDS.values() and seg.SOPInstanceUID not in UIDS.values()
    series = seg.ReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == UIDS["SeriesInstanceUID"]
    assert series.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == UIDS["SOPInstanceUID"]
    assert (seg.Modality, seg.SeriesNumber, seg.SeriesDescription) == ("SEG", 1007, "Lungs by lungs 3.1")
    assert (seg.Manufacturer, seg.ManufacturerModelName, seg.SoftwareVersions) == ("Hospital", "lungs", "3.1")
    assert (seg.ContentDate, seg.ContentTime, seg.InstanceCreationDate) == ("20240506", "070809", "20240506")
    segment = seg.SegmentSequence[0]
    assert segment.SegmentAlgorithmType == "AUTOMATIC" and segment.SegmentAlgorithmName == "lungs"


def test_codes_and_sides_of_the_segments(tmp_path):
    seg = _write(_film(tmp_path / "a.dcm"), tmp_path / "s.dcm")
    types = [segment.SegmentedPropertyTypeCodeSequence[0] for segment in seg.SegmentSequence]
    assert [(one.CodeValue, one.CodingSchemeDesignator) for one in types] == [
        ("39607008", "SCT"), ("39607008", "SCT"), ("80891009", "SCT"), ("my_finding", PRIVATE_SCHEME),
        ("36118008", "SCT"),
    ]  # fmt: skip
    sides = [[item.CodeMeaning for item in one.get("SegmentedPropertyTypeModifierCodeSequence", [])] for one in types]
    assert sides == [["Left"], ["Right"], [], [], []]
    categories = [segment.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning for segment in seg.SegmentSequence]
    assert categories[0] == "Anatomical Structure" and categories[4] == "Morphologically Abnormal Structure"
    assert [item.CodingSchemeDesignator for item in seg.CodingSchemeIdentificationSequence] == [PRIVATE_SCHEME]


def test_every_code_of_the_table_is_in_the_standards_dictionary():
    module = importlib.import_module("cxw_monai.io.structures")
    triplets = {entry.type for entry in module._TABLE.values()} | set(module.SIDES.values())
    triplets |= {module.ANATOMY, module.ABNORMAL, module.OBJECT, module.UNKNOWN}
    for value, scheme, meaning in triplets:
        table = importlib.import_module("pydicom.sr._concepts_dict").concepts[scheme]
        meanings = {entry[value][0] for entry in table.values() if value in entry}
        assert meaning in meanings, (value, scheme, meaning)
    assert describe_structure("lung").type[0] == codes.SCT.Lung.value
    assert set(module._ALIASES.values()) <= set(module._TABLE)


EIGHT = (
    *("lung_field_left", "lung_field_right", "lung_left", "lung_right"),
    *("heart", "mediastinum", "clavicle_left", "clavicle_right"),
)


def test_segments_say_which_lung_they_are(tmp_path):
    masks = np.zeros((len(EIGHT), 24, 32), bool)
    masks[:, 3:9, 4:20] = True
    write_dicom_seg(tmp_path / "s.dcm", _film(tmp_path / "a.dcm", 24, 32), masks, EIGHT, created=CREATED)
    found = {one.SegmentLabel: one for one in hd.seg.segread(tmp_path / "s.dcm").SegmentSequence}
    assert list(found) == list(EIGHT)
    assert {name: one.SegmentDescription for name, one in found.items()} == definitions(EIGHT)
    assert "behind heart and mediastinum" in found["lung_left"].SegmentDescription
    assert found["lung_field_left"].SegmentDescription.startswith("The visible part of the lung")
    types = {name: one.SegmentedPropertyTypeCodeSequence[0] for name, one in found.items()}
    assert {name: one.CodeValue for name, one in types.items()} == {
        **dict.fromkeys(EIGHT[:4], codes.SCT.Lung.value),
        **{"heart": codes.SCT.Heart.value, "mediastinum": codes.SCT.Mediastinum.value},
        **dict.fromkeys(EIGHT[6:], codes.SCT.Clavicle.value),
    }
    modifiers = {
        name: [
            (item.CodingSchemeDesignator, item.CodeMeaning) for item in one.SegmentedPropertyTypeModifierCodeSequence
        ]
        for name, one in types.items()
        if "SegmentedPropertyTypeModifierCodeSequence" in one
    }
    assert modifiers == {
        "lung_field_left": [("SCT", "Left"), (PRIVATE_SCHEME, "Visible lung field")],
        "lung_field_right": [("SCT", "Right"), (PRIVATE_SCHEME, "Visible lung field")],
        **{name: [("SCT", name.partition("_")[2].title())] for name in (*EIGHT[2:4], *EIGHT[6:])},
    }
    schemes = pydicom.dcmread(tmp_path / "s.dcm").CodingSchemeIdentificationSequence
    assert [item.CodingSchemeDesignator for item in schemes] == [PRIVATE_SCHEME]
    _validate(tmp_path / "s.dcm", None)


def test_every_structure_of_the_table_has_a_definition_that_a_segment_can_hold():
    names = {*importlib.import_module("cxw_monai.io.structures")._TABLE, *EIGHT}
    sentences = definitions(sorted(names))
    assert set(sentences) == names and all(text.endswith(".") and len(text) <= 200 for text in sentences.values())
    assert definitions(["lungs", "my_finding"]) == {"lungs": sentences["lung"]}
    assert sentences["lung_left"] == f"{sentences['lung'][:-1]} (the patient's left)."
    assert len({sentences[name] for name in EIGHT}) == len(EIGHT)


def test_parts_lie_on_what_they_are_parts_of():
    names = ["heart", "clavicle_left", "lung_field_left", "lung_left", "mediastinum", "x"]
    assert [names[place] for place in drawing_order(names)] == [
        "lung_left", "mediastinum", "heart", "lung_field_left", "clavicle_left", "x",
    ]  # fmt: skip
    assert parts_of("lung_left", [*names, "lung_field_right"]) == ["lung_field_left"]
    assert parts_of("mediastinum", names) == ["heart"] and parts_of("heart", names) == parts_of("x", names) == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lung_left", ("lung", "left")),
        ("lung_field_left", ("lung_field", "left")),
        ("Left Lung", ("lung", "left")),
        ("clavicle-RIGHT", ("clavicle", "right")),
        ("heart", ("heart", None)),
        ("left_to_right_shunt", ("left_to_right_shunt", None)),
        ("copyright", ("copyright", None)),
    ],
)
def test_split_side(name, expected):
    assert split_side(name) == expected


def test_colours_are_fixed_by_name_and_unknown_ones_get_spare_colours():
    one, other = structure_colours(["heart", "lung_left", "x"]), structure_colours(["y", "left_lung", "heart", "z"])
    assert one[0] == other[2] and one[1] == other[1]
    assert len(set(one)) == 3 and len(set(other)) == 4


def test_the_same_masks_give_the_same_file_and_others_other_uids(tmp_path):
    film = _film(tmp_path / "a.dcm")
    first = _write(film, tmp_path / "1.dcm")
    _write(film, tmp_path / "2.dcm")
    assert (tmp_path / "1.dcm").read_bytes() == (tmp_path / "2.dcm").read_bytes()
    masks = _masks(21, 34)
    masks[0, 0, 0] ^= True
    other = _write(film, tmp_path / "3.dcm", masks)
    newer = _write(film, tmp_path / "4.dcm", algorithm=SegAlgorithm(version="9"))
    assert len({one.SOPInstanceUID for one in (first, other, newer)}) == 3
    assert len({one.SeriesInstanceUID for one in (first, other, newer)}) == 3


def test_patient_and_study_are_copied_and_bad_values_emptied(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        film = _film(
            tmp_path / "a.dcm",
            SpecificCharacterSet="ISO_IR 192",
            PatientName="Grün^Jürgen",
            PatientID="P 1",
            PatientBirthDate="00000000",
            PatientSex="?",
            StudyDate="20200102",
            StudyTime="11:22",
            AccessionNumber="A1",
            PatientOrientation=["L", "F"],
        )
    seg = _write(film, tmp_path / "s.dcm")
    assert (str(seg.PatientName), seg.PatientID, seg.AccessionNumber) == ("Grün^Jürgen", "P 1", "A1")
    assert (seg.StudyDate, list(seg.PatientOrientation)) == ("20200102", ["L", "F"])
    for name in ("PatientBirthDate", "PatientSex", "StudyTime", "StudyID", "ReferringPhysicianName"):
        assert name in seg and not seg[name].value, name


def test_no_patient_data_in_logs_or_warnings(tmp_path, caplog, recwarn):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        film = _film(tmp_path / "a.dcm", PatientName="Secretname", PatientID="Secretid", PatientBirthDate="Secretbd")
    recwarn.clear()
    caplog.clear()
    with caplog.at_level(logging.DEBUG):
        write_dicom_seg(tmp_path / "s.dcm", film, _masks(21, 34), STRUCTURES, created=CREATED)
    assert not [warning for warning in recwarn if "ecret" in str(warning.message)]
    assert "ecret" not in caplog.text and UIDS["SOPInstanceUID"] not in caplog.text
    assert b"Secretname" in (tmp_path / "s.dcm").read_bytes()


def test_bare_and_implicit_files_and_those_with_a_frame_of_reference(tmp_path):
    film = _film(tmp_path / "a.dcm", syntax="1.2.840.10008.1.2", FrameOfReferenceUID="1.2.9")
    dataset = pydicom.dcmread(film)
    bare = tmp_path / "bare.dcm"
    pydicom.dcmwrite(bare, pydicom.Dataset(dataset), implicit_vr=True, little_endian=True, enforce_file_format=False)
    head = bare.read_bytes()[:132]
    assert head[128:] != b"DICM" and is_dicom_header(head)
    for number, path in enumerate((film, bare)):
        seg = _write(path, tmp_path / f"{number}.seg")
        np.testing.assert_array_equal(_read_masks(seg, UIDS["SOPInstanceUID"]), _masks(21, 34))


@pytest.mark.parametrize("missing", ["SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
def test_a_film_without_uids_is_refused_in_one_line(tmp_path, missing):
    film = _film(tmp_path / "a.dcm", **{missing: ""})
    with pytest.raises(RadiographError, match=f"a.dcm: no {missing} in its header"):
        write_dicom_seg(tmp_path / "s.dcm", film, _masks(21, 34), STRUCTURES, created=CREATED)
    assert not (tmp_path / "s.dcm").exists()


def test_other_refusals(tmp_path):
    film = _film(tmp_path / "a.dcm")
    with pytest.raises(ValueError, match=r"must be bool \[5, 21, 34\], got bool of shape \(5, 34, 21\)"):
        write_dicom_seg(tmp_path / "s.dcm", film, _masks(34, 21), STRUCTURES, created=CREATED)
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200))
    with pytest.raises(RadiographError, match="not a DICOM file"):
        write_dicom_seg(tmp_path / "s.dcm", tmp_path / "b.png", _masks(21, 34), STRUCTURES, created=CREATED)
    private = _film(tmp_path / "c.dcm", sop_class="1.2.3.99")
    with pytest.raises(RadiographError, match="of SOP class 1.2.3.99"):
        write_dicom_seg(tmp_path / "s.dcm", private, _masks(21, 34), STRUCTURES, created=CREATED)
    with pytest.raises(ValueError, match="SegAlgorithm name must be 1 to 64"):
        SegAlgorithm(name="")


def _validate(path: Path, own: str | None) -> None:
    """No errors by dicom3tools' dciodvfy, but those about what is invalid in the film's own header."""
    dciodvfy = shutil.which("dciodvfy")
    if dciodvfy is None:
        pytest.skip("dciodvfy is not installed (Debian: apt-get install dicom3tools)")
    done = subprocess.run([dciodvfy, os.fspath(path)], capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    assert "Segmentation" in lines
    errors = [line for line in lines if line.startswith(("Error", "Abort")) and not (own and own in line)]
    errors = [line for line in errors if not (own and line.endswith("invalid data values for Value Representations"))]
    assert not errors, errors


def _check_real(film: Path, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = pydicom.dcmread(film, force=True, stop_before_pixels=True)
        film_uid = str(header.SOPInstanceUID)
    coarse = _masks(header.Rows // 16 + 1, header.Columns // 16 + 1)
    masks = coarse.repeat(16, axis=1).repeat(16, axis=2)[:, : header.Rows, : header.Columns]
    write_dicom_seg(path, film, masks, STRUCTURES, created=CREATED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the films' own invalid values
        if "PixelSpacing" in _shared(path).PixelMeasuresSequence[0]:
            np.testing.assert_array_equal(_read_masks(hd.seg.segread(path), film_uid), masks)
        else:
            np.testing.assert_array_equal(pydicom.dcmread(path).pixel_array.astype(bool), masks)


@pytest.mark.parametrize("name", REAL)
def test_real_films(shared_data, tmp_path, name):
    _check_real(shared_data / "dicom" / "images" / f"{name}.dcm", tmp_path / "s.dcm")
    _validate(tmp_path / "s.dcm", OWN_ERRORS.get(name))


def test_the_film_of_pydicom_data(tmp_path):
    data = pytest.importorskip("data_store", reason="pydicom-data is not installed")
    _check_real(Path(data.__path__[0]) / "data" / "RG1_UNCR.dcm", tmp_path / "s.dcm")
    _validate(tmp_path / "s.dcm", None)


def test_a_synthetic_film_validates(tmp_path):
    _write(_film(tmp_path / "a.dcm"), tmp_path / "s.dcm")
    _validate(tmp_path / "s.dcm", None)


def test_single_organs_are_in_one_part():
    one = (*EIGHT, "Right lung", "cardiomediastinum")
    many = ("lungs", "lung", "lung_fields", "ribs", "clavicles", "opacity", "nodule", "tube", "something_left")
    assert [is_one_part(name) for name in (*one, *many)] == [True] * len(one) + [False] * len(many)
