"""CheXpert from its published layout."""

from __future__ import annotations

import pytest

from cxw_monai.data.manifest import read_records
from cxw_monai.data.schema import SPLITS
from cxw_monai.data.validation import validate
from cxw_monai.datasets import format_counts, prepare_dataset
from cxw_monai.datasets.chexpert import COMPETITION_LABELS
from cxw_monai.datasets.report_labels import OBSERVATIONS

HEADER = "Path,Sex,Age,Frontal/Lateral,AP/PA," + ",".join(OBSERVATIONS) + "\n"
UNCERTAIN = "patient00001_study1_view1_frontal"


def _row(path, side="Frontal,AP", sex="Female", **labels):
    cells = ",".join(str(labels.get(name.replace(" ", "_"), "")) for name in OBSERVATIONS)
    return f"CheXpert-v1.0-small/{path},{sex},68,{side},{cells}\n"


@pytest.fixture
def tree(put):
    """Train: patients 1 to 5 (1 with a lateral film too); valid: patient 64541; test: patient 64741."""
    folder = "train/patient0000{}/study1/view1_frontal.jpg".format
    first = _row(folder(1), Atelectasis=-1.0, Edema=-1.0, Cardiomegaly=-1.0, Consolidation=0.0, Pleural_Effusion=1.0)
    lateral = _row("train/patient00001/study1/view2_lateral.jpg", "Lateral,", Pneumonia="1.0")
    others = [_row(folder(n), "Frontal,PA", "Unknown", No_Finding="1.0") for n in range(2, 6)]
    put("train.csv", HEADER + first + lateral + "".join(others))
    put("valid.csv", HEADER + _row("valid/patient64541/study1/view1_frontal.jpg", sex="Male", Edema="1.0"))
    put(
        "test_labels.csv", "Path," + ",".join(OBSERVATIONS) + "\ntest/patient64741/study1/view1_frontal.jpg" + ",1" * 14
    )
    for name in (*map(folder, range(1, 6)), "train/patient00001/study1/view2_lateral.jpg"):
        put(name)
    put("valid/patient64541/study1/view1_frontal.jpg")
    put("test/patient64741/study1/view1_frontal.jpg")


def _by_place(films):
    return {"_".join(film.image.split("/")[-3:])[:-4]: film for film in films}


@pytest.fixture
def films(tree, root, tmp_path):
    def run(**options):
        prepare_dataset("chexpert", root, tmp_path / "out", **options)
        records = list(read_records(tmp_path / "out/manifest.csv"))
        validate(records, base_dir=tmp_path / "out", check_files=True)
        return _by_place(records)

    return run


def test_official_valid_is_the_test_split_and_never_validation(films, root):
    found = films(validation=0.2)
    test = {name for name, film in found.items() if film.split == "test"}
    assert test == {"patient64541_study1_view1_frontal"}
    validation = {film.patient_id for film in found.values() if film.split == "validation"}
    assert len(validation) == 1 and validation <= {f"patient0000{n}" for n in range(1, 6)}
    first, lateral = found[UNCERTAIN], found["patient00001_study1_view2_lateral"]
    assert first.split == lateral.split and first.study == lateral.study == "patient00001/study1"
    assert first.image == str(root / "train/patient00001/study1/view1_frontal.jpg")
    assert (first.view, lateral.view, first.sex, first.age) == ("AP", "LAT", "F", 68)
    assert found["patient00002_study1_view1_frontal"].sex is None  # Unknown
    assert found["patient64541_study1_view1_frontal"].sex == "M"


def test_official_test_makes_valid_the_validation_split(films):
    found = films(official_test=True)
    splits = {name: film.split for name, film in found.items()}
    assert splits.pop("patient64741_study1_view1_frontal") == "test"
    assert splits.pop("patient64541_study1_view1_frontal") == "validation"
    assert set(splits.values()) == {"training"}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [  # Atelectasis, Cardiomegaly, Consolidation, Edema, Pleural Effusion; published: -1, -1, 0, -1, 1
        ({}, [1, 0, 0, 1, 1]),
        ({"uncertain": "mixed"}, [1, 0, 0, 1, 1]),
        ({"uncertain": "ones"}, [1, 1, 0, 1, 1]),
        ({"uncertain": "zeros"}, [0, 0, 0, 0, 1]),
        ({"uncertain": "unknown"}, [None, None, 0, None, 1]),
    ],
)
def test_uncertain_labels(films, policy, expected):
    labels = films(**policy)[UNCERTAIN].labels
    assert [labels.get(name) for name in COMPETITION_LABELS] == expected
    assert labels["Fracture"] == 0  # not mentioned


def test_unmentioned_labels_can_stay_unknown(films):
    labels = films(unmentioned="unknown")[UNCERTAIN].labels
    assert set(labels) == set(COMPETITION_LABELS)


def test_frontal_only(films):
    assert len(films()) == 7
    assert "patient00001_study1_view2_lateral" not in films(frontal_only=True)


def test_wrong_cells_and_options_are_refused(tree, put, root, tmp_path):
    with pytest.raises(ValueError, match="uncertain must be one of 'mixed', .*got 'maybe'"):
        prepare_dataset("chexpert", root, tmp_path / "out", uncertain="maybe")
    with pytest.raises(ValueError, match="chexpert has no option 'frontal'"):
        prepare_dataset("chexpert", root, tmp_path / "out", frontal=True)
    put("valid.csv", HEADER + _row("valid/patient64541/study1/view1_frontal.jpg", Edema="2"))
    with pytest.raises(ValueError, match=r"valid\.csv.*patient64541.*Edema must be 1, 0, -1 or blank, got '2'"):
        prepare_dataset("chexpert", root, tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "split"),
    [
        ({}, "official valid.csv is the test split; validation held out of train.csv by patient"),
        (
            {"official_test": True},
            "official: test on test_labels.csv, validation on valid.csv, training on train.csv",
        ),
    ],
)
def test_the_summary_says_what_the_splits_are(tree, root, tmp_path, options, split):
    summary = prepare_dataset("chexpert", root, tmp_path / "out", **options)
    assert summary["split"] == split and split in format_counts(summary)
    records = list(read_records(tmp_path / "out/manifest.csv"))
    folders = {s: {record.image.split("/")[-4] for record in records if record.split == s} for s in SPLITS}
    if options:
        assert folders == {"training": {"train"}, "validation": {"valid"}, "test": {"test"}}
    else:
        assert folders == {"training": {"train"}, "validation": {"train"}, "test": {"valid"}}


def test_a_missing_validation_split_is_noted(tree, root, tmp_path):
    assert (
        "no film is in the split validation"
        in prepare_dataset("chexpert", root, tmp_path / "out", validation=0)["notes"]
    )
