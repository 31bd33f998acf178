"""CheXmask: masks joined onto another manifest."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxw_monai.data.manifest import read_records, write_csv
from cxw_monai.data.schema import Record
from cxw_monai.data.validation import validate
from cxw_monai.datasets import prepare_dataset

COLUMNS = ["Dice RCA (Mean)", "Dice RCA (Max)", "Landmarks", "Left Lung", "Right Lung", "Heart", "Height", "Width"]
POINTS = ",".join(f"{n},{n + 1}" for n in range(120))  # point n is (n, n + 1), in pixels of the table
# 6 rows of 8 pixels, numbered from 1 along the rows: 11 is row 1, column 2.
LEFT, RIGHT, HEART = "14 2 22 2", "11 2 19 2", "37 3"


def table(path: Path, key: str, rows: dict[str, tuple[float, float]], size: tuple[int, int] = (6, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([key, *COLUMNS])
        for name, (mean, largest) in rows.items():
            writer.writerow([name, mean, largest, POINTS, LEFT, RIGHT, HEART, *size])


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Four films, the second of twice the size, the fourth with a heart mask of its own."""
    folder = tmp_path / "films"
    folder.mkdir()
    records = []
    for number, split in enumerate(("training", "training", "validation", "test"), start=1):
        size = (12, 16) if number == 2 else (6, 8)
        Image.fromarray(np.full(size, number, np.uint8)).save(folder / f"f{number}.png")
        records.append(Record(f"f{number}.png", f"p{number}", split=split, labels={"Edema": 1}))
    Image.fromarray(np.full((6, 8), 255, np.uint8)).save(folder / "own.png")
    records[3].masks["heart"] = "own.png"
    write_csv(folder / "manifest.csv", records)
    return folder / "manifest.csv"


def prepared(manifest: Path, **options) -> tuple[Path, dict[str, Record]]:
    root = manifest.parents[1]
    prepare_dataset("chexmask", root / "chexmask", root / "out", manifest=str(manifest), **options)
    records = list(read_records(root / "out/manifest.csv"))
    validate(records, base_dir=root / "out", check_files=True, check_content=True)
    return root / "out", {str(record.patient_id): record for record in records}


def pixels(path: Path) -> list[list[int]]:
    return np.argwhere(np.asarray(Image.open(path))).tolist()


def test_masks_of_good_quality_are_joined_by_name(manifest: Path):
    rows = {"f1.png": (0.9, 0.95), "f2.png": (0.7, 0.8), "f3.png": (0.9, 0.6), "f4.png": (0.9, 0.9), "x.png": (1, 1)}
    table(manifest.parents[1] / "chexmask/OriginalResolution/ChestX-Ray8.csv", "Image Index", rows)
    out, records = prepared(manifest)
    assert [records[f"p{n}"].split for n in (1, 2, 3, 4)] == ["training", "training", "validation", "test"]
    assert records["p1"].labels == {"Edema": 1} and records["p1"].extra["dice_rca"] == "0.9000"
    assert pixels(out / records["p1"].masks["lung_field_right"]) == [[1, 2], [1, 3], [2, 2], [2, 3]]
    assert pixels(out / records["p1"].masks["lung_field_left"]) == [[1, 5], [1, 6], [2, 5], [2, 6]]
    assert pixels(out / records["p1"].masks["heart"]) == [[4, 4], [4, 5], [4, 6]]
    assert len(pixels(out / records["p2"].masks["heart"])) == 12  # each pixel of the table is 2 x 2 of the film
    assert records["p3"].masks == {} and records["p3"].extra["dice_rca"] == "0.6000"  # the smaller of both columns
    assert Path(records["p4"].masks["heart"]) == manifest.parent / "own.png" and len(records["p4"].masks) == 3


def test_landmarks_are_split_by_organ_and_scaled(manifest: Path):
    table(manifest.parents[1] / "chexmask/VinDr-CXR.csv", "image_id", {"f2": (0.9, 0.9)}, (240, 320))
    Image.fromarray(np.full((120, 160), 3, np.uint8)).save(manifest.parent / "f2.png")
    points = prepared(manifest, landmarks=True)[1]["p2"].landmarks
    assert len(points) == 120
    assert points["lung_right_01"] == (0, 0.5) and points["lung_right_44"] == (21.5, 22)
    assert points["lung_left_01"] == (22, 22.5) and points["heart_01"] == (47, 47.5)
    assert points["heart_26"] == (59.5, 60)


def test_films_are_joined_by_path_where_names_repeat(tmp_path: Path):
    records, rows = [], {}
    for patient in ("patient1", "patient2"):
        path = tmp_path / f"chexpert/train/{patient}/study1/view1_frontal.jpg"
        path.parent.mkdir(parents=True)
        Image.fromarray(np.full((6, 8), int(patient[-1]) * 50, np.uint8)).save(path)
        records.append(Record(str(path), patient))
    rows["CheXpert-v1.0/train/patient2/study1/view1_frontal.jpg"] = (0.9, 0.9)
    write_csv(tmp_path / "films/manifest.csv", records)
    table(tmp_path / "chexmask/CheXpert.csv", "Path", rows)
    out, found = prepared(tmp_path / "films/manifest.csv")
    assert found["patient1"].masks == {} and len(found["patient2"].masks) == 3
    table(tmp_path / "chexmask/CheXpert.csv", "dicom_id", {"view1_frontal": (0.9, 0.9)})
    with pytest.raises(ValueError, match="films of one name"):
        prepared(tmp_path / "films/manifest.csv")


def test_what_does_not_fit_is_an_error(manifest: Path):
    root = manifest.parents[1]
    with pytest.raises(ValueError, match="--manifest"):
        (root / "chexmask").mkdir()
        prepare_dataset("chexmask", root / "chexmask", root / "out")
    with pytest.raises(FileNotFoundError, match="OriginalResolution.*physionet.org"):
        prepared(manifest)
    table(root / "chexmask/Padchest.csv", "ImageID", {"f1.png": (0.9, 0.9)}, (8, 8))
    with pytest.raises(ValueError, match="Padchest.csv, f1.png.*OriginalResolution"):
        prepared(manifest)
    table(root / "chexmask/Padchest.csv", "ImageID", {"other.png": (0.9, 0.9)})
    with pytest.raises(ValueError, match="none of its films is in"):
        prepared(manifest)
    table(root / "chexmask/CheXpert.csv", "Path", {})
    with pytest.raises(ValueError, match="CheXpert.csv, Padchest.csv; give --table"):
        prepared(manifest)


def test_a_damaged_film_is_left_out(manifest: Path):
    rows = {f"f{n}.png": (0.9, 0.95) for n in (1, 2, 3, 4)}
    table(manifest.parents[1] / "chexmask/OriginalResolution/ChestX-Ray8.csv", "Image Index", rows)
    (manifest.parent / "f2.png").write_bytes(b"")
    assert set(prepared(manifest)[1]) == {"p1", "p3", "p4"}
