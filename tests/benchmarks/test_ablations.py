"""The ablations: what each row changes, a run of small films, and the table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.ablations import __main__ as command
from benchmarks.ablations import ablation
from benchmarks.ablations.ablation import RANDOM, Ablations, world_metrics
from benchmarks.ablations.table import markdown
from benchmarks.learning.benchmark import read_rows
from benchmarks.learning.data import LabelledFilms
from cxw_monai.metrics.world.films import read_world_films
from cxw_monai.metrics.world.worlds import ModelWorld
from cxw_monai.tasks.pretraining.settings import PretrainingSettings
from tests.helpers.small_networks import world_model

TRAIN, TEST = 32, 16


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> LabelledFilms:
    """Noise of 64 x 64 px with five labels that mean nothing."""
    folder, rng = tmp_path_factory.mktemp("films"), np.random.default_rng(0)
    count = TRAIN + TEST
    grey = rng.integers(0, 256, (count, 64, 64), dtype=np.uint8)
    for n, film in enumerate(grey):
        Image.fromarray(film).save(folder / f"{n}.png")
    return LabelledFilms(
        images=torch.from_numpy(grey)[:, None] / 255,
        files=[str(folder / f"{n}.png") for n in range(count)],
        patients=np.array([f"p{n}" for n in range(count)]),
        labels=np.arange(count)[:, None] % np.arange(2, 7) == 0,
        ages=rng.uniform(20, 80, count),
        train=np.arange(count) < TRAIN,
    )


def small(films, folder) -> Ablations:
    overrides = {"image_size": 64, "mask_min_keep": 2, "predictor_depth": 1, "cache_size": 64}
    found = Ablations(Path("nowhere.csv"), folder, overrides=overrides, world_films=16)
    found.__dict__["films"] = films  # in place of those of the split
    return found


def test_rows_are_those_of_the_paper_and_the_official_details():
    ablations = Ablations(Path("m.csv"), Path("out"))
    settings = {name: PretrainingSettings(**ablations.settings(name, 1)) for name in ablations.rows}
    assert list(settings) == [
        *(RANDOM, "row1_local", "row2_local_global", "row3_local_domain", "row4_all", "row5_naive_sum"),
        *("row6_no_action", "row7_no_geometry"),
        *("official_masks", "official_targets", "official_tables", "official_all"),
    ]
    row4 = settings["row4_all"].model_dump()
    expected = {
        "row1_local": {"objectives": ["local"]},
        "row5_naive_sum": {"unified": False, "average_terms": False},
        "row6_no_action": {"condition_on_action": False},
        "row7_no_geometry": {"condition_on_geometry": False},
        "official_masks": {"mask_truncation": "first"},
        "official_targets": {"cross_targets": "masked"},
        "official_tables": {"context_order": "column_first"},
        "official_all": {"mask_truncation": "first", "cross_targets": "masked", "context_order": "column_first"},
    }
    for name, changed in expected.items():
        other = settings[name].model_dump()
        assert {key: value for key, value in other.items() if value != row4[key]} == changed, name
    assert all(one.seed == 1 for one in settings.values())


def test_a_run_makes_its_rows_once_and_keeps_its_trainings(films, tmp_path, monkeypatch):
    monkeypatch.setattr(ablation, "MOST_FILMS", 2)
    ablations = small(films, tmp_path)
    ablations.run([RANDOM, "row3_local_domain"], 1)
    rows = {row["run"]: row for row in read_rows(ablations.table)}
    assert rows[RANDOM]["images_seen"] == "0" and rows["row3_local_domain"]["images_seen"] == "24"  # of 31, by eights
    assert rows["row3_local_domain"]["layout"] == "" and rows["row3_local_domain"]["domain"]
    for name in ("mean", "grid", "attentive", "local", "position", "places", "rank_tokens"):
        assert rows[RANDOM][name] != rows["row3_local_domain"][name], name
    trained = []
    pretrain = ablation.pretrain
    monkeypatch.setattr(ablation, "pretrain", lambda *given, **more: trained.append(1) or pretrain(*given, **more))
    ablations.run([RANDOM, "row3_local_domain"], 1)
    assert not trained and len(ablations.finished()) == 2
    ablations.table.unlink()  # as if it had been stopped between training and probes
    (run,) = (tmp_path / "runs").iterdir()
    before = (run / "model.pt").stat().st_mtime_ns
    ablations.run(["row3_local_domain"], 1)
    assert (run / "model.pt").stat().st_mtime_ns == before or trained
    (again,) = read_rows(ablations.table)
    times = {"processor_seconds"}
    assert {k: v for k, v in again.items() if k not in times} == {
        k: v for k, v in rows["row3_local_domain"].items() if k not in times
    }


def test_a_model_has_scores_of_what_it_predicts(monkeypatch):
    monkeypatch.setattr(ablation, "MOST_FILMS", 3)
    items = [{"image": f"{n}.png"} for n in range(20)]
    shown = read_world_films(
        items, (32, 32), decoded=lambda n: np.random.default_rng(n).random((1, 40, 40), np.float32)
    )
    everything = world_metrics(ModelWorld(world_model(), "none"), shown)
    assert all(value is not None and np.isfinite(value) for value in everything.values())
    local = world_metrics(ModelWorld(world_model(objectives=("local",)), "none"), shown)
    absent = {name for name, value in local.items() if value is None}
    assert absent == {"domain", "domain_withheld", "layout", "layout_withheld"} and local["local"] > 0


def test_an_unknown_row_is_one_line_before_any_film_is_read(tmp_path, capsys):
    assert command.main(["--nih", "nowhere.csv", "--output", str(tmp_path), "--rows", "row9"]) == 2
    error = capsys.readouterr().err
    assert "rows.yaml: no row 'row9'; it has random, row1_local" in error and error.count("\n") == 1


def test_the_table_has_mean_and_spread_over_seeds():
    rows = [
        {"run": "a", "processor_seconds": "10", "mean": "0.7", "rank_tokens": "9"},
        {"run": "a", "processor_seconds": "30", "mean": "0.8", "rank_tokens": "11"},
        {"run": "b", "processor_seconds": "0", "mean": "0.6", "layout": "", "rank_tokens": ""},
    ]
    head, rule, a, b = markdown(rows).splitlines()
    assert head.startswith("| run | seeds | seconds | mean token |") and rule.count("---") == head.count("|") - 1
    assert a.startswith("| a | 2 | 20 | 0.750 ± 0.071 | - |") and a.endswith("| 10.0 ± 1.4 |")
    assert b.startswith("| b | 1 | 0 | 0.600 | - |") and b.endswith("| - |")
