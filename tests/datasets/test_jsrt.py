"""JSRT: raw films, folds, nodules and SCR's masks."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxw_monai.data.schema import Box, Record
from cxw_monai.datasets import prepare_dataset
from cxw_monai.io import read_radiograph
from tests.helpers.prepared import prepared_records

# As published: tabs, some records run together, unknown ages.
NODULES = (
    "JPCLN001.IMG\t5\t15\t53\tmale\t1634\t692\tmalignant\tl.upper lobe\tlung cancer\t"
    "JPCLN002.IMG\t4\t70\t?\tfemale\t100\t2000\tbenign\tl.upper lobe(S5)\tpulmonary hematoma\r\n"
    "JPCLN003.IMG\t3\t30\t63\tfemale\t1303\t447\tmalignant\tl.upper lobe(S1+2)\tlung cancer\r\n"
)
NORMAL = "JPCNN001.IMG      58      female   non-nodule\rJPCNN002.IMG      64      male     non-nodule\r"
STRUCTURES = ["heart", "left lung", "right lung", "left clavicle", "right clavicle"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One raw film, four conversions of 512 x 512, and masks of 128 x 128."""
    root = tmp_path_factory.mktemp("jsrt") / "root"
    (root / "All247images").mkdir(parents=True)
    (root / "Clinical_Information").mkdir()
    raw = np.full((2048, 2048), 4095, ">u2")  # black background
    raw[100:200, 300:500] = 0  # bone
    raw[1500, 7:10] = 1000, 1100, 1200
    raw.tofile(root / "All247images/JPCLN001.IMG")
    for number, name in enumerate(["JPCLN002", "JPCLN003", "JPCNN001", "JPCNN002"]):
        Image.fromarray(np.full((512, 512), 50 + number, np.uint8)).save(root / f"All247images/{name}.png")
    (root / "Clinical_Information/CLNDAT_EN.txt").write_text(NODULES, newline="")
    (root / "Clinical_Information/CNNDAT_EN.TXT").write_text(NORMAL, newline="")
    mask = np.zeros((128, 128), np.uint8)
    for number, name in enumerate(["JPCLN001", "JPCLN002", "JPCLN003", "JPCNN001", "JPCNN002"]):
        for place, structure in enumerate(STRUCTURES):
            folder = root / f"scratch/fold{2 - int(name[5:]) % 2}/masks/{structure}"
            folder.mkdir(parents=True, exist_ok=True)
            mask[:] = 0
            mask[10 + number, 20 + place] = 255
            Image.fromarray(mask).save(folder / f"{name}.gif")
    return root


@pytest.fixture(scope="module")
def records(root: Path) -> dict[str, Record]:
    return prepared(root)


def prepared(root: Path, **options) -> dict[str, Record]:
    records = prepared_records("jsrt", root, distinct=False, allow_missing=True, **options)
    return {str(record.patient_id): record for record in records}


def test_a_raw_film_is_stored_with_bone_bright(root: Path, records: dict[str, Record]):
    record = records["JPCLN001"]
    assert record.image == "images/JPCLN001.png"
    film = read_radiograph(root.parent / "out" / record.image).array[0]
    assert film.shape == (2048, 2048)
    assert (film[100:200, 300:500] == 1).all() and film[0, 0] == 0
    assert film[1500, 7] == pytest.approx(3095 / 4095, abs=1e-5)
    assert record.extra["pixel_spacing_mm"] == "0.175"


def test_people_nodules_and_folds(root: Path, records: dict[str, Record]):
    assert set(records) == {"JPCLN001", "JPCLN002", "JPCLN003", "JPCNN001", "JPCNN002"}
    first, second, normal = records["JPCLN001"], records["JPCLN002"], records["JPCNN001"]
    assert (first.sex, first.age) == ("M", 53) and (second.sex, second.age) == ("F", None)
    assert first.labels == {"nodule": 1, "malignant": 1, "nodule_subtlety": 5, "nodule_size_mm": 15}
    # 15 mm are 85.7 px; 70 mm are 400 px, 100 on the conversion, cut off at its left and lower edges.
    assert first.boxes == [Box("nodule", 1591.1, 649.1, 85.7, 85.7)]
    assert second.boxes == [Box("nodule", 0.0, 450.0, 75.0, 62.0)]
    assert second.extra["pixel_spacing_mm"] == "0.7"
    assert normal.labels == {"nodule": 0} and normal.boxes == [] and (normal.sex, normal.age) == ("F", 58)
    tested = {name for name, record in records.items() if record.split == "test"}
    assert tested == {"JPCLN002", "JPCNN002"}
    assert {record.extra["fold"] for name, record in records.items() if name not in tested} == {"1"}
    tested = {name for name, record in prepared(root, test_fold=1).items() if record.split == "test"}
    assert tested == {"JPCLN001", "JPCLN003", "JPCNN001"}


def test_masks_are_put_on_the_films_grid(root: Path, records: dict[str, Record]):
    names = ["heart", "lung_field_left", "lung_field_right", "clavicle_left", "clavicle_right"]
    for number, (name, factor) in enumerate([("JPCLN001", 16), ("JPCLN002", 4)]):
        for place, structure in enumerate(names):
            mask = np.asarray(Image.open(root.parent / "out" / records[name].masks[structure]))
            assert mask.shape == (records[name].height, records[name].width)
            row, column = (10 + number) * factor, (20 + place) * factor
            assert (mask > 0).sum() == factor**2 and mask[row : row + factor, column : column + factor].all()


def test_conversions_with_bone_dark_are_inverted_on_request(root: Path, records: dict[str, Record]):
    assert Path(records["JPCLN002"].image) == root / "All247images/JPCLN002.png"
    inverted = prepared(root, png_bone_dark=True)["JPCLN002"].image
    assert inverted == "images/JPCLN002.png"
    assert np.unique(np.asarray(Image.open(root.parent / "out" / inverted))).tolist() == [205]


def test_missing_and_damaged_files_are_named(root: Path, tmp_path: Path):
    root = shutil.copytree(root, tmp_path / "root")
    with pytest.raises(FileNotFoundError, match="242 of 247 images don't exist.*db.jsrt.or.jp"):
        prepare_dataset("jsrt", root, root.parent / "out")
    (root / "scratch/fold2/masks/heart/JPCLN002.gif").unlink()
    with pytest.raises(FileNotFoundError, match="fold2/masks/heart/JPCLN002.gif.*isi.uu.nl"):
        prepared(root)
    (root / "All247images/JPCLN001.IMG").write_bytes(b"\0" * 100)
    (root / "scratch").rename(root.parent / "elsewhere")
    assert "JPCLN001" not in prepared(root)
    assert "JPCLN001.IMG,not 2048 x 2048 big-endian" in (root.parent / "out/left_out.csv").read_text()
