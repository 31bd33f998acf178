"""DICOM SR: diameters and their lines read back, units, codes, patient data, and what the standard's validator says."""

from __future__ import annotations

import logging
import shutil
import subprocess
from datetime import datetime
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes

from cxw_monai.inference.outputs import DEFAULT_FORMATS, SegmentationWriter
from cxw_monai.io import Radiograph, RadiographError, read_radiograph
from cxw_monai.io.results.dicom_shared import SegAlgorithm
from cxw_monai.io.results.dicom_sr import Diameter, write_dicom_sr
from cxw_monai.io.structures import PRIVATE_SCHEME
from tests.helpers import dicom_files as _files

STRUCTURES = ("lung_right", "lung_left", "heart")
CREATED = datetime(2024, 5, 6, 7, 8, 9)
UIDS = {"StudyInstanceUID": "1.2.3.4", "SeriesInstanceUID": "1.2.3.4.5", "SOPInstanceUID": "1.2.3.4.5.6"}
SC, CR = "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.1"
HEART = Diameter("heart", [[10.5, 4.0], [10.5, 16.0]], 2.4, "mm")
THORAX = Diameter("thorax", [[8.0, 2.0], [8.0, 22.0]], 4.0, "mm")


def _film(path: Path, rows: int = 24, columns: int = 32, **attributes: object) -> Path:
    found = {**UIDS, "Modality": "DX", "PixelSpacing": [0.4, 0.2], **attributes}
    given = {name: value for name, value in found.items() if value is not None}
    return _files.write_dicom(path, np.arange(rows * columns, dtype=np.uint16).reshape(rows, columns), **given)


def _rectangles(rows: int = 24, columns: int = 32) -> np.ndarray:
    """Lungs of columns 4 to 9 and 20 to 27 (24 px with what is between), a heart of columns 11 to 22 (12 px)."""
    masks = np.zeros((3, rows, columns), bool)
    masks[0, 2:18, 4:10], masks[1, 4:20, 20:28], masks[2, 12:18, 11:23] = True, True, True
    return masks


def _groups(path: Path) -> list[hd.sr.MeasurementsAndQualitativeEvaluations]:
    return hd.sr.srread(path).content.get_image_measurement_groups()


def _first_line(group: hd.sr.MeasurementsAndQualitativeEvaluations) -> list[list[float]]:
    """Two points (column, row) of a group's first number."""
    return group.get_measurements()[0][0].ContentSequence[0].value.tolist()


def _segmented(tmp_path: Path, film: Path, masks: np.ndarray, **how: object) -> tuple[Path, dict[str, object]]:
    """What a run writes of a film: its SR, which needn't be there, and its row."""
    writer = SegmentationWriter(tmp_path / "out", STRUCTURES, [film], ["sr", "csv"])
    row = writer.write(how.pop("radiograph", None) or read_radiograph(film), masks, **how)
    row["without_sr"] = writer.finish()["without_sr"]
    return writer.folder(film) / "measurements.dcm", row


def validate(path: Path) -> None:
    dciodvfy = shutil.which("dciodvfy")
    if dciodvfy is None:
        pytest.skip("dciodvfy is not installed (Debian: apt-get install dicom3tools)")
    done = subprocess.run([dciodvfy, str(path)], capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    assert "ComprehensiveSR" in lines
    assert not [line for line in lines if line.startswith(("Error", "Abort"))], lines


@pytest.mark.parametrize(
    ("sop_class", "spacing", "unit", "across", "inner"),
    [
        (_files.DX, [0.4, 0.2], "mm", 2.4, 4.8),
        (CR, [0.4, 0.2], "mm", 2.4, 4.8),
        (SC, [0, 0], "{pixels}", 12, 24),
        (_files.DX, None, "{pixels}", 12, 24),
    ],
)
def test_rectangles_are_reported_with_their_lines(tmp_path, sop_class, spacing, unit, across, inner):
    film = _film(tmp_path / "a.dcm", sop_class=sop_class, PixelSpacing=spacing)
    path, row = _segmented(tmp_path, film, _rectangles())
    heart, thorax = _groups(path)
    diameter, ratio, *of_heart = heart.get_measurements()
    width, *of_lungs = thorax.get_measurements()
    pixel = 0.4 * 0.2 if unit == "mm" else 1
    assert [one.value for one in (*of_heart, *of_lungs)] == pytest.approx([72 * pixel, 96 * pixel, 128 * pixel])
    assert {one.unit.value for one in (*of_heart, *of_lungs)} == {"mm2" if unit == "mm" else unit}
    sites = [one.finding_sites[0] for one in (*of_heart, *of_lungs)]
    assert [site.value.meaning for site in sites] == ["Heart", "Lung", "Lung"]
    assert [site.ContentSequence[0].value.meaning for site in sites[1:]] == ["Right", "Left"]
    assert (diameter.value, width.value, ratio.value) == (pytest.approx(across), pytest.approx(inner), 0.5)
    assert [one.unit.value for one in (diameter, width, ratio)] == [unit, unit, "1"]
    # (column, row): the heart's rows 12 to 17 have their middle at 15, the lungs' 2 to 17 and 4 to 19 at 10 and 12
    lines = [[[11, 15], [23, 15]], [[4, 11], [28, 11]]]
    for number, expected in ((diameter, lines[:1]), (width, lines[1:]), (ratio, lines)):
        found = number[0].ContentSequence
        assert [one.value.tolist() for one in found] == expected
        assert {(one.graphic_type.value, one.relationship_type.value) for one in found} == {
            ("POLYLINE", "INFERRED FROM")
        }
        for one in found:
            (image,) = one.ContentSequence
            assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == UIDS["SOPInstanceUID"]
    assert row["sr_note"] == "" and row["without_sr"] == {}
    validate(path)


def test_a_film_that_is_turned_on_reading_has_its_lines_on_the_stored_pixels(tmp_path):
    film = _film(tmp_path / "a.dcm", PixelSpacing=[0.2, 0.4])
    read = read_radiograph(film)
    turned = read.meta["pixel_map"].transpose().flip(0)  # stored [24, 32] -> upright [32, 24], its rows from the bottom
    meta = {**read.meta, "pixel_map": turned, "spacing_mm": (0.4, 0.2)}
    radiograph = Radiograph(np.ascontiguousarray(read.array.swapaxes(1, 2)[:, ::-1]), meta)
    upright = np.zeros((3, 32, 24), bool)
    upright[0, 2:8, 1:5], upright[1, 2:8, 15:21], upright[2, 4:6, 7:17] = True, True, True
    path, _ = _segmented(tmp_path, film, turned.restore(upright), radiograph=radiograph)
    heart, thorax = _groups(path)
    # upright column c is stored row c; the middle at upright row 5 of 32 is at stored column 27
    assert _first_line(heart) == [[27, 7], [27, 17]]
    assert _first_line(thorax) == [[27, 1], [27, 21]]
    assert heart.get_measurements()[0].value == pytest.approx(10 * 0.2)


def test_without_a_heart_there_is_no_report_and_without_lungs_no_ratio(tmp_path, caplog):
    film, masks = _film(tmp_path / "a.dcm"), _rectangles()
    masks[2] = False
    path, row = _segmented(tmp_path, film, masks)
    assert not path.exists() and "no heart was found" in row["sr_note"] and row["without_sr"] == {row["sr_note"]: 1}
    assert f"no DICOM SR of {film}: no heart was found" in caplog.text
    masks = _rectangles()
    masks[0] = False
    path, _ = _segmented(tmp_path, film, masks)
    (heart,) = _groups(path)
    assert [one.value for one in heart.get_measurements()] == pytest.approx([2.4, 10.24, 5.76])
    assert "CodingSchemeIdentificationSequence" not in pydicom.dcmread(path)
    validate(path)


def test_what_cannot_be_referred_to_has_no_report_and_is_done(tmp_path):
    film = _film(tmp_path / "a.dcm", StudyInstanceUID="")
    path, row = _segmented(tmp_path, film, _rectangles())
    assert row["sr_note"] == "no StudyInstanceUID in its header, which a DICOM SR must refer to" and not path.exists()
    resumed = {"formats": ["sr", "csv"], "resume": True}
    assert SegmentationWriter(tmp_path / "out", STRUCTURES, [film], **resumed).is_written(film)
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200))
    with pytest.raises(RadiographError, match="not a DICOM file, which a DICOM SR must refer to; leave out .* 'sr'"):
        write_dicom_sr(tmp_path / "s.dcm", tmp_path / "b.png", [HEART], created=CREATED)


def test_a_report_that_is_gone_or_asked_for_later_is_written(tmp_path):
    film = _film(tmp_path / "a.dcm")
    path, _ = _segmented(tmp_path, film, _rectangles())
    resumed = {"formats": ["sr", "csv"], "resume": True}
    assert SegmentationWriter(tmp_path / "out", STRUCTURES, [film], **resumed).is_written(film)
    path.unlink()
    assert not SegmentationWriter(tmp_path / "out", STRUCTURES, [film], **resumed).is_written(film)
    assert "sr" not in DEFAULT_FORMATS


def test_groups_say_what_was_measured_and_by_what(tmp_path):
    algorithm = SegAlgorithm("hearts", "3.1 0123456789abcdef", "Hospital", "Segmentation, threshold 0.4")
    film = _film(tmp_path / "a.dcm", SeriesNumber=7)
    write_dicom_sr(tmp_path / "s.dcm", film, [HEART, THORAX], 0.6, created=CREATED, algorithm=algorithm)
    report, groups = pydicom.dcmread(tmp_path / "s.dcm"), _groups(tmp_path / "s.dcm")
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert [group.tracking_identifier for group in groups] == ["Cornerstone3DTools@^0.1.0:Length"] * 2
    assert len({group.tracking_uid for group in groups}) == 2
    assert [group.finding_sites[0].value.meaning for group in groups] == ["Heart", "Chest cavity"]
    names = [[one.name for one in group.get_measurements()] for group in groups]
    assert names[0][0] == names[1][0] == codes.SCT.Diameter
    assert (names[0][1].CodeValue, names[0][1].scheme_designator) == ("ctr", PRIVATE_SCHEME)
    assert [item.CodingSchemeDesignator for item in report.CodingSchemeIdentificationSequence] == [PRIVATE_SCHEME]
    texts = [
        {one.name.meaning: one.TextValue for one in group[0].ContentSequence if one.ValueType == "TEXT"}
        for group in groups
    ]
    assert [text["Comment"] for text in texts] == [
        "Heart, transverse diameter, cardiothoracic ratio 0.60",
        "Thorax, inner transverse diameter",
    ]
    for text in texts:
        assert (text["Algorithm Name"], text["Algorithm Version"]) == ("hearts", "3.1 0123456789abcdef")
        assert text["Algorithm Parameters"] == "Segmentation, threshold 0.4"
    assert (report.Modality, report.SeriesNumber, report.Manufacturer) == ("SR", 2007, "Hospital")
    assert (report.ManufacturerModelName, report.SoftwareVersions) == ("hearts", "3.1 0123456789abcdef")
    assert (report.CompletionFlag, report.VerificationFlag, report.PreliminaryFlag) == (
        *("COMPLETE", "UNVERIFIED", "PRELIMINARY"),
    )
    assert (report.ContentDate, report.ContentTime, report.InstanceCreationDate) == ("20240506", "070809", "20240506")
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    assert study.StudyInstanceUID == report.StudyInstanceUID == UIDS["StudyInstanceUID"]
    (series,) = study.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == UIDS["SeriesInstanceUID"] != report.SeriesInstanceUID
    validate(tmp_path / "s.dcm")


def test_implausible_masks_are_marked_in_description_and_labels(tmp_path):
    path, _ = _segmented(tmp_path, _film(tmp_path / "a.dcm"), _rectangles(), doubts=["no chest"])
    content = path.read_bytes()
    assert content.count(b"IMPLAUSIBLE, look at it. ") == 3  # the series and two labels
    assert pydicom.dcmread(path).SeriesDescription == "IMPLAUSIBLE, look at it. Diameters of heart and thorax"


def test_the_same_content_gives_the_same_file_and_other_content_other_uids(tmp_path):
    film, other = _film(tmp_path / "a.dcm"), Diameter("heart", HEART.line, 2.5, "mm")
    given = [([HEART, THORAX], 0.6, {}), ([other, THORAX], 0.6, {}), ([HEART, THORAX], 0.61, {})]
    given += [([HEART, THORAX], 0.6, {"algorithm": SegAlgorithm(version="9")}), ([HEART], None, {})]
    given += [([HEART, THORAX], 0.6, {"doubtful": True})]
    found = []
    for number, (diameters, ratio, how) in enumerate([given[0], *given]):
        write_dicom_sr(tmp_path / f"{number}.dcm", film, diameters, ratio, created=CREATED, **how)
        found.append(pydicom.dcmread(tmp_path / f"{number}.dcm"))
    assert (tmp_path / "0.dcm").read_bytes() == (tmp_path / "1.dcm").read_bytes()
    assert len({one.SOPInstanceUID for one in found[1:]}) == len({one.SeriesInstanceUID for one in found[1:]}) == 6


def test_the_films_patient_is_in_the_report_and_nowhere_else(tmp_path, caplog, recwarn):
    film = _film(tmp_path / "a.dcm", PatientName="Secretname", PatientID="P 1", PatientSex="F", StudyDate="20200102")
    with caplog.at_level(logging.DEBUG):
        write_dicom_sr(tmp_path / "s.dcm", film, [HEART, THORAX], 0.6, created=CREATED)
    report = pydicom.dcmread(tmp_path / "s.dcm")
    assert (report.PatientName, report.PatientID, report.PatientSex) == ("Secretname", "P 1", "F")
    assert report.StudyDate == "20200102" and "PatientOrientation" not in report and "Rows" not in report
    assert "ecret" not in caplog.text and not [one for one in recwarn if "ecret" in str(one.message)]
    validate(tmp_path / "s.dcm")


def test_other_diameters_are_refused(tmp_path):
    for site, length, unit, message in (
        ("lung", 1.0, "mm", "site of a diameter must be one of"),
        ("heart", 1.0, "cm", "unit of a diameter must be one of"),
        ("heart", 0.0, "mm", "length of a diameter must be above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            Diameter(site, HEART.line, length, unit)
    for diameters in ([THORAX], [HEART, HEART]):
        with pytest.raises(ValueError, match="diameters must be heart, or heart and thorax"):
            write_dicom_sr(tmp_path / "s.dcm", _film(tmp_path / "a.dcm"), diameters, created=CREATED)
