"""Runs of the sim-to-real experiment: who trains and who is tested, and what the table says."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from benchmarks.sim_to_real.__main__ import main
from benchmarks.sim_to_real.experiment import Run, few_shot_runs, film_scores, from_rendered_runs, summarise


@pytest.fixture
def real(tmp_path):
    """Twelve films of eleven patients, the last without a mediastinum; columns as the COVID set names them."""
    rows = []
    for number in range(12):
        Image.fromarray(np.full((8, 8), number, np.uint8)).save(tmp_path / f"{number}.png")
        row = {"image": f"{number}.png", "patient_id": f"p{min(number, 10)}"}
        for name in ("left_lung", "right_lung", "cardiomediastinum"):
            row[f"mask_{name}"] = f"{name}_{number}.png"
            Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / row[f"mask_{name}"])
        rows.append(row)
    rows[-1]["mask_cardiomediastinum"] = ""
    path = tmp_path / "manifest.csv"
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_few_shot_splits_are_disjoint_and_the_same_for_all_arms(real, tmp_path):
    runs = few_shot_runs(real, {"random": None, "mae": "x.pt"}, tmp_path / "out", shots=(4,), splits=3, steps=12)
    assert [run.name for run in runs[:3]] == ["few_shot_4/random/0", "few_shot_4/mae/0", "few_shot_4/random/1"]
    chosen = []
    for first, second in zip(runs[::2], runs[1::2], strict=True):
        assert first.overrides["datalist"] == second.overrides["datalist"]
        with open(first.overrides["datalist"], newline="") as stream:
            rows = list(csv.DictReader(stream))
        sides = {part: {r["patient_id"] for r in rows if r["split"] == part} for part in ("training", "test")}
        assert len(sides["training"]) == 4 and not sides["training"] & sides["test"]
        assert len(rows) == 11  # the film without a mediastinum is left out
        chosen.append(frozenset(sides["training"]))
    assert len(set(chosen)) == 3
    assert runs[0].overrides["epochs"] * 1 == 12 and runs[0].overrides["batch_size"] == 4  # one step an epoch


def test_rendered_runs_pair_arms_by_seed(real, tmp_path):
    runs = from_rendered_runs("drr.csv", real, {"random": None, "wm": "e.pt"}, tmp_path / "o", 2, appearance=["wm"])
    assert [(r.arm, r.repeat, r.presets) for r in runs[:3]] == [
        ("random", 0, ()),
        ("wm", 0, ()),
        ("wm+appearance", 0, ("film_appearance",)),
    ]
    assert len(runs) == 6 and runs[1].overrides["encoder_ckpt"] == "e.pt"


def test_a_misspelt_setting_is_one_line_of_the_command(real, tmp_path, capsys):
    command = ["--real", str(real), "--output", str(tmp_path / "out"), "--shots", "4", "--splits", "1"]
    assert main([*command, "--set", "batchsize=2"]) == 2
    assert "error: batchsize (given in the settings): the bundle has no such setting, did you mean batch_size?" in (
        capsys.readouterr().err
    )


def test_lungs_are_the_mean_of_both_and_unknown_is_left_out(tmp_path):
    path = tmp_path / "films.csv"
    path.write_text("film,dice_lung_left,dice_lung_right,dice_mediastinum\na,0.9,0.7,0.5\nb,0.8,,\n")
    scores = film_scores(path)
    assert scores["lungs"] == pytest.approx(0.8) and scores["mediastinum"] == 0.5
    assert scores["lung_left"] == pytest.approx(0.85)


def test_the_table_compares_within_each_repeat(tmp_path):
    runs = [Run("g", arm, repeat) for repeat in (0, 1) for arm in ("random", "wm")]
    lungs = {"g/random/0": 0.80, "g/wm/0": 0.83, "g/random/1": 0.70, "g/wm/1": 0.71}
    results = {k: {"lungs": v, "lung_left": v, "lung_right": v, "mediastinum": v} for k, v in lungs.items()}
    table = summarise(runs, results, tmp_path)
    assert "| wm | 2 | 0.770 ± 0.085 |" in table and "+0.020 ± 0.014" in table
    assert json.loads((tmp_path / "summary.json").read_text())["g/wm"]["lungs_less_random"] == pytest.approx(
        [0.03, 0.01]
    )
