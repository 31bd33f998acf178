"""Spacing of projection images: which attribute counts, magnification, and values that are none."""

from __future__ import annotations

import numpy as np
import pytest

from cxw_monai.io import read_radiograph
from tests.helpers import dicom_files as _files

FILM = np.arange(256, dtype=np.uint8).reshape(16, 16)
SAME = {"PixelSpacing": [0.7, 0.7], "ImagerPixelSpacing": [0.7, 0.7]}
FACTOR = {"EstimatedRadiographicMagnificationFactor": 1.25}
DISTANCES = {"DistanceSourceToDetector": 1800, "DistanceSourceToPatient": 1500}  # 1.2


def _read(tmp_path, **attributes):
    return read_radiograph(_files.write_dicom(tmp_path / "a.dcm", FILM, **attributes)).meta


@pytest.mark.parametrize(
    ("attributes", "spacing", "source"),
    [
        (
            {**SAME, **FACTOR},
            0.56,
            "magnification 1.25 (EstimatedRadiographicMagnificationFactor)",
        ),
        ({**SAME, **DISTANCES}, 0.7 / 1.2, "DistanceSourceToDetector / DistanceSourceToPatient"),
        ({**SAME, **FACTOR, **DISTANCES}, 0.56, "EstimatedRadiographicMagnificationFactor"),
        ({**SAME, "EstimatedRadiographicMagnificationFactor": 0, **DISTANCES}, 0.7 / 1.2, "DistanceSourceToDetector"),
        ({**SAME, "EstimatedRadiographicMagnificationFactor": 0.8}, 0.7, "at the detector, magnification unknown"),
        ({**SAME, "DistanceSourceToDetector": 1000, "DistanceSourceToPatient": 1500}, 0.7, "magnification unknown"),
        ({**SAME, "DistanceSourceToDetector": 1800, "DistanceSourceToPatient": 0}, 0.7, "magnification unknown"),
        ({**SAME, **FACTOR, "PixelSpacingCalibrationType": "GEOMETRY"}, 0.7, "PixelSpacing, calibrated by GEOMETRY"),
        ({**SAME, **FACTOR, "PixelSpacingCalibrationType": "FIDUCIAL"}, 0.7, "PixelSpacing, calibrated by FIDUCIAL"),
        ({"PixelSpacing": [0.56, 0.56], "ImagerPixelSpacing": [0.7, 0.7], **FACTOR}, 0.56, "PixelSpacing"),
        ({"ImagerPixelSpacing": [0.7, 0.7], **DISTANCES}, 0.7 / 1.2, "ImagerPixelSpacing / magnification 1.2"),
        ({"NominalScannedPixelSpacing": [0.2, 0.2]}, 0.2, "NominalScannedPixelSpacing, at the detector"),
        ({"NominalScannedPixelSpacing": [0.2, 0.2], **FACTOR}, 0.16, "NominalScannedPixelSpacing / magnification"),
        ({"PixelSpacing": [0.2, 0.2], "NominalScannedPixelSpacing": [0.2, 0.2], **FACTOR}, 0.16, "not calibrated"),
        ({"PixelSpacing": [0.7, 0.7], **FACTOR}, 0.7, "PixelSpacing"),
        ({"PixelSpacing": [0.143, 0.143], "ImagerPixelSpacing": [0.1434, 0.1434], **FACTOR}, 0.11472, "not calibrated"),
        ({"PixelSpacing": [0.141, 0.141], "ImagerPixelSpacing": [0.143, 0.143]}, 0.141, "PixelSpacing"),  # by 1.4 %
    ],
)
def test_which_spacing_counts(tmp_path, attributes, spacing, source):
    meta = _read(tmp_path, **attributes)
    assert meta["spacing_mm"] == pytest.approx((spacing, spacing))
    assert source in meta["spacing_from"] and meta["steps"][-1] == f"spacing: {meta['spacing_from']}"


@pytest.mark.parametrize(
    ("text", "spacing"),
    [
        (b"0,143\\0,125", (0.143, 0.125)),
        (b"0.143\\0,125", (0.143, 0.125)),
        (b"0,143,0,143", None),
        (b"0.143", None),
        (b"0.1\\0.1\\0.1", None),
        (b"0\\0", None),
        (b"-0.2\\-0.2", None),
        (b"143\\143", None),  # micrometres
        (b"nan\\nan", None),
        (b"inf\\0.2", None),
        (b"none\\none", None),
        (b"\\0.2", None),
        (b"", None),
    ],
)
def test_values_that_are_no_spacing_are_left_out_and_noted(tmp_path, text, spacing):
    meta = _read(tmp_path, raw={"PixelSpacing": text})
    assert meta["spacing_mm"] == (pytest.approx(spacing) if spacing else None)
    noted = [step for step in meta["steps"] if step.startswith("PixelSpacing")]
    assert bool(noted) == (text != b"")
    other = _read(tmp_path, raw={"PixelSpacing": text}, ImagerPixelSpacing=[0.3, 0.3])
    assert other["spacing_mm"] == pytest.approx(spacing or (0.3, 0.3))


@pytest.mark.parametrize(
    ("raw", "spacing", "note"),
    [
        (
            {"EstimatedRadiographicMagnificationFactor": b"1,250"},
            0.4,
            "EstimatedRadiographicMagnificationFactor: decimal comma read as a point",
        ),
        (
            {"DistanceSourceToDetector": b"1,800", "DistanceSourceToPatient": b"1,440"},  # 1.25
            0.4,
            "DistanceSourceToDetector: comma read as one between thousands",
        ),
        (
            {"DistanceSourceToDetector": b"1,000", "DistanceSourceToPatient": b"800,000"},  # 800 m can't be
            0.4,
            "DistanceSourceToPatient: decimal comma read as a point",
        ),
    ],
)
def test_commas_before_three_digits_that_can_be_read_one_way_only(tmp_path, raw, spacing, note):
    meta = _read(tmp_path, ImagerPixelSpacing=[0.5, 0.5], raw=raw)
    assert meta["spacing_mm"] == pytest.approx((spacing, spacing)) and note in meta["steps"]


def test_a_spacing_that_contradicts_the_magnification_or_the_aspect_is_told(tmp_path):
    above = {"PixelSpacing": [0.2, 0.2], "ImagerPixelSpacing": [0.143, 0.143]}
    meta = _read(tmp_path, **above, **FACTOR)
    assert meta["spacing_mm"] == (0.2, 0.2)
    assert "PixelSpacing is above ImagerPixelSpacing, which contradicts a magnification of 1.25" in meta["steps"]
    assert not any("contradicts" in step for step in _read(tmp_path, **above)["steps"])
    steps = _read(tmp_path, PixelSpacing=[0.2, 0.2], PixelAspectRatio=[1, 2])["steps"]
    contradiction = "it contradicts pixels of 0.2 x 0.2 mm (rows x columns)"
    assert f"PixelAspectRatio 1:2 left out: {contradiction}" in steps
    steps = _read(tmp_path, ImagerPixelSpacing=[0.2, 0.4], PixelAspectRatio=[1, 2])["steps"]
    assert "pixels aren't square: 0.2 x 0.4 mm (rows x columns), left as stored" in steps
    assert not any("contradicts" in step for step in steps)


def test_pixels_that_are_not_square_are_told_and_left(tmp_path):
    meta = _read(tmp_path, PixelAspectRatio=[2, 1])
    assert meta["spacing_mm"] is None and meta["original_shape"] == FILM.shape
    assert "pixels aren't square: PixelAspectRatio 2:1 (rows:columns), left as stored" in meta["steps"]
    assert not any("square" in step for step in _read(tmp_path, PixelAspectRatio=[3, 3])["steps"])
