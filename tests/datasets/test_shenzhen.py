"""Shenzhen: labels, people and splits of a small tree."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxw_monai.data.schema import Record
from tests.helpers.prepared import prepared_records

READINGS = {
    "CHNCXR_0001_0": ("male 45yrs\nnormal", "M", 45),
    "CHNCXR_0002_0": ("femal 32yrs\nnormal", "F", 32),
    "CHNCXR_0003_0": ("male 18month\nnormal", "M", 1.5),
    "CHNCXR_0004_1": ("Female,60 yrs\r\nright PTB", "F", 60),
    "CHNCXR_0005_1": ("", None, None),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    base = tmp_path / "root" / "ChinaSet_AllFiles"
    for folder in ("CXR_png", "ClinicalReadings"):
        (base / folder).mkdir(parents=True)
    (tmp_path / "root" / "mask").mkdir()
    for number, (name, (reading, _, _)) in enumerate(READINGS.items()):
        Image.fromarray(np.full((20, 24), 10 * number, np.uint8)).save(base / f"CXR_png/{name}.png")
        (base / f"ClinicalReadings/{name}.txt").write_text(reading)
    mask = np.zeros((20, 24), np.uint8)
    mask[5:9, 2:4] = 255
    Image.fromarray(mask).save(tmp_path / "root/mask/CHNCXR_0002_0_mask.png")
    return tmp_path / "root"


def prepared(root: Path, **options) -> dict[str, Record]:
    records = prepared_records("shenzhen", root, **options)
    return {Path(record.image).stem: record for record in records}


def test_every_film_is_there_once_with_its_label_sex_and_age(root: Path):
    records = prepared(root)
    assert set(records) == set(READINGS)
    for name, (_, sex, age) in READINGS.items():
        assert records[name].labels == {"tuberculosis": int(name[-1])}
        assert (records[name].sex, records[name].age, records[name].patient_id) == (sex, age, name[:-2])
    # 5 films: 134/662 of them is 1, and 65/528 of the other 4 is 0.5, at least 1.
    splits = [record.split for record in records.values()]
    assert sorted(splits) == ["test", "training", "training", "training", "validation"]


def test_only_films_with_a_published_mask_have_one(root: Path):
    records = prepared(root)
    assert {name for name, record in records.items() if record.masks} == {"CHNCXR_0002_0"}
    mask = np.asarray(Image.open(root.parent / "out" / records["CHNCXR_0002_0"].masks["lung_fields"]))
    assert mask.shape == (20, 24) and set(np.unique(mask)) == {0, 255}
    assert np.argwhere(mask).min(0).tolist() == [5, 2] and (mask > 0).sum() == 8
    assert set(records["CHNCXR_0002_0"].masks) == {"lung_fields"}  # one part: which lung it is isn't known


def test_lungs_that_do_not_touch_are_taken_apart_by_the_patients_sides(root: Path):
    mask = np.zeros((20, 24), np.uint8)
    mask[5:15, 2:9] = mask[4:16, 14:22] = 255
    Image.fromarray(mask).save(root / "mask/CHNCXR_0003_0_mask.png")
    masks = prepared(root)["CHNCXR_0003_0"].masks
    found = {name: np.asarray(Image.open(root.parent / "out" / path)) > 0 for name, path in masks.items()}
    assert set(found) == {"lung_fields", "lung_field_left", "lung_field_right"}
    assert np.flatnonzero(found["lung_field_right"].any(axis=0)).tolist() == [*range(2, 9)]  # the patient's right
    assert np.flatnonzero(found["lung_field_left"].any(axis=0)).tolist() == [*range(14, 22)]
    assert (found["lung_field_left"] | found["lung_field_right"]).tolist() == found["lung_fields"].tolist()


def test_published_lists_decide_the_split_and_what_is_left_out(root: Path):
    lists = root.parent / "lists"
    lists.mkdir()
    (lists / "Shenzhen_train_data.txt").write_text("CXR_png/CHNCXR_0001_0.png,0\nCXR_png/CHNCXR_0004_1.png,1\n")
    (lists / "Shenzhen_val_data.txt").write_text("CHNCXR_0002_0.png 0\n")
    (lists / "Shenzhen_test_data.txt").write_text("CHNCXR_0003_0.png 0\nCHNCXR_0003_0.png 0\n")
    records = prepared(root, split_lists=str(lists))
    assert {name[7:11]: record.split for name, record in records.items()} == {
        **{"0001": "training", "0004": "training", "0002": "validation", "0003": "test"}
    }
    (lists / "Shenzhen_test_data.txt").write_text("CHNCXR_0002_0.png 0\n")
    with pytest.raises(ValueError, match="CHNCXR_0002_0 is in validation already"):
        prepared(root, split_lists=str(lists))


def test_a_missing_folder_is_named_with_where_it_is_published(root: Path):
    (root / "ChinaSet_AllFiles/ClinicalReadings").rename(root / "elsewhere")
    with pytest.raises(FileNotFoundError, match="ClinicalReadings.*data.lhncbc.nlm.nih.gov"):
        prepared(root)


def test_a_damaged_mask_is_left_out_and_its_film_stays(root: Path):
    (root / "mask/CHNCXR_0002_0_mask.png").write_bytes(b"\x89PNG")
    records = prepared(root)
    assert set(records) == set(READINGS) and not any(record.masks for record in records.values())
    assert "mask,masks/lung_fields/CHNCXR_0002_0.png," in (root.parent / "out/left_out.csv").read_text()
