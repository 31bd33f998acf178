"""The writer: masks on the stored grid in every format, and a table that a killed run leaves whole."""

from __future__ import annotations

import csv
import json
import logging
import multiprocessing
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image

from cxw_monai.inference.outputs import SegmentationWriter
from cxw_monai.io import Radiograph, read_radiograph
from cxw_monai.io.structures import definitions
from tests.helpers import dicom_files as _files

STRUCTURES = ("lung_right", "lung_left", "heart")
UIDS = {"StudyInstanceUID": "1.2.3.4", "SeriesInstanceUID": "1.2.3.4.5"}


def _masks(rows: int, columns: int) -> np.ndarray:
    """Ellipses where a film has lungs and heart."""
    y, x = (np.arange(rows)[:, None] + 0.5) / rows, (np.arange(columns) + 0.5) / columns
    ellipses = [(0.4, 0.28, 0.3, 0.15), (0.45, 0.72, 0.3, 0.14), (0.6, 0.55, 0.15, 0.16)]
    return np.stack([((y - a) / c) ** 2 + ((x - b) / d) ** 2 <= 1 for a, b, c, d in ellipses])


def _film(path: Path, rows: int = 120, columns: int = 90, **attributes: object) -> Path:
    grey = np.random.default_rng(3).integers(0, 4000, (rows, columns), dtype=np.uint16)
    if path.suffix == ".dcm":
        return _files.write_dicom(path, grey, bits=12, **{**UIDS, "PatientName": "Secret^Name", **attributes})
    Image.fromarray((grey >> 4).astype(np.uint8)).save(path)
    return path


def _png_masks(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(folder / "masks" / f"{name}.png")) > 127 for name in STRUCTURES])


def _rows(output: Path) -> list[dict[str, str]]:
    with (output / "measurements.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_all_formats_of_a_dicom_film(tmp_path, caplog):
    film = _film(tmp_path / "in.dcm", PixelSpacing=[0.4, 0.2])
    writer = SegmentationWriter(tmp_path / "out", STRUCTURES, [film])
    with caplog.at_level(logging.INFO):
        row = writer.write(read_radiograph(film), _masks(120, 90))
        summary = writer.finish()
    folder = tmp_path / "out" / "in"
    assert writer.folder(film) == folder
    np.testing.assert_array_equal(_png_masks(folder), _masks(120, 90))
    about = json.loads((tmp_path / "out" / "measurements.json").read_text(encoding="utf-8"))
    assert list(about) == list(_rows(tmp_path / "out")[0]) and all(about.values())
    assert about[f"area_mm2_{STRUCTURES[0]}"].endswith(definitions(STRUCTURES)[STRUCTURES[0]])
    for name, mask in zip(STRUCTURES, _masks(120, 90), strict=True):
        image = nib.load(folder / "nifti" / f"{name}.nii.gz")
        np.testing.assert_array_equal(np.asanyarray(image.dataobj)[:, :, 0].T, mask)
        assert np.allclose(image.header.get_zooms()[:2], (0.2, 0.4)) and image.header.get_xyzt_units()[0] == "mm"
    seg = pydicom.dcmread(folder / "segmentation.dcm")
    np.testing.assert_array_equal(seg.pixel_array, _masks(120, 90))
    assert Image.open(folder / "overlay.png").width >= 90
    assert summary == {
        "films": 1,
        "found": dict.fromkeys(STRUCTURES, 1),
        "without_seg": {},
        "without_sr": {},
        "implausible": 0,
    }
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == summary
    (told,) = _rows(tmp_path / "out")
    assert (told["image"], told["folder"], told["spacing_from"], told["seg_note"]) == (
        "in.dcm",
        "in",
        "PixelSpacing",
        "",
    )
    assert told["expected_dice_heart"] == ""  # none was given
    assert float(told["area_mm2_heart"]) == pytest.approx(_masks(120, 90)[2].sum() * 0.08, rel=1e-5)
    assert float(told["cardiothoracic_ratio"]) == pytest.approx(row["cardiothoracic_ratio"], rel=1e-5)
    everything = [str(path) for path in (tmp_path / "out").rglob("*")] + [caplog.text, str(told)]
    assert not any("Secret" in text for text in everything)


def test_a_nifti_keeps_its_axes_in_nifti_and_stands_upright_elsewhere(tmp_path):
    masks = _masks(120, 90)
    film = np.where(masks[0], 200, np.where(masks[2], 90, 10 + np.arange(120)[:, None] % 5)).astype(np.uint8)
    stored = np.ascontiguousarray(film[::-1].T[:, None, :])  # [X, 1, Z], Z upwards: LAS-like coronal
    image = nib.Nifti1Image(stored, np.array([[-0.5, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0.25, 0], [0, 0, 0, 1.0]]))
    image.header.set_xyzt_units("mm")
    nib.save(image, tmp_path / "f.nii")
    radiograph = read_radiograph(tmp_path / "f.nii")
    np.testing.assert_allclose(radiograph.array[0], film / 255, atol=1e-6)
    writer = SegmentationWriter(tmp_path / "out", STRUCTURES, [tmp_path / "f.nii"], ["png", "nifti", "csv", "overlay"])
    row = writer.write(radiograph, radiograph.meta["pixel_map"].restore(masks))
    folder = writer.folder(tmp_path / "f.nii")
    np.testing.assert_array_equal(_png_masks(folder), masks)
    mask = nib.load(folder / "nifti" / "lung_right.nii.gz")
    np.testing.assert_array_equal(mask.affine, image.affine)
    np.testing.assert_array_equal(np.asanyarray(mask.dataobj) == 1, stored == 200)
    assert (row["row_spacing_mm"], row["column_spacing_mm"]) == (0.25, 0.5)
    overlay = np.asarray(Image.open(folder / "overlay.png").convert("L")).astype(float)
    assert overlay[:300, 20:160].mean() > overlay[:300, -160:-20].mean()  # the right lung, at the left, was made bright


def test_what_cannot_have_a_seg_is_told_and_counted(tmp_path, caplog):
    films = [_film(tmp_path / name) for name in ("a.png", "b.png")]
    films.append(_film(tmp_path / "c.dcm", StudyInstanceUID=""))
    writer = SegmentationWriter(tmp_path / "out", STRUCTURES, films)
    for film in films:
        writer.write(read_radiograph(film), _masks(120, 90))
    reasons = list(writer.finish()["without_seg"].items())
    assert [number for _, number in reasons] == [2, 1]
    assert "not a DICOM file" in reasons[0][0] and "no StudyInstanceUID" in reasons[1][0]
    assert sum(record.levelname == "WARNING" for record in caplog.records) == 2  # once a reason
    assert [row["seg_note"] for row in _rows(tmp_path / "out")] == [reasons[0][0]] * 2 + [reasons[1][0]]
    assert not list((tmp_path / "out").rglob("segmentation.dcm"))


def test_only_the_formats_asked_for(tmp_path):
    film = _film(tmp_path / "a.png")
    SegmentationWriter(tmp_path / "out", STRUCTURES, [film], ["png"]).write(read_radiograph(film), _masks(120, 90))
    assert sorted(path.name for path in (tmp_path / "out").rglob("[!.]*.*")) == sorted(f"{s}.png" for s in STRUCTURES)


def test_a_run_is_resumed_after_a_row_was_cut_off(tmp_path):
    films = [_film(tmp_path / f"{name}.png") for name in "abc"]
    masks = _masks(120, 90)
    writer = SegmentationWriter(tmp_path / "out", STRUCTURES, films, ["csv"])
    for film in films[:2]:
        writer.write(read_radiograph(film), masks)
    table = tmp_path / "out" / "measurements.csv"
    whole = table.read_bytes()
    table.write_bytes(whole[:-20])
    again = SegmentationWriter(tmp_path / "out", STRUCTURES, films, ["csv"], resume=True)
    assert [again.is_written(film) for film in films] == [True, False, False]
    for film in films[1:]:
        again.write(read_radiograph(film), masks)
    again.write(read_radiograph(films[0]), masks)  # a film written twice has one row
    assert sorted(row["image"] for row in _rows(tmp_path / "out")) == ["a.png", "b.png", "c.png"]
    assert table.read_bytes().startswith(whole.split(b"\n")[0])
    SegmentationWriter(tmp_path / "out", STRUCTURES, films, ["csv"])
    assert _rows(tmp_path / "out") == []  # without resume it begins anew
    with pytest.raises(ValueError, match="has other columns"):
        SegmentationWriter(tmp_path / "out", ["heart"], films, ["csv"], resume=True)


@pytest.mark.parametrize(
    "gone", ["masks/heart.png", "nifti/lung_left.nii.gz", "segmentation.dcm", "overlay.png", "masks/*", "*"]
)
def test_a_film_whose_files_are_gone_is_done_again(tmp_path, caplog, gone):
    films = [_film(tmp_path / "a.dcm"), _film(tmp_path / "b.dcm"), _film(tmp_path / "c.png")]
    writer = SegmentationWriter(tmp_path / "out", STRUCTURES, films)
    for film in films:
        writer.write(read_radiograph(film), _masks(120, 90))
    for file in [file for file in (tmp_path / "out" / "b").rglob("*") if file.is_file()]:
        if file.relative_to(tmp_path / "out" / "b").match(gone):
            file.unlink()
    again = SegmentationWriter(tmp_path / "out", STRUCTURES, films, resume=True)
    with caplog.at_level(logging.INFO):
        assert [again.is_written(film) for film in films] == [True, False, True]  # of a PNG there is no SEG
    (told,) = [record.getMessage() for record in caplog.records if "done again" in record.getMessage()]
    assert "is missing" in told and told.endswith("b.dcm") and ("more" in told) == (gone in ("masks/*", "*"))
    again.write(read_radiograph(films[1]), _masks(120, 90))
    assert again.is_written(films[1]) and len(_rows(tmp_path / "out")) == 3


def test_a_format_that_is_asked_for_later_is_written(tmp_path):
    film = _film(tmp_path / "a.dcm")
    SegmentationWriter(tmp_path / "out", STRUCTURES, [film], ["csv"]).write(read_radiograph(film), _masks(120, 90))
    for formats in (["csv", "png"], ["csv", "seg"]):
        assert not SegmentationWriter(tmp_path / "out", STRUCTURES, [film], formats, resume=True).is_written(film)
    assert SegmentationWriter(tmp_path / "out", STRUCTURES, [film], ["csv"], resume=True).is_written(film)


def _write_for_ever(output: Path, films: list[Path]) -> None:
    writer = SegmentationWriter(output, ["heart"], films, ["png", "csv"])
    while True:
        for film in films:
            writer.write(read_radiograph(film), np.ones((1, 20, 20), bool))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="starts its victim by fork")
def test_a_killed_run_leaves_whole_rows_and_whole_files(tmp_path):
    films = [_film(tmp_path / f"{number:04d}.png", 20, 20) for number in range(200)]
    table = tmp_path / "out" / "measurements.csv"
    victim = multiprocessing.get_context("fork").Process(target=_write_for_ever, args=(tmp_path / "out", films))
    victim.start()
    deadline = time.monotonic() + 600
    while not (table.is_file() and table.read_bytes().count(b"\n") > 40):
        assert victim.is_alive() and time.monotonic() < deadline
        time.sleep(0.01)
    victim.kill()
    victim.join()
    rows = _rows(tmp_path / "out")
    assert len(rows) >= 40 and all(row["area_px_heart"] == "400" for row in rows)
    for row in rows:
        assert np.asarray(Image.open(tmp_path / "out" / row["folder"] / "masks" / "heart.png")).sum() == 400 * 255


def test_wrong_arguments_are_named(tmp_path):
    film = _film(tmp_path / "a.png")
    with pytest.raises(ValueError, match="formats must be some of"):
        SegmentationWriter(tmp_path, STRUCTURES, [film], ["pdf"])
    with pytest.raises(ValueError, match="resume needs the format 'csv'"):
        SegmentationWriter(tmp_path, STRUCTURES, [film], ["png"], resume=True)
    writer = SegmentationWriter(tmp_path / "out", STRUCTURES, [film], ["png"])
    radiograph = read_radiograph(film)
    for masks, message in (
        (_masks(120, 90)[:2], r"masks must be bool \[3, 120, 90\], got bool of shape \(2, 120, 90\)"),
        (_masks(120, 90) * np.uint8(255), r"masks must be bool \[3, 120, 90\], got uint8"),
        (_masks(90, 120), r"masks must be bool \[3, 120, 90\], got bool of shape \(3, 90, 120\)"),
    ):
        with pytest.raises(ValueError, match=message):
            writer.write(radiograph, masks)
    other = Radiograph(radiograph.array, {**radiograph.meta, "path": str(tmp_path / "b.png")})
    with pytest.raises(ValueError, match="is not one of the 1 sources"):
        writer.write(other, _masks(120, 90))
