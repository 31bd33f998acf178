"""Montgomery: the patient's sides of the lung masks."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxw_monai.data.manifest import read_records
from cxw_monai.data.validation import validate
from cxw_monai.datasets import format_counts, prepare_dataset

NAMES = ["MCUCXR_0001_0", "MCUCXR_0002_0", "MCUCXR_0103_1", "MCUCXR_0104_1"]
SWAPPED = "MCUCXR_0103_1"  # leftMask holds what is at image left


def lung(columns: slice, rows: slice) -> np.ndarray:
    mask = np.zeros((20, 30), np.uint8)
    mask[rows, columns] = 255
    return mask


@pytest.fixture
def root(tmp_path: Path) -> Path:
    base = tmp_path / "root" / "MontgomerySet"
    for folder in ("CXR_png", "ClinicalReadings", "ManualMask/leftMask", "ManualMask/rightMask"):
        (base / folder).mkdir(parents=True)
    for number, name in enumerate(NAMES):
        Image.fromarray(np.full((20, 30), 10 * number, np.uint8)).save(base / f"CXR_png/{name}.png")
        reading = f"Patient's Sex: {'FM'[number % 2]} \nPatient's Age: 0{20 + number}Y\nnormal\n"
        (base / f"ClinicalReadings/{name}.txt").write_text(reading)
        at_left, at_right = lung(slice(4, 10), slice(5, 15)), lung(slice(20, 26), slice(6, 15))
        left, right = (at_left, at_right) if name == SWAPPED else (at_right, at_left)
        Image.fromarray(left).save(base / f"ManualMask/leftMask/{name}.png")
        Image.fromarray(right).save(base / f"ManualMask/rightMask/{name}.png")
    return tmp_path / "root"


def test_masks_are_on_the_patients_sides_whatever_the_folder_says(root: Path):
    out = root.parent / "out"
    summary = prepare_dataset("montgomery", root, out)
    records = list(read_records(out / "manifest.csv"))
    validate(records, base_dir=out, check_files=True, check_content=True)
    assert sorted(Path(record.image).stem for record in records) == NAMES
    for record in records:
        right, left = (
            np.asarray(Image.open(out / record.masks[f"lung_field_{side}"])) > 0 for side in ("right", "left")
        )
        assert np.argwhere(right).min(0).tolist() == [5, 4] and right.sum() == 60
        assert np.argwhere(left).min(0).tolist() == [6, 20] and left.sum() == 54
    assert "leftMask holds the patient's left lung in 3 of 4 films, else swapped" in summary["notes"]
    by_name = {Path(record.image).stem: record for record in records}
    first, last = by_name["MCUCXR_0001_0"], by_name["MCUCXR_0104_1"]
    assert (first.labels["tuberculosis"], first.sex, first.age, first.patient_id) == (0, "F", 20, "MCUCXR_0001")
    assert (last.labels["tuberculosis"], last.sex, last.age) == (1, "M", 23)
    assert {record.split for record in records} == {"training", "validation", "test"}


@pytest.mark.parametrize("missing", ["ManualMask/rightMask/MCUCXR_0002_0.png", "ClinicalReadings/MCUCXR_0002_0.txt"])
def test_a_missing_file_is_named_with_where_it_is_published(root: Path, missing: str):
    (root / "MontgomerySet" / missing).unlink()
    with pytest.raises(FileNotFoundError, match=f"{missing}.*data.lhncbc.nlm.nih.gov"):
        prepare_dataset("montgomery", root, root.parent / "out")


def test_a_damaged_film_and_a_damaged_mask_are_left_out(root: Path):
    (root / "MontgomerySet/CXR_png/MCUCXR_0001_0.png").write_bytes(b"")
    mask = root / "MontgomerySet/ManualMask/leftMask/MCUCXR_0002_0.png"
    mask.write_bytes(mask.read_bytes()[:40])
    summary = prepare_dataset("montgomery", root, root.parent / "out")
    records = {Path(record.image).stem: record for record in read_records(root.parent / "out/manifest.csv")}
    assert set(records) == set(NAMES[1:]) and summary["left_out"] == {"films": 1, "masks": 1}
    assert records["MCUCXR_0002_0"].masks == {} and set(records[SWAPPED].masks) == {
        "lung_field_left",
        "lung_field_right",
    }
    assert format_counts(summary).endswith("left out: 1 film and 1 mask that can't be read; see left_out.csv")
