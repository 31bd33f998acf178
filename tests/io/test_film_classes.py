"""What is no film: DICOM objects of other kinds, masks and maps of labels."""

from __future__ import annotations

import logging
from datetime import datetime
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.uid import UID_dictionary

from cxw_monai.io import RadiographError, read_radiograph
from cxw_monai.io.dicom.film_classes import FILM_CLASSES
from cxw_monai.io.results.dicom_seg import write_dicom_seg
from cxw_monai.io.results.mask_files import write_nifti_masks, write_png_masks
from tests.helpers import dicom_files as _files

FILM = np.random.default_rng(1).integers(0, 4096, (24, 32)).astype(np.uint16)
FILM[0, 0] = 4095
STORAGE = "1.2.840.10008.5.1.4.1.1."
SC = STORAGE + "7"


def _reason(path: Path | str) -> str:
    with pytest.raises(RadiographError) as caught:
        read_radiograph(path)
    return caught.value.reason


@pytest.mark.parametrize(
    "kind",
    [
        "1",
        "1.1",
        "1.1.1",
        "1.2",
        "1.2.1",
        "1.3",
        "1.3.1",
        "7",
        "7.2",
        "7.3",
        "12.1",
        "12.1.1",
        "12.2",
        "12.2.1",
        "13.1.4",
    ],
)
def test_projections_are_read(tmp_path, kind):
    path = _files.write_dicom(tmp_path / "a.dcm", FILM, bits=12, sop_class=STORAGE + kind)
    assert read_radiograph(path).array.shape == (1, 24, 32)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("2", "CT Image Storage"),
        ("4", "MR Image Storage"),
        ("6.1", "Ultrasound Image Storage"),
        ("7.1", "Multi-frame Single Bit Secondary Capture Image Storage"),
        ("11.1", "Grayscale Softcopy Presentation State Storage"),
        ("13.1.1", "X-Ray 3D Angiographic Image Storage"),
        ("13.1.3", "Breast Tomosynthesis Image Storage"),
        ("20", "Nuclear Medicine Image Storage"),
        ("30", "Parametric Map Storage"),
        ("66.4", "Segmentation Storage"),
        ("77.1.4", "VL Photographic Image Storage"),
        ("128", "Positron Emission Tomography Image Storage"),
        ("481.1", "RT Image Storage"),
        ("481.2", "RT Dose Storage"),
        ("9999", f"SOP class {STORAGE}9999"),
    ],
)
def test_other_objects_are_refused_by_name(tmp_path, kind, name):
    path = _files.write_dicom(tmp_path / "a.dcm", FILM, bits=12, sop_class=STORAGE + kind, Modality="DX")
    assert _reason(path) == f"{name}, which is no radiograph"
    dataset = pydicom.dcmread(path)
    del dataset.SOPClassUID  # the file meta still tells
    dataset.save_as(path)
    assert _reason(path) == f"{name}, which is no radiograph"


def test_the_list_is_of_image_classes_of_the_standard():
    names = [UID_dictionary[uid][0] for uid in FILM_CLASSES]
    assert all("Image Storage" in name for name in names)
    assert not [name for name in names if "3D" in name or "Tomo" in name or "CT" in name.split()]


@pytest.mark.parametrize("sop_class", [None, SC, "1.2.392.200036.9125.1.1.2"])  # none, captured, a vendor's own
@pytest.mark.parametrize(
    ("modality", "is_film"),
    [
        ("CT", False),
        ("SEG", False),
        ("RTDOSE", False),
        ("us ", False),
        ("CR", True),
        ("", True),
        (None, True),
        ("XY", True),
    ],
)
def test_the_modality_decides_where_the_class_does_not(tmp_path, sop_class, modality, is_film):
    attributes = {} if modality is None else {"Modality": modality}
    path = _files.write_dicom(tmp_path / "a.dcm", FILM, bits=12, sop_class=sop_class or SC, **attributes)
    if sop_class is None:
        dataset = pydicom.dcmread(path)
        del dataset.SOPClassUID, dataset.file_meta.MediaStorageSOPClassUID
        dataset.save_as(path, enforce_file_format=False)
    if is_film:
        assert read_radiograph(path).array.shape == (1, 24, 32)
    else:
        assert f"of modality {modality.strip().upper()}, which is no radiograph" in _reason(path)


def test_a_class_of_films_outweighs_an_odd_modality(tmp_path):
    path = _files.write_dicom(tmp_path / "a.dcm", FILM, bits=12, Modality="OT")
    assert read_radiograph(path).array.shape == (1, 24, 32)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("liver_1frame.dcm", "Segmentation Storage"),
        ("rtdose_1frame.dcm", "RT Dose Storage"),
        ("rtdose.dcm", "RT Dose Storage"),
        ("CT_small.dcm", "CT Image Storage"),
        ("MR_small.dcm", "MR Image Storage"),
        ("emri_small.dcm", "Enhanced MR Image Storage"),
        ("gdcm-US-ALOKA-16.dcm", "Ultrasound Image Storage"),
    ],
)
def test_real_objects_of_other_kinds(name, kind):
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"neither pydicom nor pydicom-data brings {name}")
    assert _reason(path) == f"{kind}, which is no radiograph"


def test_what_the_package_writes_is_no_film(tmp_path):
    film = _files.write_dicom(
        tmp_path / "a.dcm",
        FILM,
        bits=12,
        Modality="DX",
        StudyInstanceUID="1.2.3",
        SeriesInstanceUID="1.2.3.4",
    )
    masks = np.zeros((1, 24, 32), dtype=bool)
    masks[0, 5:20, 8:30] = True
    (png,) = write_png_masks(tmp_path, masks, ["heart"])
    (nifti,) = write_nifti_masks(tmp_path, masks, ["heart"], source=film, spacing_mm=None)
    write_dicom_seg(tmp_path / "s.dcm", film, masks, ["heart"], created=datetime(2024, 5, 6))
    assert "black and white" in _reason(png) and "no value above 1 of 255" in _reason(nifti)
    assert "Segmentation Storage" in _reason(tmp_path / "s.dcm")


def _save(path: Path, values: np.ndarray) -> Path:
    if path.name.endswith(".nii.gz"):
        nib.save(nib.Nifti1Image(values.T, np.eye(4)), path)
    else:
        Image.fromarray(values).save(path)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.nii.gz"])
@pytest.mark.parametrize(
    ("levels", "reason"),
    [
        ([0, 1], "no value above 1 of 255"),
        ([0, 255], "only black and white"),
        (range(7), "no value above 6 of 255"),
        (range(32), "no value above 31 of 255"),
    ],
)
def test_masks_and_maps_of_labels_are_refused(tmp_path, name, levels, reason):
    blocks = np.repeat(np.repeat(np.resize(list(levels), (8, 8)), 20, axis=0), 25, axis=1).astype(np.uint8)
    assert reason in _reason(_save(tmp_path / name, blocks))


def test_one_pixel_decides(tmp_path):
    mask = np.zeros((300, 400), np.uint8)  # a sample would not see it
    mask[1:150, 1:] = 255
    mask[77, 33:36] = 100, 120, 140
    assert read_radiograph(_save(tmp_path / "a.png", mask)).array.shape == (1, 300, 400)
    mask[77, 33:36] = 255
    assert "only black and white" in _reason(_save(tmp_path / "a.png", mask))


def test_what_may_be_a_mask_is_told(tmp_path, caplog):
    colours = np.resize([0, 60, 120, 255], (40, 50)).astype(np.uint8)
    soft = np.zeros((100, 100), np.uint8)
    soft[:, 50:] = 255
    soft[::3, 49] = np.arange(34) * 7 + 1
    film = np.random.default_rng(0).integers(0, 255, (40, 50), dtype=np.uint8)
    many = np.resize(np.arange(5) * 60, (100, 99)).astype(np.uint8)
    for values, told in (
        (many, "only 5 grey levels"),
        (colours, "only 4 grey levels"),
        (soft, "nearly all of it is black or white"),
        (film, ""),
    ):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            read_radiograph(_save(tmp_path / "a.png", values))
        assert [told in record.getMessage() for record in caplog.records] == [True] * bool(told)


@pytest.mark.parametrize("size", [(64, 80), (300, 400)])
@pytest.mark.parametrize(
    ("levels", "dtype"), [((0, 128), "u1"), ((0, 200), "u1"), ((100, 150), "u1"), ((0, 1000), "u2"), ((7, 60000), "u2")]
)
def test_two_grey_levels_are_a_mask(tmp_path, size, levels, dtype):
    mask = np.full(size, levels[0], dtype)
    mask[5:20, 8:30] = levels[1]
    reason = "only 2 grey levels in it: a mask or a map" if levels[1] != 1000 else "a map of labels|only 2 grey levels"
    assert any(text in _reason(_save(tmp_path / "a.png", mask)) for text in reason.split("|"))


@pytest.mark.parametrize("levels", [(0, 80, 160), (0, 80, 160, 240)])
def test_four_grey_levels_are_a_map_of_labels_unless_the_image_is_tiny(tmp_path, levels):
    blocks = np.resize(levels, (70, 81)).astype(np.uint8)
    assert f"only {len(levels)} grey levels" in _reason(_save(tmp_path / "a.png", blocks))
    assert read_radiograph(_save(tmp_path / "b.png", blocks[:, :63])).array.shape == (1, 70, 63)


def test_colour_masks_are_refused(tmp_path):
    red = np.zeros((70, 80, 3), np.uint8)
    red[10:50, 20:60, 0] = 255
    assert "only 2 grey levels" in _reason(_save(tmp_path / "a.png", red))
    red[20:30, 65:75, 1] = 200
    red[55:60, 65:75, 2] = 200
    assert "only 4 grey levels" in _reason(_save(tmp_path / "a.png", red))


def test_a_film_whose_window_leaves_two_levels_is_told_so(tmp_path):
    path = _files.write_dicom(tmp_path / "a.dcm", FILM, bits=12)
    with pytest.raises(RadiographError, match="only black and white.*or a wider window"):
        read_radiograph(path, window=(2000, 2))
    assert read_radiograph(path).array.max() == 1
