"""`cxw-monai prepare`: arguments, exit status, messages."""

from __future__ import annotations

import json
from functools import partial

import pytest
from PIL import Image

from tests.datasets.test_padchest import make


@pytest.fixture
def run(run_verb):
    """Exit status, standard output and standard error of `cxw-monai prepare`."""
    return partial(run_verb, "prepare")


def test_list_names_every_data_set(run):
    status, out, _ = run("--list")
    names = [line.split()[0] for line in out.splitlines()]
    assert status == 0 and names == sorted(names)
    assert {"mimic_cxr", "chexpert", "nih", "vindr_cxr", "rsna_pneumonia", "siim_acr", "chestdr", "folder"} <= set(
        names
    )


@pytest.mark.parametrize("name", ["chexpert", "rsna_pneumonia"])
def test_help_of_a_data_set_tells_terms_and_split(run, name):
    status, out, _ = run(name, "--help")
    assert status == 0 and "terms" in out and "split" in out and "ROOT" in out


@pytest.fixture
def published(tmp_path):
    """Four few-shot films of a set with options of its own."""
    root = tmp_path / "chest"
    (root / "images").mkdir(parents=True)
    zeros = ",".join("0" * 19)
    for name in "abcd":
        Image.new("L", (4, 4)).save(root / "images" / f"{name}.png")
    (root / "chest_5-shot_train_exp3.txt").write_text(f"a.png {zeros}\nb.png 1{zeros[1:]}\n")
    (root / "chest_5-shot_val_exp3.txt").write_text(f"c.png {zeros}\n")
    (root / "test_WithLabel.txt").write_text(f"d.png {zeros}\n")
    return root


def test_options_reach_the_data_set_and_counts_are_printed(run, published, tmp_path):
    status, out, err = run("chestdr", published, tmp_path / "out", "--shots", 5, "--experiment", 3)
    assert status == 0, err
    table = {line.split("  ")[0]: line.split()[-3:] for line in out.splitlines()}
    assert table["images"] == ["2", "1", "1"]
    assert "label pleural_effusion" in table and "1 of 2" in out
    settings = json.loads((tmp_path / "out/summary.json").read_text())["settings"]
    assert (settings["shots"], settings["experiment"], settings["seed"]) == (5, 3, 0)


def test_errors_are_one_line(run, published, tmp_path):
    (published / "images/c.png").unlink()
    status, out, err = run("chestdr", published, tmp_path / "out", "--shots", 5, "--experiment", 3)
    assert status == 2 and out == ""
    assert err.count("\n") == 1 and "1 of 4 images don't exist" in err
    assert run("chestdr", published, tmp_path / "out", "--shots", 2)[0] == 2  # not one of the choices
    status, _, err = run()
    assert status == 2 and "--list shows the names" in err


def test_damaged_films_are_left_out_and_told_by_status_and_last_line(run, tmp_path):
    root = make(tmp_path / "padchest", tagged="de", negative=True)
    status, out, _ = run("padchest", root, tmp_path / "out", "--min-images", 1)
    assert status == 0 and "left out: " not in out.splitlines()[-1]
    (root / "54/d.png").write_bytes((root / "54/d.png").read_bytes()[:300])
    (tmp_path / "out/images/d.png").unlink()
    status, out, err = run("padchest", root, tmp_path / "out", "--min-images", 1)
    assert (status, err) == (1, "")
    assert out.splitlines()[-1] == "left out: 1 film that can't be read; see left_out.csv"
