"""MURA: labels of studies, patients and splits."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxw_monai.datasets import prepare_dataset
from tests.helpers.prepared import prepared_records

STUDIES = {  # folder: (label, films)
    "train/XR_SHOULDER/patient00001/study1_positive": (1, 3),
    "train/XR_ELBOW/patient00001/study1_negative": (0, 1),
    "train/XR_HAND/patient00002/study1_negative": (0, 2),
    "train/XR_WRIST/patient00003/study2_positive": (1, 1),
    "valid/XR_WRIST/patient11185/study1_positive": (1, 2),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root, shade = tmp_path / "root", 0
    (root / "MURA-v1.1").mkdir(parents=True)
    for part in ("train", "valid"):
        films, studies = [], []
        for folder, (label, count) in STUDIES.items():
            if folder.startswith(part):
                studies.append(f"MURA-v1.1/{folder}/,{label}")
                films += [f"MURA-v1.1/{folder}/image{n}.png" for n in range(1, count + 1)]
        films.append(films[0].replace("image1", "._image1"))  # as written by macOS; not on the disk
        (root / f"MURA-v1.1/{part}_image_paths.csv").write_text("\n".join(films) + "\n")
        (root / f"MURA-v1.1/{part}_labeled_studies.csv").write_text("\n".join(studies) + "\n")
        for film in films[:-1]:
            shade += 10
            (root / film).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((20, 20), shade, np.uint8)).save(root / film)
    return root


def test_rows_by_hand(root: Path):
    records = prepared_records("mura", root, validation=0.34)
    assert len(records) == 9
    by_study = {record.study: record for record in records}
    assert {study: record.labels["abnormal"] for study, record in by_study.items()} == {
        "patient00001_shoulder_study1": 1,
        "patient00001_elbow_study1": 0,
        "patient00002_hand_study1": 0,
        "patient00003_wrist_study2": 1,
        "patient11185_wrist_study1": 1,
    }
    assert {record.extra["anatomy"] for record in records} == {"shoulder", "elbow", "hand", "wrist"}
    assert {record.patient_id for record in records if record.split == "test"} == {"patient11185"}
    held = {record.patient_id for record in records if record.split == "validation"}
    assert len(held) == 1 and held < {"patient00001", "patient00002", "patient00003"}


def test_lists_that_do_not_agree_are_named(root: Path):
    table = root / "MURA-v1.1/valid_labeled_studies.csv"
    table.write_text("MURA-v1.1/valid/XR_WRIST/patient11186/study1_positive/,1\n")
    with pytest.raises(ValueError, match="valid_image_paths.csv.*isn't in valid_labeled_studies.csv"):
        prepare_dataset("mura", root, root.parent / "out")
    table.write_text("MURA-v1.1/valid/XR_WRIST/patient11185/study1_positive/,2\n")
    with pytest.raises(ValueError, match="label must be 0 or 1, got '2'"):
        prepare_dataset("mura", root, root.parent / "out")
    table.unlink()
    with pytest.raises(FileNotFoundError, match="valid_labeled_studies.csv.*stanfordmlgroup"):
        prepare_dataset("mura", root, root.parent / "out")
