"""RSNA Pneumonia from its published layout."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from cxw_monai.data.schema import Box
from cxw_monai.datasets import prepare_dataset
from cxw_monai.datasets.rsna_pneumonia import CLASSES

pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR AS")  # "51", as published

FILMS = [f"film{n}" for n in range(10)]
NIH = {film: f"0000000{n // 2}_00{n % 2}.png" for n, film in enumerate(FILMS)}  # five patients, two films each


@pytest.fixture
def tree(put):
    """film0 has two boxes and so two rows in either table."""
    labels = "patientId,x,y,width,height,Target\nfilm0,1.0,2.0,3.0,2.0,1\nfilm0,3.0,1.0,2.0,2.0,1\n"
    classes = f"patientId,class\nfilm0,{CLASSES[2]}\nfilm0,{CLASSES[2]}\n"
    for number, film in enumerate(FILMS):
        put(f"stage_2_train_images/{film}.dcm", PatientSex="F", PatientAge="51", ViewPosition="AP")
        if number:
            labels += f"{film},,,,,0\n"
            classes += f"{film},{CLASSES[number % 2]}\n"
    put("stage_2_train_labels.csv", labels)
    put("stage_2_detailed_class_info.csv", classes)


@pytest.fixture
def mapping(put):
    entries = [{"subset_img_id": film, "img_id": image, "orig_labels": []} for film, image in NIH.items()]
    put("pneumonia-challenge-dataset-mappings_2018.json", json.dumps(entries))


def test_one_record_a_film_with_class_and_boxes(tree, mapping, prepare):
    films = prepare("rsna_pneumonia", validation=0.25)
    assert len(films) == 10
    first = films["film0.dcm"]
    assert first.boxes == [Box("Lung Opacity", 1, 2, 3, 2), Box("Lung Opacity", 3, 1, 2, 2)]
    assert first.labels == {"Normal": 0, "No Lung Opacity / Not Normal": 0, "Lung Opacity": 1}
    assert films["film1.dcm"].labels["No Lung Opacity / Not Normal"] == 1 and films["film1.dcm"].boxes == []
    assert films["film2.dcm"].labels["Normal"] == 1
    assert (first.view, first.sex, first.age, first.width, first.height) == ("AP", "F", 51, 8, 6)
    assert (first.patient_id, first.extra["nih_image"]) == ("00000000", "00000000_000.png")


def test_splits_differ_and_keep_patients_together(tree, mapping, prepare):
    """The official binary loader's slip: train, validation and test are the same films."""
    films = prepare("rsna_pneumonia", validation=0.25)
    splits = {
        split: {n for n, film in films.items() if film.split == split} for split in ("training", "validation", "test")
    }
    assert {split: len(names) for split, names in splits.items()} == {"training": 6, "validation": 2, "test": 2}
    patients = [{films[name].patient_id for name in names} for names in splits.values()]
    assert [len(each) for each in patients] == [3, 1, 1] and len(set.union(*patients)) == 5


def test_without_the_mapping_films_are_held_out_singly_with_a_note(tree, prepare, tmp_path):
    films = prepare("rsna_pneumonia")
    assert len({film.patient_id for film in films.values()}) == 10
    assert "patients are unknown" in (tmp_path / "out/summary.json").read_text()


def test_masks_are_the_boxes_filled(tree, prepare, tmp_path):
    films = prepare("rsna_pneumonia", masks=True)
    expected = np.zeros((6, 8), np.uint8)
    expected[2:4, 1:4] = expected[1:3, 3:5] = 255
    mask = np.asarray(Image.open(tmp_path / "out" / films["film0.dcm"].masks["lung_opacity"]))
    assert np.array_equal(mask, expected)
    assert not np.asarray(Image.open(tmp_path / "out" / films["film1.dcm"].masks["lung_opacity"])).any()


def test_tables_that_disagree_are_refused(tree, put, root, tmp_path):
    put("stage_2_detailed_class_info.csv", "patientId,class\n" + "".join(f"{film},Normal\n" for film in FILMS))
    with pytest.raises(ValueError, match="film0 has 2 boxes, and its class is 'Normal'"):
        prepare_dataset("rsna_pneumonia", root, tmp_path / "out")
    put("stage_2_detailed_class_info.csv", f"patientId,class\nfilm0,{CLASSES[2]}\nfilm0,Normal\n")
    with pytest.raises(ValueError, match="film0: class 'Normal'; expected one of"):
        prepare_dataset("rsna_pneumonia", root, tmp_path / "out")


def test_damaged_films_are_left_out_and_too_many_are_an_error(tree, prepare, root, tmp_path):
    films = sorted((root / "stage_2_train_images").iterdir())
    for film, content in zip(films, (b"", b"<html>", b"\0" * 200), strict=False):
        film.write_bytes(content)
    assert set(prepare("rsna_pneumonia", masks=True)) == {f"film{n}.dcm" for n in range(3, 10)}
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["left_out"] == {"films": 3, "masks": 0} and summary["missing_images"] == 0
    assert summary["counts"].keys() == {"training", "validation", "test"}
    for film in films[:6]:
        film.write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"6 of 10 films can't be read .*film0\.dcm.*too many for single damaged files"
    ):
        prepare("rsna_pneumonia")


def test_the_summary_says_whether_patients_were_kept_together(tree, prepare, tmp_path, put):
    for text, wanted in (("", "by film"), (json.dumps([]), "by NIH patient")):
        if text:
            put("pneumonia-challenge-dataset-mappings_2018.json", text)
        prepare("rsna_pneumonia")
        assert wanted in json.loads((tmp_path / "out/summary.json").read_text())["split"]
