"""NIH ChestX-ray14 from its published layout."""

from __future__ import annotations

import csv
import json

import pytest

from cxw_monai.data.manifest import read_records
from cxw_monai.data.schema import Box
from cxw_monai.datasets import prepare_dataset
from cxw_monai.datasets.nih import FINDINGS

HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],\n"
)
BOX_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"


@pytest.fixture
def tree(put):
    """Patients 1 to 5 in train_val (patient 1 has two films), 6 and 7 in test; film 8 is in no list."""
    rows = {
        "00000001_000.png": "Cardiomegaly|Emphysema,0,1,57,M,PA",
        "00000001_001.png": "No Finding,1,1,58,M,AP",
        **{f"0000000{n}_000.png": f"No Finding,0,{n},040Y,F,PA" for n in (2, 3, 4, 5)},
        "00000006_000.png": "Infiltration,0,6,414,F,AP",
        "00000007_000.png": "No Finding,0,7,30,M,PA",
        "00000008_000.png": "No Finding,0,8,30,M,PA",
    }
    put("Data_Entry_2017_v2020.csv", HEADER + "".join(f"{n},{r},2500,2048,.17,.17,\n" for n, r in rows.items()))
    for number, name in enumerate(rows):
        put(f"images_00{number % 2 + 1}/images/{name}", size=(512, 256))
    put("train_val_list.txt", "\n".join(list(rows)[:6]))
    put("test_list.txt", "00000006_000.png\r\n00000007_000.png\r\n")
    put("BBox_List_2017.csv", BOX_HEADER + "00000006_000.png,Infiltrate,100.0,200.0,64.0,32.0,,,\n")


def test_rows_boxes_and_official_test(tree, prepare, root, tmp_path):
    films = prepare("nih", validation=0.2)
    first = films["00000001_000.png"]
    assert first.image == str(root / "images_001/images/00000001_000.png")
    assert (first.patient_id, first.view, first.sex, first.age, first.boxes) == ("1", "PA", "M", 57, None)
    assert {name for name, value in first.labels.items() if value} == {"Cardiomegaly", "Emphysema"}
    assert set(first.labels) == {"No Finding", *FINDINGS} and len(FINDINGS) == 14
    assert films["00000001_001.png"].labels["No Finding"] == 1 and films["00000002_000.png"].age == 40
    sixth = films["00000006_000.png"]
    assert sixth.age is None  # 414 years
    assert sixth.boxes == [Box("Infiltration", 50, 50, 32, 8)]  # from 1024 x 1024 to 512 x 256
    assert {name for name, film in films.items() if film.split == "test"} == {"00000006_000.png", "00000007_000.png"}
    held_out = {film.patient_id for film in films.values() if film.split == "validation"}
    assert len(held_out) == 1 and "00000008_000.png" not in films  # one of the five patients of train_val
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["counts"]["test"]["labels"]["Infiltration"] == {"0": 1, "1": 1}
    assert any(note.startswith("1 films of Data_Entry_2017_v2020.csv are in neither") for note in summary["notes"])


def test_validation_is_of_the_wished_size_and_the_seed_decides(tree, prepare):
    """The official loader's slip: its share of the data has no effect."""
    none = prepare("nih", validation=0)
    assert {film.split for film in none.values()} == {"training", "test"}
    most = prepare("nih", validation=0.8)
    assert len({film.patient_id for film in most.values() if film.split == "validation"}) == 4
    draws = {
        frozenset(n for n, film in prepare("nih", validation=0.2, seed=seed).items() if film.split == "validation")
        for seed in range(8)
    }
    assert len(draws) > 1


def test_a_partial_download_is_counted(tree, root, tmp_path, prepare):
    for name in ("00000001_000.png", "00000002_000.png"):
        (root / "images_001/images" / name).unlink()
    with pytest.raises(FileNotFoundError, match=r"2 of 8 images don't exist \(.*00000001_000.png, .*allow-missing"):
        prepare_dataset("nih", root, tmp_path / "out")
    assert len(prepare("nih", allow_missing=True)) == 6
    assert json.loads((tmp_path / "out/summary.json").read_text())["missing_images"] == 2


@pytest.mark.parametrize("name", ["Data_Entry_2017_v2020.csv", "train_val_list.txt", "test_list.txt"])
def test_a_missing_official_file_is_named_with_its_source(tree, root, tmp_path, name):
    (root / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"no {name}.*published at https://nihcc\.app\.box\.com"):
        prepare_dataset("nih", root, tmp_path / "out")


def test_unknown_findings_are_refused(tree, put, root, tmp_path):
    put("Data_Entry_2017_v2020.csv", HEADER + "00000006_000.png,Cold,0,6,50,F,AP,,,,,\n")
    with pytest.raises(ValueError, match="00000006_000.png: unknown finding 'Cold'"):
        prepare_dataset("nih", root, tmp_path / "out")


def test_real_subset_in_the_published_layout(shared_data, root, put, prepare):
    """The subset's films under their published names; every label, sex, age, view and box comes back."""
    with (shared_data / "nih_cxr14_subset/manifest.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    patients = sorted({row["patient_id"] for row in rows})
    test = set(patients[::5])
    (root / "images").mkdir()
    entries, boxes, lists = [HEADER], [BOX_HEADER], {True: [], False: []}
    for row in rows:
        name = f"{row['id']}.png"  # the content is JPEG, as Pillow finds out
        (root / "images" / name).symlink_to(shared_data / "nih_cxr14_subset" / row["image"])
        patient = row["patient_id"].removeprefix("nih_")
        labels = row["finding_labels"] or "No Finding"
        entries.append(f"{name},{labels},0,{patient},{row['age']},{row['sex']},{row['view']},,,,,\n")
        for label, *box in json.loads(row["bbox_xywh"] or "[]"):
            label = {"Infiltration": "Infiltrate"}.get(label, label)
            boxes.append(",".join([name, label, *(str(2 * side) for side in box)]) + ",,,\n")
        lists[row["patient_id"] in test].append(name)
    put("Data_Entry_2017.csv", "".join(entries))
    put("BBox_List_2017.csv", "".join(boxes))
    put("test_list.txt", "\n".join(lists[True]))
    put("train_val_list.txt", "\n".join(lists[False]))
    films = prepare("nih")
    assert len(films) == 750
    for row in rows:
        film = films[f"{row['id']}.png"]
        assert all(film.labels[name] == int(row[name]) for name in FINDINGS)
        assert film.labels["No Finding"] == int(row["no_finding"])
        assert (film.view, film.sex, film.age) == (row["view"], row["sex"], float(row["age"]))
        expected = [
            Box(label.replace("Infiltrate", "Infiltration"), *box)
            for label, *box in json.loads(row["bbox_xywh"] or "[]")
        ]
        assert len(film.boxes or []) == len(expected)
        for ours, theirs in zip(film.boxes or [], expected, strict=True):
            assert ours.label == theirs.label and ours[1:] == pytest.approx(theirs[1:], abs=1e-6)
    assert {film.patient_id for film in films.values() if film.split == "test"} == {
        patient.removeprefix("nih_") for patient in test
    }


def test_manifest_is_the_same_when_run_again(tree, prepare, tmp_path):
    prepare("nih")
    before = (tmp_path / "out/manifest.csv").read_bytes()
    prepare("nih")
    assert (tmp_path / "out/manifest.csv").read_bytes() == before
    assert len(list(read_records(tmp_path / "out/manifest.csv"))) == 8


def test_a_damaged_film_with_boxes_is_left_out(tree, prepare, root):
    path = root / "images_001/images/00000006_000.png"
    path.write_bytes(path.read_bytes()[:20])
    assert "00000006_000.png" not in prepare("nih")
