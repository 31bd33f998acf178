"""What holds for every data set: folders, resuming, masks, the summary."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxw_monai.data.manifest import read_datalist, read_records
from cxw_monai.data.schema import Record
from cxw_monai.datasets import datasets, format_counts, prepare_dataset
from cxw_monai.datasets.common import Job, view_name, years
from cxw_monai.datasets.made_files import MaskFile, store_films, write_masks
from cxw_monai.datasets.prepare import summarise
from cxw_monai.io.files.csv_files import read_rows
from cxw_monai.io.results import folders

OURS = {"mimic_cxr", "chexpert", "nih", "vindr_cxr", "rsna_pneumonia", "siim_acr", "chestdr", "folder"}


def test_every_data_set_is_described():
    assert set(datasets()) >= OURS
    for name, dataset in datasets().items():
        assert dataset.name == name
        assert all(getattr(dataset, fact) for fact in ("title", "url", "terms", "split", "makes"))
        assert all(not option.choices or option.default in option.choices for option in dataset.options)


@pytest.fixture
def films(put):
    for n in range(5):
        put(f"{n}.png")


@pytest.mark.parametrize("out", [".", "inner", "../published", ".."])
def test_out_may_not_be_in_the_published_folder_or_around_it(films, root, out):
    before = sorted(root.rglob("*"))
    with pytest.raises(ValueError, match="output folder must not be in"):
        prepare_dataset("folder", root, root / out)
    assert sorted(root.rglob("*")) == before


def test_out_may_not_be_reached_through_a_link(films, root, tmp_path):
    (tmp_path / "link").symlink_to(root)
    with pytest.raises(ValueError, match="output folder must not be in"):
        prepare_dataset("folder", root, tmp_path / "link" / "prepared")


def test_other_folders_are_not_written_over(films, root, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "manifest.csv").write_text("mine")
    with pytest.raises(ValueError, match="thesis: holds other files"):
        prepare_dataset("folder", root, tmp_path / "thesis")
    assert (tmp_path / "thesis" / "manifest.csv").read_text() == "mine"
    prepare_dataset("folder", root, tmp_path / "out")
    with pytest.raises(ValueError, match="holds the data set 'folder'; give another folder for 'nih'"):
        prepare_dataset("nih", root, tmp_path / "out")


def test_a_failed_run_that_made_nothing_leaves_nothing(root, tmp_path):
    with pytest.raises(FileNotFoundError, match="no Data_Entry_2017_v2020.csv or Data_Entry_2017.csv"):
        prepare_dataset("nih", root, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="no data set 'nhi'; one of .*nih"):
        prepare_dataset("nhi", root, tmp_path / "out")
    with pytest.raises(ValueError, match="nowhere: no such folder"):
        prepare_dataset("nih", tmp_path / "nowhere", tmp_path / "out")


def test_a_run_that_broke_off_is_resumed(put, root, tmp_path):
    rows = "".join(f"{n},0 {n}\n" for n in range(1, 6))
    put("train-rle.csv", "ImageId,EncodedPixels\n" + rows + "6,0 999\n")
    for n in range(1, 7):
        put(f"dicom-images-train/{n}.dcm", PatientID=f"p{n}")
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="6: a run lies outside"):
        prepare_dataset("siim_acr", root, out, workers=1)
    assert json.loads((out / "summary.json").read_text()) == {"dataset": "siim_acr", "complete": False}
    mask = out / "masks/pneumothorax/5.png"
    before = mask.stat().st_mtime_ns
    put("train-rle.csv", "ImageId,EncodedPixels\n" + rows.replace("1,0 1\n", "1,0 9\n") + "6,0 6\n")
    prepare_dataset("siim_acr", root, out)
    assert mask.stat().st_mtime_ns == before  # whole and of the same run lengths: kept
    assert np.asarray(Image.open(out / "masks/pneumothorax/1.png")).sum() == 9 * 255  # of others: made anew
    assert json.loads((out / "summary.json").read_text())["complete"] is True


def test_paths_absolute_or_relative(put, root, tmp_path):
    put("train-rle.csv", "ImageId,EncodedPixels\n" + "".join(f"{n},0 2\n" for n in range(5)))
    for n in range(5):
        put(f"dicom-images-train/{n}.dcm", PatientID=f"p{n}")
    prepare_dataset("siim_acr", root, tmp_path / "out")
    record = next(read_records(tmp_path / "out/manifest.csv"))
    assert Path(record.image).is_absolute() and record.masks["pneumothorax"].startswith("masks/pneumothorax/")
    prepare_dataset("siim_acr", root, tmp_path / "out", relative=True)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("published", "out"):
        (tmp_path / name).rename(moved / name)
    items = read_datalist(moved / "out/datalist.json", section="all")
    assert len(items) == 5 and all(Path(item["mask_pneumothorax"]).is_file() for item in items)
    assert all(item["image"].startswith(str(moved / "published")) for item in items)


def test_masks_must_be_planes(tmp_path):
    job = Job(tmp_path, tmp_path / "out")
    with pytest.raises(ValueError, match=r"a mask is \[H, W\], got the shape \(2, 2, 3\)"):
        write_masks(job, [MaskFile("masks/a/1.png", lambda: np.ones((2, 2, 3)), "k")])


def test_hold_out_moves_whole_patients(tmp_path):
    records = [Record(f"/{n}.png", patient_id=f"p{n % 10}", split="training") for n in range(40)]
    Job(tmp_path, tmp_path / "out", seed=1, validation=0.3).hold_out(records)
    moved = {record.patient_id for record in records if record.split == "validation"}
    assert len(moved) == 3
    assert all((record.patient_id in moved) == (record.split == "validation") for record in records)


@pytest.mark.parametrize(("text", "view"), [("pa", "PA"), ("LL", "LAT"), (" lateral", "LAT"), ("", None), (None, None)])
def test_view_names(text, view):
    assert view_name(text) == view


@pytest.mark.parametrize(
    ("text", "age"),
    [("058Y", 58), ("58", 58), ("006M", 0.5), ("073D", 0.2), ("000Y", None), ("414", None), ("", None), ("Y", None)],
)
def test_ages(text, age):
    assert years(text) == age


def test_summary_counts():
    records = [
        Record("a", patient_id="1", split="training", sex="F", labels={"x": 1, "bone_age_months": 94.5}),
        Record("b", patient_id="1", split="training", view="PA", labels={"x": 0}, masks={"heart": "m"}, boxes=[]),
        Record("c", split="test", labels={"x": 1}, landmarks={"apex": (1, 2)}),
    ]
    counts = summarise(records)
    assert counts["training"] == {
        "images": 2,
        "patients": 1,
        "sex": {"F": 1, "unknown": 1},
        "view": {"PA": 1, "unknown": 1},
        "boxes": 0,
        "masks": {"heart": 1},
        "landmarks": {},
        "labels": {"x": {"0": 1, "1": 1}, "bone_age_months": {"values": 1}},
    }
    assert list(counts) == ["training", "test"] and counts["test"]["patients"] is None
    text = format_counts(
        {"title": "T", "split": "s", "counts": counts, "missing_images": 3, "notes": ["one"]}
    ).splitlines()
    assert "label x                1 of 2    1 of 1" in text and "label bone_age_months  1 values  -" in text
    assert text[-2:] == ["note: 3 listed images aren't there: left out", "note: one"]


def test_a_second_run_into_the_same_folder_is_refused(films, root, tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "_PATIENCE", 0.0)
    with (
        folders.output_lock(tmp_path / "out"),
        pytest.raises(folders.OutputBusyError, match="out: another run"),
    ):
        prepare_dataset("folder", root, tmp_path / "out")
    prepare_dataset("folder", root, tmp_path / "out")  # what the refused run left is in nobody's way
    assert len(list(read_records(tmp_path / "out" / "manifest.csv"))) == 5


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems refuse such names")
def test_names_that_no_manifest_can_hold_are_left_out_and_counted(films, put, root, tmp_path):
    put("f\udcff.png")
    put("=1.png")
    summary = prepare_dataset("folder", root, tmp_path / "out")
    assert summary["left_out"]["films"] == 1
    with (tmp_path / "out" / "left_out.csv").open(newline="", encoding="utf-8") as stream:
        (left_out,) = read_rows(stream)
    assert "f\\udcff.png" in left_out["path"] and left_out["reason"] == "its name is not UTF-8"
    for manifest in ("manifest.csv", "datalist.json"):
        items = read_datalist(tmp_path / "out" / manifest, section="all")
        assert sorted(item["image"] for item in items) == sorted(
            str(root / n) for n in ["=1.png", *(f"{i}.png" for i in range(5))]
        )


def test_a_film_in_the_place_of_another_is_stored_again(tmp_path):
    """Of the same name, size and time of change: content tells them apart."""
    job = Job(tmp_path, tmp_path / "out")
    source = tmp_path / "a.raw"
    for value in (7, 9):
        source.write_bytes(bytes([value] * 64))
        os.utime(source, ns=(0, 0))
        record = Record(str(source))
        store_films(job, {"a.png": record}, lambda path, v=value: np.full((8, 8), v, np.uint8), "raw")
        assert np.asarray(Image.open(record.image)).max() == value
    kept = Path(record.image).stat().st_mtime_ns
    store_films(job, {"a.png": Record(str(source))}, lambda path: pytest.fail("made again"), "raw")
    assert Path(record.image).stat().st_mtime_ns == kept
