"""RSNA bone age: the three published parts, or the training films alone."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxw_monai.data.schema import Record
from tests.helpers.prepared import prepared_records

TRAINING = {1377: (180, False), 1378: (12, True), 1379: (94, False), 1380: (120, True), 1381: (82, False)}
VALIDATION = {1386: (168, False), 10018: (36, True)}
TEST = {4360: (168.93, "M"), 4361: (169.65, "F")}


def films(folder: Path, names) -> None:
    folder.mkdir(parents=True)
    for name in names:
        Image.fromarray(np.full((20, 16), name % 251, np.uint8)).save(folder / f"{name}.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """As RSNA publishes it, with the test table saved as CSV."""
    root = tmp_path / "root"
    films(root / "boneage-training-dataset", TRAINING)
    lines = [f"{name},{age},{male}" for name, (age, male) in TRAINING.items()]
    (root / "train.csv").write_text("\n".join(["id,boneage,male", *lines]))
    base = root / "Bone Age Validation Set"
    films(base / "boneage-validation-dataset-1", [1386])
    films(base / "boneage-validation-dataset-2", [10018])
    lines = [f"{name},{str(male).upper()},{age}" for name, (age, male) in VALIDATION.items()]
    (base / "Validation Dataset.csv").write_text("\n".join(["Image ID,male,Bone Age (months)", *lines]))
    films(root / "Bone Age Test Set/Test Set Images", TEST)
    lines = [f"{name},{sex},{age}" for name, (age, sex) in TEST.items()]
    table = root / "Bone Age Test Set/Bone age ground truth.csv"
    table.write_text("\n".join(["Case ID,Sex,Ground truth bone age (months)", *lines]))
    return root


def prepared(root: Path, **options) -> dict[str, Record]:
    records = prepared_records("bone_age", root, **options)
    return {Path(record.image).stem: record for record in records}


def test_the_published_parts_are_the_splits(root: Path):
    records = prepared(root)
    for split, part in (("training", TRAINING), ("validation", VALIDATION), ("test", TEST)):
        for name, (age, sex) in part.items():
            record = records[str(name)]
            assert (record.split, record.labels) == (split, {"bone_age_months": age})
            assert record.sex == ("M" if sex in (True, "M") else "F") and record.age is None
    assert len(records) == 9


def test_training_films_alone_in_a_nested_folder_are_split_by_the_seed(tmp_path: Path):
    root = tmp_path / "kaggle"
    films(root / "boneage-training-dataset/boneage-training-dataset", TRAINING)
    lines = [f"{name},{age},{male}" for name, (age, male) in TRAINING.items()]
    (root / "boneage-training-dataset.csv").write_text("\n".join(["id,boneage,male", *lines]))
    records = prepared(root, training_only=True)
    assert sorted(record.split for record in records.values()) == ["test", *["training"] * 3, "validation"]
    with pytest.raises(FileNotFoundError, match="Validation Dataset.csv.*rsna.org.*--training-only"):
        prepared(root)


def test_tables_that_cannot_be_used_are_named(root: Path):
    table = root / "Bone Age Test Set/Bone age ground truth.csv"
    table.write_text("Case ID,Sex,Ground truth bone age (months)\n4360,X,10\n")
    with pytest.raises(ValueError, match="ground truth.csv, 4360: sex must be M, F, True or False, got 'X'"):
        prepared(root)
    table.write_text("Case ID,Sex\n4360,M\n")
    with pytest.raises(ValueError, match="no boneage or Bone Age"):
        prepared(root)
    table.rename(table.with_suffix(".xlsx"))
    with pytest.raises(ValueError, match="save 'Bone age ground truth.xlsx' as CSV"):
        prepared(root)
