"""VinDr-RibCXR: a mask per rib."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxw_monai.data.manifest import read_records
from cxw_monai.data.validation import validate
from cxw_monai.datasets import prepare_dataset
from cxw_monai.datasets.vindr_ribcxr import RIBS


def outline(row: float, column: float) -> list[dict[str, float]]:
    return [{"x": column + dx, "y": row + dy} for dx, dy in ((0, 0), (3, 0), (3, 1), (0, 1))]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three training films and two for validation; the right tenth rib isn't outlined in the latter."""
    root = tmp_path / "root"
    for part, count in (("train", 3), ("val", 2)):
        (root / f"data/{part}/img").mkdir(parents=True)
        content: dict = {"img": {}, **{rib: {} for rib in RIBS}}
        for number in range(count):
            name = f"VinDr_RibCXR_{part}_{number:03d}.png"
            content["img"][str(number)] = f"data/{part}/img/{name}"
            film = np.full((60, 40), 20 * number + len(part), np.uint8)
            Image.fromarray(film).save(root / f"data/{part}/img/{name}")
            for place, rib in enumerate(RIBS):
                if part == "train" or rib != "R10":
                    column = 2 if rib[0] == "R" else 30
                    content[rib][str(number)] = outline(2.4 + 2 * place + number, column + 0.3)
        (root / f"data/{part}/Vindr_RibCXR_{part}_mask.json").write_text(json.dumps(content))
    return root


def test_masks_rib_by_rib_and_the_published_validation_films_are_the_test(root: Path):
    out = root.parent / "out"
    summary = prepare_dataset("vindr_ribcxr", root, out, validation=0.3)
    records = {Path(record.image).stem: record for record in read_records(out / "manifest.csv")}
    validate(records.values(), base_dir=out, check_files=True, check_content=True)
    splits = [records[name].split for name in sorted(records)]
    assert sorted(splits[:3]) == ["training", "training", "validation"] and splits[3:] == ["test", "test"]
    first, tested = records["VinDr_RibCXR_train_000"], records["VinDr_RibCXR_val_001"]
    assert list(first.masks) == [f"rib_{side}_{n}" for side in ("right", "left") for n in range(1, 11)]
    assert "rib_right_10" not in tested.masks and len(tested.masks) == 19
    assert "2 of 100 ribs have no outline: no mask" in summary["notes"]
    for record, rib, row, column in [(first, "rib_right_2", 4, 2), (tested, "rib_left_1", 23, 30)]:
        mask = np.asarray(Image.open(out / record.masks[rib])) > 0
        assert mask.shape == (60, 40) and np.argwhere(mask).min(0).tolist() == [row, column] and mask.sum() == 8


def test_missing_and_malformed_tables_are_named(root: Path):
    table = root / "data/val/Vindr_RibCXR_val_mask.json"
    table.write_text('{"img": {}}')
    with pytest.raises(ValueError, match="Vindr_RibCXR_val_mask.json: no R1, R2"):
        prepare_dataset("vindr_ribcxr", root, root.parent / "out")
    table.unlink()
    with pytest.raises(FileNotFoundError, match="Vindr_RibCXR_val_mask.json.*vindr.ai"):
        prepare_dataset("vindr_ribcxr", root, root.parent / "out")


def test_a_damaged_film_is_left_out(root: Path):
    (root / "data/train/img/VinDr_RibCXR_train_001.png").write_bytes(b"")
    prepare_dataset("vindr_ribcxr", root, root.parent / "out", validation=0.5)
    names = {Path(record.image).stem for record in read_records(root.parent / "out/manifest.csv")}
    assert len(names) == 4 and "VinDr_RibCXR_train_001" not in names
