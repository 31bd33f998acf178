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
from cxw_monai.io.dicom_seg import SegAlgorithm, is_dicom, write_dicom_seg
from cxw_monai.io.structure_codes import (
    PRIVATE_SCHEME,
    describe_structure,
    is_one_part,
    split_side,
    structure_colours,
)

_spec = importlib.util.spec_from_file_location("dicom_files", Path(__file__).with_name("dicom_files.py"))
_files = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_files)

STRUCTURES = ("lung_left", "right_lung", "heart", "my_finding", "pneumothorax")
CREATED = datetime(2024, 5, 6, 7, 8, 9)
UIDS = {"StudyInstanceUID": "1.2.3.4", "SeriesInstanceUID": "1.2.3.4.5", "SOPInstanceUID": "1.2.3.4.5.6"}
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
    return _files.write_dicom(path, pixels, **{**UIDS, "Modality": "DX", **attributes})


def _write(film: Path, path: Path, masks: np.ndarray | None = None, **how: object) -> hd.seg.Segmentation:
    write_dicom_seg(path, film, _masks(21, 34) if masks is None else masks, STRUCTURES, **{"created": CREATED, **how})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the films' own invalid values
        return hd.seg.segread(path)


def _read_masks(seg: hd.seg.Segmentation, film_uid: str) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pixels = seg.get_pixels_by_source_instance([film_uid], combine_segments=False, skip_overlap_checks=True)
    return pixels[0].transpose(2, 0, 1).astype(bool)  # [1, H, W, S] -> [S, H, W]


def test_masks_come_back_bit_for_bit_and_in_order(tmp_path):
    seg = _write(_film(tmp_path / "a.dcm"), tmp_path / "s.dcm")
    np.testing.assert_array_equal(_read_masks(seg, UIDS["SOPInstanceUID"]), _masks(21, 34))
    frames = pydicom.dcmread(tmp_path / "s.dcm").pixel_array  # by another way: a frame per structure, empty ones too
    np.testing.assert_array_equal(frames.astype(bool), _masks(21, 34))
    labels = [seg.get_segment_description(number).segment_label for number in seg.segment_numbers]
    assert labels == list(STRUCTURES)
    assert seg.SegmentationType == "BINARY" and seg.SegmentsOverlap == "YES"


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
    assert "FrameOfReferenceUID" not in seg and "PixelMeasuresSequence" not in seg.SharedFunctionalGroupsSequence[0]
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
    module = importlib.import_module("cxw_monai.io.structure_codes")
    triplets = {entry[1] for entry in module._TABLE.values()} | set(module.SIDES.values())
    triplets |= {module.ANATOMY, module.ABNORMAL, module.OBJECT, module.UNKNOWN}
    for value, scheme, meaning in triplets:
        table = importlib.import_module("pydicom.sr._concepts_dict").concepts[scheme]
        meanings = {entry[value][0] for entry in table.values() if value in entry}
        assert meaning in meanings, (value, scheme, meaning)
    assert describe_structure("lung").type[0] == codes.SCT.Lung.value
    assert set(module._ALIASES.values()) <= set(module._TABLE)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lung_left", ("lung", "left")),
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
    assert bare.read_bytes()[128:132] != b"DICM" and is_dicom(bare)
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
    masks = _masks(header.Rows, header.Columns)
    np.testing.assert_array_equal(_read_masks(_write(film, path, masks), film_uid), masks)


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
    one = ("heart", "mediastinum", "lung_left", "Right lung", "clavicle_right", "cardiomediastinum")
    many = ("lungs", "lung", "ribs", "clavicles", "opacity", "nodule", "tube", "something_left")
    assert [is_one_part(name) for name in (*one, *many)] == [True] * len(one) + [False] * len(many)
