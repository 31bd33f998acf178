"""VinDr-CXR from its published layout."""

from __future__ import annotations

import json

import pytest

from cxw_monai.data.schema import Box
from cxw_monai.datasets import prepare_dataset
from cxw_monai.datasets.vindr_cxr import BENCHMARK_LABELS, GLOBAL_LABELS, KAGGLE_LABELS, LOCAL_LABELS

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


def test_a_header_that_contradicts_the_publication_is_believed(tree, put, prepare):
    put("train/f2.dicom", ViewPosition="AP")
    films = prepare("vindr_cxr")
    assert films["f2.dicom"].view == "AP" and films["f3.dicom"].view == "PA"


KAGGLE = """image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max
k1,Cardiomegaly,3,R9,1,2,4,5
k1,Cardiomegaly,3,R10,1.5,2,4,5.5
k1,Cardiomegaly,3,R10,0,0,2,2
k1,No finding,14,R8,,,,
k2,No finding,14,R1,,,,
k2,No finding,14,R2,,,,
k2,No finding,14,R3,,,,
k3,Nodule/Mass,8,R1,1,1,2,2
k3,Nodule/Mass,8,R1,3,3,4,4
k3,ILD,5,R2,0,0,8,6
k3,ILD,5,R3,0,0,8,6
"""


@pytest.fixture
def kaggle(put):
    """Films k1 to k3, and k4 to k8 without findings, of the competition; two test films without labels."""
    more = "".join(f"k{n},No finding,14,R{reader},,,,\n" for n in range(4, 9) for reader in (1, 2, 3))
    put("train.csv", KAGGLE + more)
    for n in range(1, 9):
        put(f"train/k{n}.dicom", PatientSex="F", PatientAge="045Y")
    put("test/u1.dicom")
    put("test/u2.dicom")


def test_the_layout_of_the_competition(kaggle, prepare, root, tmp_path):
    films = prepare("vindr_cxr", layout="kaggle", test=0.25, validation=0.2)
    assert set(films) == {f"k{n}.dicom" for n in range(1, 9)}  # the official test films have no labels
    first, third = films["k1.dicom"], films["k3.dicom"]
    assert {name for name, value in first.labels.items() if value} == {"Cardiomegaly"}  # two of three readers
    assert {name for name, value in third.labels.items() if value} == {"ILD"}  # one reader's two boxes are one vote
    assert films["k2.dicom"].labels["No finding"] == 1 and films["k2.dicom"].boxes == []
    assert set(first.labels) == set(KAGGLE_LABELS) and len(KAGGLE_LABELS) == 15
    assert set(KAGGLE_LABELS) <= {*LOCAL_LABELS, "No finding"} and "Lung tumor" not in first.labels
    assert first.boxes == [
        Box("Cardiomegaly", 1, 2, 3, 3),
        Box("Cardiomegaly", 1.5, 2, 2.5, 3.5),
        Box("Cardiomegaly", 0, 0, 2, 2),
    ]
    assert json.loads(first.extra["box_readers"]) == ["R9", "R10", "R10"]
    assert (first.image, first.sex, first.age, first.width) == (str(root / "train/k1.dicom"), "F", 45, 8)
    assert sorted(film.split for film in films.values()) == ["test"] * 2 + ["training"] * 5 + ["validation"]
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert "kaggle.com" in summary["url"] and "competition" in summary["terms"] and "made here" in summary["split"]
    assert "2 films in test/ have no published labels: left out" in summary["notes"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("Cardiomegaly,3,R9", "Heart,3,R9"),
            r"train\.csv, 'k1': class_name 'Heart', .*expected a reader and one of Aortic",
        ),
        (("R8,,,,", ",,,,"), r"rad_id ''; expected a reader"),
        (("1.5,2,4,5.5", "1.5,2,wide,5.5"), r"train\.csv, 'k1': a box must be four numbers, got \['1.5', '2', 'wide'"),
        (("class_name,", "label,"), r"train\.csv: no column 'class_name' among .*kaggle\.com"),
    ],
)
def test_a_table_of_another_form_is_refused(kaggle, put, root, tmp_path, change, message):
    put("train.csv", KAGGLE.replace(*change))
    with pytest.raises(ValueError, match=message):
        prepare_dataset("vindr_cxr", root, tmp_path / "out", layout="kaggle")


def test_the_other_layout_is_named_where_it_is_not_there(kaggle, root, tmp_path):
    with pytest.raises(FileNotFoundError, match="no annotations/image_labels_train.csv"):
        prepare_dataset("vindr_cxr", root, tmp_path / "out")
