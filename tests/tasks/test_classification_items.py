"""Labels of a manifest: what is known, who is where, and few labels."""

import csv

import pytest

from cxw_monai.tasks.classification.items import classification_splits, classification_subset, labelled_items


@pytest.fixture
def manifest(tmp_path):
    """Makes a manifest of films that need not be read; gives its path."""

    def make(rows):
        for number, row in enumerate(rows):
            row.setdefault("image", f"{number:02}.png")
            (tmp_path / row["image"]).touch()
        path = tmp_path / "manifest.csv"
        columns = list(dict.fromkeys(name for row in rows for name in row))
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, columns)
            writer.writeheader()
            writer.writerows(rows)
        return path

    return make


def cohort(patients=40, films=2):
    """`patients` of `films` each; every second has edema, every tenth a mass."""
    return [
        {"image": f"p{p}_{f}.png", "patient_id": f"p{p}", "label_edema": p % 2, "label_mass": int(p % 10 == 0)}
        for p in range(patients)
        for f in range(films)
    ]


def test_an_empty_cell_is_unknown_and_a_film_without_any_label_is_left_out(manifest):
    path = manifest([{"label_edema": 1, "mass": ""}, {"label_edema": "", "mass": 0}, {"label_edema": "", "mass": ""}])
    assert [item["labels"] for item in labelled_items(path, ("mass", "edema"))] == [[None, 1.0], [0.0, None]]


def test_a_text_of_a_column_is_a_label(manifest):
    path = manifest([{"view": "AP"}, {"view": "PA"}, {"view": ""}])
    items = labelled_items(path, ("AP",), {"AP": {"view": "AP"}})
    assert [item["labels"] for item in items] == [[1.0], [0.0]]
    items = labelled_items(path, ("AP", "PA"), {"AP": {"view": "AP"}, "PA": {"view": "PA"}}, "multi_class")
    assert [item["labels"] for item in items] == [[1.0, 0.0], [0.0, 1.0]]


def test_exclusive_classes(manifest):
    path = manifest([{"label_a": 1, "label_b": 0}, {"label_a": 0, "label_b": 0}, {"label_a": "", "label_b": 1}])
    assert [item["labels"] for item in labelled_items(path, "ab", None, "multi_class")] == [[1.0, 0.0], [None, 1.0]]
    path = manifest([{"label_a": 1, "label_b": 1}])
    with pytest.raises(ValueError, match="is of the classes a, b; set target multi_label"):
        labelled_items(path, "ab", None, "multi_class")


def test_a_scoring_takes_a_class_without_a_column_as_unknown(manifest):
    path = manifest([{"label_edema": 1}, {"label_edema": 0}])
    settings = {"classes": ("mass", "edema"), "label_map": None, "target": "multi_label"}
    assert [item["labels"] for item in classification_subset("all", path, **settings)] == [[None, 1.0], [None, 0.0]]
    with pytest.raises(ValueError, match="no column label_mass"):
        labelled_items(path, settings["classes"])
    with pytest.raises(ValueError, match="no column label_liver"):
        classification_subset("all", path, **{**settings, "classes": ("liver",)})


@pytest.mark.parametrize(
    ("row", "label_map", "said"),
    [
        ({"label_mass": 1}, None, "no column label_edema or edema .* it has label_mass"),
        ({"label_edema": -1}, None, "has -1 in label_edema, expected 1, 0 or nothing"),
        ({"edema": "yes"}, None, "has 'yes' in edema"),
        ({"label_edema": ""}, None, "none of its 1 films has a label of edema"),
        ({"view": "AP"}, {"edema": {"view": "AP", "sex": "M"}}, "must be a column or one"),
    ],
)
def test_what_is_no_label(manifest, row, label_map, said):
    with pytest.raises(ValueError, match=said):
        labelled_items(manifest([row]), ("edema",), label_map)


def test_a_share_of_the_patients_and_larger_shares_hold_smaller_ones(manifest):
    path, classes = manifest(cohort()), ("edema", "mass")
    whole = classification_splits(path, classes, val_fraction=0.25, test_fraction=0.25)
    train = {
        share: classification_splits(path, classes, val_fraction=0.25, test_fraction=0.25, label_fraction=share).train
        for share in (0.1, 0.5)
    }
    patients = {share: {item["patient_id"] for item in items} for share, items in train.items()}
    assert {share: len(found) for share, found in patients.items()} == {0.1: 2, 0.5: 11}  # of 22
    assert {share: len(items) for share, items in train.items()} == {0.1: 4, 0.5: 22}
    assert patients[0.1] < patients[0.5] < {item["patient_id"] for item in whole.train}
    half = classification_splits(path, classes, val_fraction=0.25, test_fraction=0.25, label_fraction=0.5)
    assert (half.validation, half.test) == (whole.validation, whole.test)


def test_shots_of_each_class(manifest):
    train = classification_splits(manifest(cohort()), ("edema", "mass"), shots=2, val_fraction=0.25).train
    patients = [item["patient_id"] for item in train]
    assert len(set(patients)) == len(patients) <= 4
    assert sum(item["labels"][0] == 1 for item in train) == 2
    assert sum(item["labels"][1] == 1 for item in train) == 2
    train = classification_splits(manifest(cohort()), ("edema",), shots=3, val_fraction=0.25).train
    assert sorted(item["labels"][0] for item in train) == [0, 0, 0, 1, 1, 1]
    other = classification_splits(manifest(cohort()), ("edema",), shots=3, val_fraction=0.25, seed=1).train
    assert {item["image"] for item in other} != {item["image"] for item in train}


def test_a_subset_that_is_empty_says_so(manifest):
    path = manifest(cohort())
    settings = {"classes": ("edema",), "label_map": None, "target": "multi_label"}
    assert len(classification_subset("all", path, **settings)) == 80
    with pytest.raises(ValueError, match="its test subset is empty"):
        classification_subset("test", path, **settings)


def test_films_of_which_nothing_can_be_learnt_are_refused(manifest, caplog):
    rows = [{"patient_id": f"p{n}", "split": "training", "label_edema": 1, "label_mass": 0} for n in range(6)]
    held = [{"patient_id": f"v{n}", "split": "validation", "label_edema": 1, "label_mass": ""} for n in range(3)]
    with pytest.raises(ValueError, match="nothing to learn: of no class do the 6 training films have both 1 and 0"):
        classification_splits(manifest(rows + held), ["edema", "mass"], splits="column")
    rows[0]["label_edema"] = 0
    classification_splits(manifest(rows + held), ["edema", "mass"], splits="column")
    assert "known label of mass has the same: it cannot be learnt" in caplog.text
    assert "No class has both 1 and 0 among the 3 validation films, so they can't choose an epoch" in caplog.text
