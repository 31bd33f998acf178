"""ChestX-Det: labels, boxes and masks."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxw_monai.data.manifest import read_records
from cxw_monai.data.schema import Box
from cxw_monai.data.validation import validate
from cxw_monai.datasets import prepare_dataset
from cxw_monai.datasets.chestx_det import FINDINGS


def square(left: int, top: int, right: int, bottom: int) -> list[list[int]]:
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


TRAIN = [
    {
        "file_name": "36199.png",
        "syms": ["Effusion", "Pleural Thickening", "Effusion"],
        "boxes": [[2, 3, 6, 9], [10, 10, 10, 12], [20, 20, 31, 31]],
        "polygons": [square(2, 3, 6, 9), square(10, 10, 11, 12), square(20, 20, 22, 21)],
    },
    {"file_name": "36200.png", "syms": [], "boxes": [], "polygons": []},
]
TEST = [{"file_name": "36199.png", "syms": ["Mass"], "boxes": [[1, 1, 3, 3]], "polygons": [square(1, 1, 3, 3)]}]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for part, folder, entries in (("train", "train_data/train", TRAIN), ("test", "test", TEST)):
        (root / folder).mkdir(parents=True)
        for number, entry in enumerate(entries):
            film = np.full((32, 32), 40 * number + len(part), np.uint8)
            Image.fromarray(film).save(root / folder / entry["file_name"])
        (root / f"ChestX_Det_{part}.json").write_text(json.dumps(entries))
    return root


def test_rows_by_hand(root: Path):
    out = root.parent / "out"
    summary = prepare_dataset("chestx_det", root, out, validation=0.5)
    records = list(read_records(out / "manifest.csv"))
    validate(records, base_dir=out, check_files=True, check_content=True)
    assert sorted(record.split for record in records) == ["test", "training", "validation"]
    found = {(Path(r.image).parent.name, Path(r.image).stem): r for r in records}
    ill, well, tested = found["train", "36199"], found["train", "36200"], found["test", "36199"]
    assert ill.labels == {name: int(name in ("Effusion", "Pleural_Thickening")) for name in FINDINGS}
    assert ill.boxes == [Box("Effusion", 2, 3, 4, 6), Box("Effusion", 20, 20, 11, 11)]
    assert "train/36199.png: 1 boxes without area left out" in summary["notes"]
    assert set(ill.masks) == {"effusion", "pleural_thickening"}
    mask = np.asarray(Image.open(out / ill.masks["effusion"])) > 0
    expected = np.zeros((32, 32), bool)
    expected[3:10, 2:7] = expected[20:22, 20:23] = True
    assert np.array_equal(mask, expected)
    assert well.boxes == [] and well.masks == {} and set(well.labels.values()) == {0}
    assert tested.split == "test" and tested.masks["mass"] != ill.masks["effusion"]


def test_malformed_and_missing_tables_are_named(root: Path):
    table = root / "ChestX_Det_test.json"
    table.write_text(json.dumps([{**TEST[0], "syms": ["Cold"]}]))
    with pytest.raises(ValueError, match="ChestX_Det_test.json, 36199.png: unknown finding 'Cold'"):
        prepare_dataset("chestx_det", root, root.parent / "out")
    table.write_text(json.dumps([{**TEST[0], "boxes": []}]))
    with pytest.raises(ValueError, match="1 syms, 0 boxes, 1 polygons"):
        prepare_dataset("chestx_det", root, root.parent / "out")
    table.unlink()
    with pytest.raises(FileNotFoundError, match="ChestX_Det_test.json.*github.com/Deepwise"):
        prepare_dataset("chestx_det", root, root.parent / "out")


def test_a_damaged_film_is_left_out(root: Path):
    (root / "train_data/train/36200.png").write_bytes(b"")
    entries = [*TRAIN, {**TRAIN[1], "file_name": "36201.png"}]
    Image.fromarray(np.full((32, 32), 9, np.uint8)).save(root / "train_data/train/36201.png")
    (root / "ChestX_Det_train.json").write_text(json.dumps(entries))
    prepare_dataset("chestx_det", root, root.parent / "out", validation=0.5)
    names = {Path(record.image).name for record in read_records(root.parent / "out/manifest.csv")}
    assert names == {"36199.png", "36201.png"}
