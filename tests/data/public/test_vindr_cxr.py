"""VinDr-CXR from its published layout."""

from __future__ import annotations

import json

import pytest

from cxw_monai.data.public import prepare_dataset
from cxw_monai.data.public.vindr_cxr import BENCHMARK_LABELS, GLOBAL_LABELS, LOCAL_LABELS
from cxw_monai.data.schema import Box

LABELS = (*LOCAL_LABELS, *GLOBAL_LABELS)
TRAIN_BOXES = """image_id,rad_id,class_name,x_min,y_min,x_max,y_max
f1,R9,Nodule/Mass,1.5,2,4,5.5
f1,R10,Nodule/Mass,1,2,4,5
f1,R8,No finding,,,,
f2,R8,No finding,,,,
"""
TEST_BOXES = "image_id,class_name,x_min,y_min,x_max,y_max\nt1,Cardiomegaly,0,0,8,6\nt2,No finding,,,,\n"


def _cells(*present, form=int):
    return ",".join(str(form(name in present)) for name in LABELS)


@pytest.fixture
def tree(put):
    """Films f1 to f5 of three readers each, t1 and t2 of the consensus."""
    train = "image_id,rad_id," + ",".join(LABELS) + "\n"
    train += f"f1,R8,{_cells('No finding')}\nf1,R9,{_cells('Nodule/Mass', 'Lung tumor')}\n"
    train += f"f1,R10,{_cells('Nodule/Mass', 'COPD')}\n"
    for n in range(2, 6):
        train += "".join(f"f{n},R{reader},{_cells('No finding', form=float)}\n" for reader in (8, 9, 10))
        put(f"train/f{n}.dicom", PatientSex="F", PatientAge="000Y")
    test = "image_id," + ",".join(LABELS).replace("Other diseases", "Other disease") + "\n"
    test += f"t1,{_cells('Cardiomegaly', 'Other diseases')}\nt2,{_cells('No finding')}\n"
    put("annotations/image_labels_train.csv", train)
    put("annotations/image_labels_test.csv", test)
    put("annotations/annotations_train.csv", TRAIN_BOXES)
    put("annotations/annotations_test.csv", TEST_BOXES)
    put("train/f1.dicom", PatientSex="M", PatientAge="061Y")
    put("test/t1.dicom")
    put("test/t2.dicom")


def test_votes_boxes_and_official_test(tree, prepare, root):
    films = prepare("vindr_cxr", validation=0.2)
    first = films["f1.dicom"]
    assert {name for name, value in first.labels.items() if value} == {"Nodule/Mass"}  # two of three
    assert first.boxes == [Box("Nodule/Mass", 1.5, 2, 2.5, 3.5), Box("Nodule/Mass", 1, 2, 3, 3)]
    assert json.loads(first.extra["box_readers"]) == ["R9", "R10"]
    assert (first.image, first.view, first.sex, first.age) == (str(root / "train/f1.dicom"), "PA", "M", 61)
    assert (first.width, first.height) == (8, 6)
    second, consensus = films["f2.dicom"], films["t1.dicom"]
    assert second.boxes == [] and second.age is None and second.labels["No finding"] == 1
    assert consensus.labels["Other diseases"] == 1 and consensus.boxes == [Box("Cardiomegaly", 0, 0, 8, 6)]
    assert {name for name, film in films.items() if film.split == "test"} == {"t1.dicom", "t2.dicom"}
    assert sum(film.split == "validation" for film in films.values()) == 1


def test_the_benchmark_compares_these_six_columns(tree, prepare):
    """The official code's slip: a constant with six other names."""
    expected = ("Pleural effusion", "Lung tumor", "Pneumonia", "Tuberculosis", "Other diseases", "No finding")
    assert expected == BENCHMARK_LABELS and "COPD" in GLOBAL_LABELS and len(LOCAL_LABELS) == 22
    assert all(set(LABELS) == set(film.labels) and len(film.labels) == 28 for film in prepare("vindr_cxr").values())


def test_a_box_outside_the_film_is_refused(tree, put, root, tmp_path):
    put("annotations/annotations_test.csv", TEST_BOXES.replace("0,0,8,6", "0,0,12,6"))
    with pytest.raises(ValueError, match=r"t1\.dicom\): box 'Cardiomegaly' .* not within 8 x 6 pixels"):
        prepare_dataset("vindr_cxr", root, tmp_path / "out")
