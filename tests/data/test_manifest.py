"""Finding images, reading manifests, splitting by patient."""

from __future__ import annotations

import hashlib
import json
import logging
import random

import pytest

from cxw_monai.data.manifest import find_images, load_items, read_datalist, split_by_patient
from cxw_monai.io.results.folders import mark


def _touch(folder, *names, content=b"x"):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def test_find_images_takes_images_and_bare_dicom_in_a_fixed_order(tmp_path):
    _touch(tmp_path, "b/2.PNG", "b/10.jpeg", "a.nii.gz", "c.Tif", "d.dcm", "f.nrrd", "notes.txt", "plain")
    _touch(
        tmp_path, ".hidden.png", ".cache/x.png", "masks/lung/a.png", "b/Masks/a.png", "finding_masks/Pneumothorax/a.png"
    )
    dicom = bytes(128) + b"DICM"
    _touch(tmp_path, "e/IM0001", "e/1.2.840.5", content=dicom)
    _touch(tmp_path, "e/report.pdf", content=dicom)
    found = [item["image"] for item in find_images(tmp_path)]
    names = ["a.nii.gz", "b/10.jpeg", "b/2.PNG", "c.Tif", "d.dcm", "e/1.2.840.5", "e/IM0001", "f.nrrd"]
    assert found == [str(tmp_path / name) for name in names]


def test_find_images_follows_a_link_once(tmp_path):
    _touch(tmp_path, "real/a.png")
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "real")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "real")
    assert [item["image"] for item in find_images(tmp_path / "root")] == [str(tmp_path / "root" / "link" / "a.png")]


def test_find_images_follows_no_link_out_to_the_folders_above_and_counts_no_film_twice(tmp_path):
    _touch(tmp_path, "other/b.png", "root/1.png", "away/2.png")
    root = tmp_path / "root"
    (root / "loop").symlink_to(tmp_path)
    (root / "again.png").symlink_to(root / "1.png")
    (root / "2.png").symlink_to(tmp_path / "away" / "2.png")
    assert [item["image"] for item in find_images(root)] == [str(root / "1.png"), str(root / "2.png")]


def test_find_images_says_that_archives_are_not_looked_into(tmp_path, caplog):
    _touch(tmp_path, "a.png", "b/films.zip", "c.tar.gz")
    assert len(find_images(tmp_path)) == 1
    assert "2 archives are not looked into" in caplog.text and "'b/films.zip'" in caplog.text


def test_find_images_wants_a_folder(tmp_path):
    with pytest.raises(ValueError, match="nothing: not a folder"):
        find_images(tmp_path / "nothing")


def test_csv_keeps_other_columns_and_makes_paths_absolute(tmp_path):
    _touch(tmp_path, "set/images/a.png", "other/b.png")
    (tmp_path / "set" / "m.csv").write_text(
        f'\ufeffid,image,age,note\n1,images/a.png,077,"x, y"\n2,{tmp_path}/other/b.png,,\n', encoding="utf-8"
    )
    assert read_datalist(tmp_path / "set" / "m.csv") == [
        {"id": "1", "image": str(tmp_path / "set/images/a.png"), "age": "077", "note": "x, y"},
        {"id": "2", "image": str(tmp_path / "other/b.png"), "age": None, "note": None},
    ]


def test_paths_of_masks_are_those_of_their_manifest(tmp_path):
    _touch(tmp_path, "set/a.png")
    (tmp_path / "set" / "m.csv").write_text("image,mask_heart,finding_mask_Nodule,masked\na.png,h.png,n.png,no.png\n")
    (item,) = read_datalist(tmp_path / "set" / "m.csv")
    assert item["mask_heart"] == str(tmp_path / "set/h.png")
    assert item["finding_mask_Nodule"] == str(tmp_path / "set/n.png")
    assert item["masked"] == "no.png"


def test_json_sections_and_bare_lists(tmp_path):
    _touch(tmp_path, "a.png", "b.png")
    (tmp_path / "d.json").write_text(
        json.dumps({"name": "set", "training": [{"image": "a.png", "label": [1, 0]}], "test": ["b.png"]})
    )
    assert read_datalist(tmp_path / "d.json") == [{"image": str(tmp_path / "a.png"), "label": [1, 0]}]
    assert read_datalist(tmp_path / "d.json", section="test") == [{"image": str(tmp_path / "b.png")}]
    (tmp_path / "l.json").write_text(json.dumps(["a.png", {"image": "b.png"}]))
    assert [item["image"] for item in read_datalist(tmp_path / "l.json")] == [
        str(tmp_path / "a.png"),
        str(tmp_path / "b.png"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.csv", "path,age\na.png,3\n", r"m\.csv: no column 'image' among \['path', 'age'\]"),
        ("m.csv", "image,age\na.png,3\nb.png\n", r"m\.csv, line 3: not 2 fields like the header"),
        ("m.csv", "image,age\na.png,3,4\n", r"m\.csv, line 2: not 2 fields"),
        ("m.csv", "image,age\n,3\n", r"m\.csv, line 2: 'image' must be a path, got None"),
        ("m.json", "{", r"m\.json: not readable JSON"),
        ("m.json", '{"test": []}', r"m\.json: no section 'training' among \['test'\]"),
        ("m.json", '[{"label": 1}]', r"m\.json, item 0: 'image' must be a path, got None"),
        ("m.json", "[7]", r"m\.json, item 0: expected a dictionary or a path, got int"),
        ("m.txt", "image\n", "a manifest is a .csv or .json file, not .txt"),
    ],
)
def test_malformed_manifests_name_file_and_place(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        read_datalist(tmp_path / name)


def test_missing_images_are_named_and_counted(tmp_path):
    _touch(tmp_path, "here.png")
    rows = "\n".join(f"gone{number}.png" for number in range(7))
    (tmp_path / "m.csv").write_text(f"image\nhere.png\n{rows}\n")
    with pytest.raises(FileNotFoundError, match=r"7 of 8 images don't exist \(.*gone0\.png, .*gone4\.png, \.\.\.\)"):
        read_datalist(tmp_path / "m.csv")
    with pytest.raises(FileNotFoundError, match=r": a folder; give a \.csv or \.json file"):
        read_datalist(tmp_path)
    (tmp_path / "windows.csv").write_text("image\nfilms\\a.png\n")
    with pytest.raises(FileNotFoundError, match="write / for the backslashes"):
        read_datalist(tmp_path / "windows.csv")
    with pytest.raises(FileNotFoundError, match="no such manifest"):
        read_datalist(tmp_path / "none.csv")


def test_load_items_wants_exactly_one_and_something_in_it(tmp_path):
    with pytest.raises(ValueError, match="no data set: give dataset_dir"):
        load_items()
    with pytest.raises(ValueError, match="give only one"):
        load_items(tmp_path, tmp_path / "m.csv")
    with pytest.raises(ValueError, match=rf"{tmp_path}: the data set is empty \(no file with \.png, .*\.nii\.gz"):
        load_items(tmp_path)
    (tmp_path / "m.csv").write_text("image\n")
    with pytest.raises(ValueError, match=r"m\.csv: the data set is empty \(no rows\)"):
        load_items(datalist=tmp_path / "m.csv")
    _touch(tmp_path, "a.png")
    assert load_items(tmp_path) == [{"image": str(tmp_path / "a.png")}]


def _items(root="/data", images=60, patients=20):
    return [{"image": f"{root}/{n:03d}.png", "patient_id": f"p{n % patients}"} for n in range(images)]


@pytest.mark.parametrize(("fraction", "held_patients"), [(0.1, 2), (0.5, 10), (0.001, 1), (0.999, 19)])
def test_split_keeps_patients_together_and_both_sides_filled(fraction, held_patients):
    items = _items()
    train, held = split_by_patient(items, fraction)
    left, right = ({item["patient_id"] for item in side} for side in (train, held))
    assert not left & right and len(right) == held_patients and len(left) == 20 - held_patients
    assert sorted(i["image"] for i in train + held) == [i["image"] for i in items]


def test_split_depends_on_the_seed_and_not_on_the_order():
    items = _items()
    shuffled = random.Random(1).sample(items, len(items))
    held = {item["image"] for item in split_by_patient(items, 0.3)[1]}
    assert held == {item["image"] for item in split_by_patient(shuffled, 0.3)[1]}
    others = [{item["image"] for item in split_by_patient(items, 0.3, seed=seed)[1]} for seed in range(1, 6)]
    assert all(other != held for other in others)


@pytest.mark.parametrize("kind", ["patient", "file"])
def test_split_is_that_of_the_hashes_of_seed_kind_and_name(kind):
    names = [f"{name}{number}" for name in ('p"', "Mü", "/") for number in range(10)]
    items = [{"image": f"/a/{n}.png"} | ({"patient_id": n} if kind == "patient" else {}) for n in names]
    items += [{"image": "/a/z.png", "patient_id": "x"}] * (kind == "patient")
    groups = [n if kind == "patient" else f"{n}.png".lstrip("/") for n in names] + ["x"] * (kind == "patient")
    ranked = sorted(groups, key=lambda n: hashlib.sha256(json.dumps([7, kind, n]).encode()).hexdigest())
    held = set(ranked[: round(0.3 * len(ranked))])
    found = split_by_patient(items, 0.3, seed=7)[1]
    assert found == [item for item, group in zip(items, groups, strict=True) if group in held]


def test_split_without_patients_is_by_file_and_survives_a_move():
    here, there = ([{"image": f"{root}/s/{n:02d}.png"} for n in range(20)] for root in ("/here", "/mnt/there"))
    held_here, held_there = (split_by_patient(items, 0.25)[1] for items in (here, there))
    assert len(held_here) == 5
    assert [item["image"][-6:] for item in held_here] == [item["image"][-6:] for item in held_there]


@pytest.mark.parametrize(
    "items", [[], [{"image": "/a.png"}], [{"image": f"/{n}.png", "patient_id": "x"} for n in "ab"]]
)
def test_split_needs_two_patients(items):
    with pytest.raises(ValueError, match="no patients can be held out"):
        split_by_patient(items)


@pytest.mark.parametrize("fraction", [0, 1, -0.1])
def test_split_fraction_is_checked(fraction):
    with pytest.raises(ValueError, match="fraction must lie in"):
        split_by_patient(_items(), fraction)


def test_nih_subset(shared_data):
    folder = shared_data / "nih_cxr14_subset"
    listed = read_datalist(folder / "manifest.csv")
    assert len(listed) == 750 and {item["image"] for item in find_images(folder)} == {item["image"] for item in listed}
    train, held = split_by_patient(listed)
    patients = [{item["patient_id"] for item in side} for side in (train, held)]
    assert len(patients[1]) == 51 and not patients[0] & patients[1]  # 10 % of 512


def test_find_images_leaves_out_folders_of_results_and_counts_them(tmp_path, caplog):
    _touch(tmp_path, "a.png", "b/c.png", "run/world_views.png", "b/out/c/overlay.png", "b/masks/c.png")
    for folder in ("run", "b/out"):
        mark(tmp_path / folder)
    (tmp_path / "again").symlink_to(tmp_path / "b" / "out")
    with caplog.at_level(logging.WARNING):
        found = [item["image"] for item in find_images(tmp_path)]
    assert found == [str(tmp_path / "a.png"), str(tmp_path / "b" / "c.png")]
    (told,) = caplog.messages
    assert told.startswith(f"{tmp_path}: left out 3 folders of masks or results, no films: ")
    assert "'run'" in told and "'b/masks'" in told


def test_find_images_searches_a_folder_of_results_that_is_given_itself_and_says_so(tmp_path, caplog):
    _touch(tmp_path, "a.png")
    mark(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert [item["image"] for item in find_images(tmp_path)] == [str(tmp_path / "a.png")]
    assert "holds results of cxw_monai" in caplog.text
