"""DICOM SR of landmarks: places and confidences read back, and what the standard's validator says."""

from __future__ import annotations

from datetime import datetime

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes

from cxw_monai.io.results.dicom_shared import SegAlgorithm
from cxw_monai.io.results.landmark_sr import write_landmark_sr
from tests.helpers.dicom_files import write_dicom
from tests.io.test_dicom_sr import UIDS, validate

LANDMARKS = {"carina": (3.25, 7.0, 0.5), "lung_apex_left": (20.0, 1.5, 0.75)}
HOW = {"created": datetime(2024, 5, 6, 7, 8, 9), "algorithm": SegAlgorithm("landmarks", "1.2 abc")}


@pytest.fixture
def film(tmp_path):
    return write_dicom(tmp_path / "film.dcm", np.zeros((24, 32), np.uint16), Modality="DX", PatientID="id-7", **UIDS)


def test_points_and_confidences_are_reported(tmp_path, film):
    """In a SCOORD the first pixel's centre is .5, .5."""
    path = tmp_path / "sr.dcm"
    write_landmark_sr(path, film, LANDMARKS, **HOW)
    groups = hd.sr.srread(path).content.get_image_measurement_groups()
    assert [one.finding_type.value for one in groups] == list(LANDMARKS)
    for group, (x, y, confidence) in zip(groups, LANDMARKS.values(), strict=True):
        (number,) = group.get_measurements()
        assert (number.name, number.value, number.unit) == (
            codes.DCM.CertaintyOfFinding,
            100 * confidence,
            codes.UCUM.Percent,
        )
        (where,) = number.referenced_coordinates
        assert where.GraphicType == "POINT" and list(where.GraphicData) == [x + 0.5, y + 0.5]
        assert where.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == UIDS["SOPInstanceUID"]
    report = pydicom.dcmread(path)
    assert (report.PatientID, report.SeriesDescription) == ("id-7", "Landmarks")
    validate(path)


def test_uids_follow_from_the_content_and_doubt_is_said(tmp_path, film):
    uids = []
    for name, landmarks, doubtful in (
        ("a", LANDMARKS, False),
        ("b", LANDMARKS, False),
        ("c", {"carina": (3.0, 7.0, 0.5)}, True),
    ):
        write_landmark_sr(tmp_path / name, film, landmarks, doubtful=doubtful, **HOW)
        uids.append(pydicom.dcmread(tmp_path / name).SOPInstanceUID)
    assert uids[0] == uids[1] != uids[2]
    assert pydicom.dcmread(tmp_path / "c").SeriesDescription.startswith("IMPLAUSIBLE")
    with pytest.raises(ValueError, match="at least one"):
        write_landmark_sr(tmp_path / "d", film, {}, **HOW)
