"""The manifest's two forms, and what validation finds."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from cxw_monai.data.manifest import load_items, read_datalist, read_records, write_csv, write_datalist
from cxw_monai.data.schema import SPLITS, Box, Record, stored_spacing
from cxw_monai.data.validation import validate

RECORDS = [
    Record("b.png", patient_id="2", split="test", labels={"Edema": 0}, boxes=[], extra={"note": "a, b"}),
    Record(
        "a.png",
        patient_id="007",
        study="1",
        view="PA",
        sex="F",
        age=57.5,
        split="training",
        width=8,
        height=6,
        labels={"Edema": 1, "bone_age_months": 94.5},
        boxes=[Box("Mass", 1, 2, 3.5, 4), Box("Nodule, small", 0, 0, 8, 6)],
        masks={"heart": "masks/heart/a.png"},
        landmarks={"carina": (3.25, 0)},
    ),
    Record("c.png", labels={"bone_age_months": 0}),
]
FILE = """\
image,patient_id,study,view,sex,age,split,width,height,label_Edema,label_bone_age_months,\
bbox_xywh,mask_heart,landmark_carina,note
a.png,007,1,PA,F,57.5,training,8,6,1,94.5,"[[""Mass"", 1, 2, 3.5, 4], [""Nodule, small"", 0, 0, 8, 6]]",\
masks/heart/a.png,"[3.25, 0]",
b.png,2,,,,,test,,,0,,[],,,"a, b"
c.png,,,,,,,,,,0,,,,
"""


def test_csv_by_hand(tmp_path):
    write_csv(tmp_path / "m.csv", RECORDS)
    assert (tmp_path / "m.csv").read_text() == FILE
    training, test, unassigned = read_records(tmp_path / "m.csv")
    assert [training, test, unassigned] == [RECORDS[1], RECORDS[0], RECORDS[2]]
    assert test.boxes == [] and unassigned.boxes is None  # none found, and not looked for
    assert "bone_age_months" not in test.labels and unassigned.labels == {"bone_age_months": 0}  # not known, and 0


def test_json_by_hand(tmp_path):
    write_datalist(tmp_path / "m.json", RECORDS, "three")
    content = json.loads((tmp_path / "m.json").read_text())
    assert {k: content[k] for k in ("name", "labels", "masks", "landmarks")} == {
        "name": "three",
        "labels": ["Edema", "bone_age_months"],
        "masks": ["heart"],
        "landmarks": ["carina"],
    }
    assert [len(content[section]) for section in (*SPLITS, "unassigned")] == [1, 0, 1, 1]
    assert content["training"][0]["bbox_xywh"] == [["Mass", 1, 2, 3.5, 4], ["Nodule, small", 0, 0, 8, 6]]
    assert content["training"][0]["label_Edema"] == 1 and content["unassigned"][0]["label_Edema"] is None
    assert len({tuple(item) for s in (*SPLITS, "unassigned") for item in content[s]}) == 1  # the same fields in each


def test_csv_and_json_come_back_to_the_byte(tmp_path):
    write_csv(tmp_path / "1.csv", RECORDS)
    write_datalist(tmp_path / "1.json", list(read_records(tmp_path / "1.csv")), "set")
    write_csv(tmp_path / "2.csv", list(read_records(tmp_path / "1.json")))
    write_datalist(tmp_path / "2.json", list(read_records(tmp_path / "2.csv")), "set")
    assert (tmp_path / "1.csv").read_bytes() == (tmp_path / "2.csv").read_bytes()
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "2.json").read_bytes()


def test_a_set_without_records_or_splits(tmp_path):
    write_datalist(tmp_path / "m.json", [], "none")
    assert list(read_records(tmp_path / "m.json")) == []
    write_csv(tmp_path / "m.csv", [Record("a.png")])
    assert (tmp_path / "m.csv").read_text() == "image\na.png\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path\na.png\n", r"m\.csv: no column 'image' among \['path'\]"),
        ("image,image\na,b\n", "line 1: the column 'image' is there twice"),
        ("image,age\na.png\n", "line 2: not 2 fields like the header, but 1"),
        ("image,label_x\na.png,1\nb.png,yes\n", "line 3: column label_x: cannot read 'yes'"),
        (
            'image,bbox_xywh\na.png,"[[""m"", 1, 2]]"\n',
            r"line 2: a box is \[label, x, y, width, height\], got \['m', 1, 2\]",
        ),
        ("image,landmark_x\na.png,[1]\n", r"line 2: landmark_x must be \[x, y\] of finite numbers"),
        ("image,view\n,PA\n", "line 2: 'image' must be a path"),
    ],
)
def test_malformed_files_name_the_line(tmp_path, text, message):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        list(read_records(tmp_path / "m.csv"))


def test_malformed_json_names_the_item(tmp_path):
    (tmp_path / "m.json").write_text(json.dumps({"test": [{"image": "a.png", "split": "training"}]}))
    with pytest.raises(ValueError, match=r"m\.json, test\[0\]: expected a dictionary whose split is 'test'"):
        list(read_records(tmp_path / "m.json"))
    (tmp_path / "m.json").write_text("[]")
    with pytest.raises(ValueError, match="expected a dictionary with the lists training"):
        list(read_records(tmp_path / "m.json"))


@pytest.mark.parametrize("form", ["csv", "json"])
def test_bundles_read_the_same_items_from_either_form(tmp_path, form):
    for name in "abc":
        (tmp_path / f"{name}.png").touch()
    write_csv(tmp_path / "m.csv", RECORDS)
    write_datalist(tmp_path / "m.json", RECORDS)
    (item,) = load_items(datalist=tmp_path / f"m.{form}", section="training")
    assert item["image"] == str(tmp_path / "a.png") and item["mask_heart"] == str(tmp_path / "masks/heart/a.png")
    assert item["label_Edema"] == 1 and item["landmark_carina"] == [3.25, 0] and item["patient_id"] == "007"
    assert item["bbox_xywh"][0] == ["Mass", 1, 2, 3.5, 4]
    (test,) = read_datalist(tmp_path / f"m.{form}", section="test")
    assert test["mask_heart"] is None and test["bbox_xywh"] == [] and test["label_bone_age_months"] is None
    assert len(read_datalist(tmp_path / f"m.{form}", section="all")) == 3
    with pytest.raises(ValueError, match="no (split|section) 'dev' among"):
        read_datalist(tmp_path / f"m.{form}", section="dev")


def test_without_a_section_all_rows_of_a_csv_are_taken_with_a_warning(tmp_path, caplog):
    for name in "abc":
        (tmp_path / f"{name}.png").touch()
    write_csv(tmp_path / "m.csv", RECORDS)
    assert len(read_datalist(tmp_path / "m.csv")) == 3
    assert "rows of all splits are taken (test, training)" in caplog.text
    write_csv(tmp_path / "whole.csv", [replace(record, split=None) for record in RECORDS])
    assert len(read_datalist(tmp_path / "whole.csv", section="training")) == 3  # it has only one section


GOOD = Record("a.png", patient_id="1", sex="F", age=50, split="training", width=8, height=6, labels={"x": 1})


def test_valid_records_pass():
    edge = replace(GOOD, image="b.png", boxes=[Box("m", 0, 0, 8, 6)], landmarks={"l": (7.5, 5.5)}, age=0)
    validate([GOOD, edge, Record("c.png", split="test"), Record("d.png", split="validation")])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": "./a.png"}, r"\(\./a\.png\): the image is in record 1 already"),
        ({"split": "test"}, r"\(b\.png\): its patient is in test here, and in training in record 1"),
        (
            {"split": "train", "patient_id": None},
            "split must be one of training, validation, test or empty, got 'train'",
        ),
        ({"sex": "female"}, "sex must be M, F, O or empty, got 'female'"),
        ({"age": 414}, "age must be 0 to 125 years, got 414"),
        ({"age": -1}, "age must be"),
        ({"width": 0}, "width must be a whole number of pixels, got 0"),
        ({"height": 6.5}, "height must be a whole number"),
        ({"labels": {"x": -1}}, "label 'x' must be a number from 0, or left out where unknown, got -1"),
        ({"labels": {"x": float("nan")}}, "label 'x' must be a number"),
        ({"boxes": [Box("m", 5, 0, 5, 2)]}, r"box 'm' \[5, 0, 5, 2\] is empty or not within 8 x 6 pixels"),
        ({"boxes": [Box("m", 1, 1, 0, 2)]}, "box 'm' .* is empty"),
        ({"boxes": [Box("m", -3, 1, 4, 2)]}, "box 'm'"),
        ({"landmarks": {"l": (9, 1)}}, r"landmark 'l' \[9, 1\] is not within 8 x 6"),
    ],
)
def test_each_problem_is_found_and_its_record_named(change, message):
    with pytest.raises(ValueError, match=rf"films\.csv: 1 problem in 2 records: record 2.*{message}"):
        validate([GOOD, replace(GOOD, **{"image": "b.png"} | change)], what="films.csv")


def test_many_problems_are_counted_and_the_first_named():
    with pytest.raises(ValueError, match=r"9 problems in 9 records: record 1 .*record 5 .*\(and 4 more\)") as error:
        validate([Record(f"{n}.png", sex="?") for n in range(9)])
    assert "record 6" not in str(error.value)


def test_files_and_contents_are_checked_where_asked_for(tmp_path):
    for name, size in (("a.png", (8, 6)), ("b.png", (8, 6)), ("mask.png", (8, 5))):
        Image.fromarray(np.zeros(size[::-1], np.uint8)).save(tmp_path / name)
    a, b = replace(GOOD, masks={"heart": "mask.png", "lung": "none.png"}), replace(GOOD, image="b.png")
    validate([a, b], base_dir=tmp_path)
    with pytest.raises(
        ValueError, match=r"mask 'heart' has the size \(8, 5\), the image \(8, 6\).*'lung' doesn't exist"
    ):
        validate([a], base_dir=tmp_path, check_files=True)
    with pytest.raises(ValueError, match=r"record 1 \(gone\.png\): the image doesn't exist"):
        validate([replace(GOOD, image="gone.png")], base_dir=tmp_path, check_files=True)
    with pytest.raises(ValueError, match=r"record 2 \(b\.png\): the file has the same bytes as that of record 1"):
        validate([GOOD, b], base_dir=tmp_path, check_content=True)


def test_manifests_made_before_the_schema_are_read(shared_data):
    """Their other columns are kept as text; masks, boxes, sex, age and view are what the schema says."""
    covid = list(read_records(shared_data / "covid_ieee8023_cc/manifest.csv"))
    assert len(covid) == 42 and sum("left_lung" in record.masks for record in covid) == 33
    validate(covid, base_dir=shared_data / "covid_ieee8023_cc", check_files=True)
    nih = list(read_records(shared_data / "nih_cxr14_subset/manifest.csv"))
    with (shared_data / "nih_cxr14_subset/manifest.csv").open(newline="") as stream:
        boxed = sum(bool(row["bbox_xywh"]) for row in csv.DictReader(stream))
    assert len(nih) == 750 and sum(bool(record.boxes) for record in nih) == boxed > 0
    assert nih[0].extra["Edema"] == "1" and nih[0].labels == {}
    validate(nih, base_dir=shared_data / "nih_cxr14_subset", check_content=True)


@pytest.mark.parametrize("cell", ["0", "-1", "wide", "nan", "inf"])
def test_a_spacing_that_is_none_is_refused(cell):
    with pytest.raises(ValueError, match=r"film.png: pixel_spacing_mm is .* a number above 0"):
        stored_spacing({"image": "film.png", "pixel_spacing_mm": cell})
    assert stored_spacing({"image": "film.png", "pixel_spacing_mm": None}) is None
    assert stored_spacing({"image": "film.png", "pixel_spacing_mm": "0.143"}) == (0.143, 0.143)
