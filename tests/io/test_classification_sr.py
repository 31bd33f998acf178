"""DICOM SR of classes: codes, probabilities and decisions read back, and what the standard's validator says."""

from __future__ import annotations

from datetime import datetime

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes

from cxw_monai.io import RadiographError
from cxw_monai.io.results.classification_sr import write_classification_sr
from cxw_monai.io.results.dicom_shared import SegAlgorithm
from tests.helpers.dicom_files import write_dicom
from tests.io.test_dicom_sr import UIDS, validate

PROBABILITIES = {"pneumonia": 0.25, "view_position_seen_from_behind": 0.75}
POINTS = {"pneumonia": {"youden": 0.25, "sensitivity_90_of_validation": 0.5}}
HOW = {"created": datetime(2024, 5, 6, 7, 8, 9), "algorithm": SegAlgorithm("classifier", "1.2 abc")}


@pytest.fixture
def film(tmp_path):
    return write_dicom(tmp_path / "film.dcm", np.zeros((24, 32), np.uint16), Modality="DX", PatientID="id-7", **UIDS)


def test_probabilities_and_decisions_are_reported(tmp_path, film):
    path = tmp_path / "sr.dcm"
    write_classification_sr(path, film, PROBABILITIES, POINTS, **HOW)
    pneumonia, view = hd.sr.srread(path).content.get_image_measurement_groups()
    assert pneumonia.finding_type == pydicom.sr.coding.Code("233604007", "SCT", "Pneumonia")
    assert (view.finding_type.value, view.finding_type.scheme_designator) == (
        "view_position_seen_from_behind",
        "99CXW",
    )
    for group, percent in ((pneumonia, 25), (view, 75)):
        (number,) = group.get_measurements()
        assert (number.name, number.value, number.unit) == (codes.DCM.CertaintyOfFinding, percent, codes.UCUM.Percent)
    decided = {one.name.value: one.value.meaning for one in pneumonia.get_qualitative_evaluations()}
    assert decided == {"youden": "Present", "sensitivity_90_of_validation": "Absent"}  # on the threshold is above
    assert view.get_qualitative_evaluations() == []
    parameters = [one.TextValue for one in pneumonia[0].ContentSequence if one.name == codes.DCM.AlgorithmParameters]
    assert parameters == ["threshold at youden: 0.25", "threshold at sensitivity_90_of_validation: 0.5"]
    report = pydicom.dcmread(path)
    assert (report.PatientID, report.StudyInstanceUID) == ("id-7", UIDS["StudyInstanceUID"])
    assert report.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99CXW"
    validate(path)


def test_uids_follow_from_the_content(tmp_path, film):
    uids = []
    for name, found in (("a", 0.25), ("b", 0.25), ("c", 0.26)):
        write_classification_sr(tmp_path / name, film, {"pneumonia": found}, POINTS, **HOW)
        uids.append(pydicom.dcmread(tmp_path / name).SOPInstanceUID)
    assert uids[0] == uids[1] != uids[2]


def test_a_film_of_a_private_class_is_refused(tmp_path):
    film = write_dicom(
        tmp_path / "film.dcm", np.zeros((24, 32), np.uint16), sop_class="1.2.3.4.5.6", Modality="DX", **UIDS
    )
    with pytest.raises(RadiographError, match="of SOP class 1.2.3.4.5.6, which the DICOM standard doesn't have"):
        write_classification_sr(tmp_path / "sr.dcm", film, PROBABILITIES, POINTS, **HOW)
    assert not (tmp_path / "sr.dcm").exists()


def test_a_doubtful_film_and_one_that_is_no_dicom(tmp_path, film):
    write_classification_sr(tmp_path / "sr.dcm", film, PROBABILITIES, {}, doubtful=True, **HOW)
    report = hd.sr.srread(tmp_path / "sr.dcm")
    assert report.SeriesDescription == "IMPLAUSIBLE, look at it. Classification"
    comment = report.content.get_image_measurement_groups()[0][0].ContentSequence[-1].TextValue
    assert comment == "IMPLAUSIBLE, look at it. pneumonia: probability 0.250"
    (tmp_path / "film.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200))
    with pytest.raises(RadiographError, match="not a DICOM file, which a DICOM SR must refer to"):
        write_classification_sr(tmp_path / "no.dcm", tmp_path / "film.png", PROBABILITIES, {}, **HOW)
