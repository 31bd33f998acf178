"""MedFMC ChestDR from its published layout."""

from __future__ import annotations

import pytest

from cxw_monai.datasets import prepare_dataset
from cxw_monai.datasets.chestdr import LABELS


def _line(name, *present):
    return f"{name}.png " + ",".join(str(int(label in present)) for label in LABELS) + "\n"


@pytest.fixture
def tree(put):
    for name in "abcdefxy":
        put(f"images/{name}.png")
    put("trainval.txt", _line("a", "nodule", "TB") + "".join(map(_line, "bcdef")))
    put("test_WithLabel.txt", _line("x", "pneumothorax") + _line("y"))
    put("chest_1-shot_train_exp2.txt", _line("a", "nodule", "TB") + _line("b") + _line("a", "nodule", "TB"))
    put("chest_1-shot_val_exp2.txt", "".join(map(_line, "cdef")))


def test_official_lists(tree, prepare):
    films = prepare("chestdr", validation=0.34)
    assert len(LABELS) == 19 and LABELS[0] == "pleural_effusion" and LABELS[18] == "consolidation"
    assert {name for name, value in films["a.png"].labels.items() if value} == {"nodule", "TB"}
    assert {n for n, film in films.items() if film.split == "test"} == {"x.png", "y.png"}
    assert sum(film.split == "validation" for film in films.values()) == 2  # of six


def test_few_shot_lists(tree, prepare):
    films = prepare("chestdr", shots=1, experiment=2)
    assert {n[0]: film.split for n, film in films.items()} == {
        **dict.fromkeys("ab", "training"),
        **dict.fromkeys("cdef", "validation"),
        **dict.fromkeys("xy", "test"),
    }


def test_the_table_without_test_labels(tree, put, root, prepare, tmp_path):
    (root / "trainval.txt").unlink()
    (root / "test_WithLabel.txt").unlink()
    cells = ["1" if label == "fibrosis" else "0" for label in LABELS]
    put(
        "chest_train.csv",
        f"img_id,study_id,{','.join(LABELS)}\n" + "".join(f"{n}.png,s,{','.join(cells)}\n" for n in "abcde"),
    )
    films = prepare("chestdr")
    assert {film.split for film in films.values()} == {"training", "validation", "test"} and len(films) == 5
    assert all(film.labels["fibrosis"] == 1 and sum(film.labels.values()) == 1 for film in films.values())
    assert "the test split is made here" in (tmp_path / "out/summary.json").read_text()


def test_malformed_lists_are_refused(tree, put, root, tmp_path):
    put("trainval.txt", _line("a") + "b.png 0,1\n")
    with pytest.raises(ValueError, match=r"trainval\.txt, line 2: expected 'name\.png' and 19 values"):
        prepare_dataset("chestdr", root, tmp_path / "out")
    put("trainval.txt", _line("a") + _line("a", "TB"))
    with pytest.raises(ValueError, match="line 2: a.png is there twice with different labels"):
        prepare_dataset("chestdr", root, tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="no chest_5-shot_train_exp1.txt"):
        prepare_dataset("chestdr", root, tmp_path / "out", shots=5)


def test_the_summary_says_what_the_splits_are(root, put, tmp_path):
    zeros = ",".join("0" * 19)
    films = [put(f"images/{n}.png") for n in range(8)]
    put("trainval.txt", "".join(f"{film.name} {zeros}\n" for film in films))
    assert "made here of the films of trainval.txt" in prepare_dataset("chestdr", root, tmp_path / "a")["split"]
    put("test_WithLabel.txt", f"{put('images/t.png').name} {zeros}\n")
    assert "official test; validation held out" in prepare_dataset("chestdr", root, tmp_path / "b")["split"]
    put("chest_5-shot_train_exp2.txt", f"0.png {zeros}\n")
    put("chest_5-shot_val_exp2.txt", f"1.png {zeros}\n")
    few = prepare_dataset("chestdr", root, tmp_path / "c", shots=5, experiment=2)["split"]
    assert few == "official: few-shot training and validation (5 shots, draw 2), and test"
