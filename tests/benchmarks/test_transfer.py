"""Films of all sources and the tasks that frozen encoders are tried on."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.learning import data, transfer
from benchmarks.learning.descriptors import pixels
from benchmarks.learning.films import learnt_films, main
from benchmarks.learning.transfer import Transfer
from benchmarks.learning.transfer_tasks import FilmSet, Task, tasks_of

SPLIT = {"a": "train", "b": "test"}


def manifest(folder: Path, rows: list[dict]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for row in rows:
        Image.new("L", (8, 8)).save(folder / row["image"])
    with (folder / "manifest.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / "manifest.csv"


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("benchmarks.learning.films.read_split", lambda: SPLIT)
    parts = ("training", "validation", "test")
    pool = [{"image": f"{p}.png", "patient_id": p, "split": p, "source": "kermany"} for p in parts]
    manifest(tmp_path / "open_cxr_pool", pool)
    for folder in ("shenzhen", "wingspan_heart_lungs"):
        manifest(tmp_path / folder, [{"image": f"{p}.png", "patient_id": "", "split": p} for p in parts[:2]])
    manifest(tmp_path / "nih_cxr14_subset", [{"image": f"{n}.png", "patient_id": n} for n in ("a", "b", "c")])
    return tmp_path


class TestFilms:
    def test_no_film_of_a_validation_or_test_part_is_learnt(self, folders: Path):
        found = [(Path(image).name, source) for image, _, source in learnt_films(folders)]
        assert found == [
            ("training.png", "kermany"),
            ("training.png", "shenzhen"),
            ("training.png", "wingspan"),
            ("a.png", "nih"),
        ]

    def test_the_manifest_has_images_patients_and_sources_alone(self, folders: Path, capsys):
        rendered = manifest(folders / "drr", [{"image": "r.png", "patient_id": "p1", "mask_heart": ""}])
        output = folders / "films.csv"
        assert main(["--data", str(folders), "--rendered", str(rendered), "--output", str(output)]) == 0
        rows = list(csv.DictReader(output.open()))
        assert list(rows[0]) == ["image", "patient_id", "source"] and len(rows) == 5
        assert rows[-1]["patient_id"] == "rendered_p1" and "5 films" in capsys.readouterr().out


def row(number: int, **values) -> dict:
    return {"image": f"{number}.png", "patient_id": f"p{number // 2}", **values}


def film_set(rows: list[dict], bright: list[bool]) -> FilmSet:
    """Films that are brighter where `bright`, with noise that goes with nothing."""
    noise = np.random.default_rng(len(rows)).integers(0, 100, (len(rows), 1, 32, 32))
    return FilmSet(torch.from_numpy(noise + 100 * np.array(bright)[:, None, None, None]).to(torch.uint8), rows)


@pytest.fixture
def sets() -> dict[str, FilmSet]:
    flags = [i % 4 < 2 for i in range(80)]
    labels = {name: value for name, value in data.LABELS.items()}
    nih = [
        row(i, part="train" if i < 60 else "test", **{n: v if f else "x" for n, v in labels.items()})
        for i, f in enumerate(flags)
    ]
    parts = ["training"] * 40 + ["validation"] * 20 + ["test"] * 20
    kermany = [
        row(
            i,
            split=p,
            official_split="training" if i == 79 else p,
            label_pneumonia=int(i % 8 < 4),
            label_bacterial=int(f),
        )
        for i, (p, f) in enumerate(zip(parts, flags, strict=True))
    ]
    shenzhen = [row(i, split=p, label_tuberculosis=int(f)) for i, (p, f) in enumerate(zip(parts, flags, strict=True))]
    wingspan = [
        row(i, split=p, label_cardiothoracic_ratio=0.5 + f / 10)
        for i, (p, f) in enumerate(zip(parts, flags, strict=True))
    ]
    named = {"nih": nih, "kermany": kermany, "shenzhen": shenzhen, "wingspan": wingspan}
    return {name: film_set(rows, flags) for name, rows in named.items()}


class TestTasks:
    def test_films_to_choose_by_hold_no_test_film(self, sets):
        tasks = tasks_of(sets, test=False)
        assert tasks["nih"].places.max() == 59 and tasks["shenzhen"].places.max() == 39
        kermany = tasks["kermany"]
        assert kermany.places.tolist() == list(range(60)) and kermany.scored.tolist() == [False] * 40 + [True] * 20

    def test_kermany_is_tested_on_the_official_folder(self, sets):
        task = tasks_of(sets, test=True)["kermany"]
        assert task.places[task.scored].tolist() == list(range(60, 79))
        sick = tasks_of(sets, test=True)["kermany_pneumonia"]
        assert all(place % 8 < 4 for place in sick.places)

    def test_no_patient_is_on_both_sides_of_a_fold(self, sets):
        for name in ("nih", "shenzhen"):
            task = tasks_of(sets, test=True)[name]
            for fold in np.unique(task.folds):
                held = task.folds == fold
                assert not set(task.patients[held]) & set(task.patients[~held])

    def test_films_are_compared_within_a_group_and_fold_only(self):
        label = {"x": np.array([True, False, True, False])}
        scores = np.array([0.0, 1.0, 3.0, 2.0])  # right in the second group alone; right in 2 of 4 pairs without groups
        known = {
            "films": "s",
            "places": np.arange(4),
            "labels": label,
            "patients": np.arange(4),
            "folds": np.zeros(4, int),
        }
        assert Task(**known).aurocs(scores, "x", 0)[0] == pytest.approx(0.5)
        assert Task(**known, groups=np.array([0, 0, 1, 1])).aurocs(scores, "x", 0)[0] == pytest.approx(0.5)
        assert Task(**known, groups=np.array([0, 1, 1, 1])).aurocs(scores, "x", 0)[0] == pytest.approx(1.0)


@pytest.mark.parametrize("test", [False, True])
def test_what_shows_is_found_in_every_task(sets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, test: bool):
    monkeypatch.setattr(transfer, "BOOTSTRAP", 20)
    benchmark = Transfer(tmp_path, None, tmp_path, test)
    benchmark.sets, benchmark.outlined = sets, {}
    row, kept = benchmark.evaluate(pixels(4))
    for name in ("nih", "kermany_pneumonia", "shenzhen"):
        assert row[name] > 0.95
    assert abs(row["kermany"] - 0.5) < 0.4 and row["wingspan_r2"] > 0.9
    assert ("nih_low" in row) == test and ("nih_knn" in row) == test
    assert kept["shenzhen_tuberculosis"].shape == (80 if test else 40,)
    worse = {name: np.random.default_rng(0).standard_normal(values.shape) for name, values in kept.items()}
    gap, low, high = benchmark.differences(kept, worse)["shenzhen"]
    assert 0.2 < low < gap < high
    assert benchmark.differences(kept, kept)["nih"] == (0, 0, 0) and "wingspan" not in benchmark.differences(kept, kept)
