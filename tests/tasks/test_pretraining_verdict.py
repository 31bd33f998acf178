"""The verdict's page, the choice among checkpoints, and the tests of a world model as a command."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from cxw_monai.metrics.world.films import read_world_films
from cxw_monai.metrics.world.worlds import ModelWorld
from cxw_monai.tasks.pretraining import verdict, world
from cxw_monai.tasks.pretraining.components import new_network
from cxw_monai.tasks.pretraining.settings import PretrainingSettings, WorldSettings
from cxw_monai.tasks.pretraining.verdict import advice, best_checkpoint, judge, label_free_scores, score_checkpoints
from cxw_monai.tasks.pretraining.world import measure_world, table_lines

SMALL = {"network_size": "tiny", "image_size": 32, "patch_size": 8, "predictor_dim": 24, "predictor_depth": 1}


def films(count):
    def film(n):
        return np.random.default_rng(n).integers(0, 256, (1, 40, 40), dtype=np.uint8)

    return read_world_films([{"image": f"{n}.png"} for n in range(count)], (32, 32), decoded=film)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose last checkpoint has collapsed, and its settings."""
    folder = tmp_path_factory.mktemp("run")
    settings = PretrainingSettings(output_dir=str(folder), amp="none", **SMALL)
    torch.manual_seed(0)
    model = new_network(settings)
    torch.save({"model": model.state_dict()}, folder / "checkpoint_epoch=1.pt")
    for weight in (*model.encoder.norm.parameters(), *model.target_encoder.norm.parameters()):
        weight.data.zero_()
    torch.save({"model": model.state_dict()}, folder / "checkpoint_epoch=2.pt")
    return folder, settings


def test_the_checkpoint_that_is_chosen_is_not_the_last_one_where_that_collapsed(run):
    scores = score_checkpoints(run[1], films(3))
    assert [one["file"] for one in scores] == ["checkpoint_epoch=1.pt", "checkpoint_epoch=2.pt"]
    assert scores[0]["rank"] > 2 and scores[1]["rank"] == pytest.approx(1.0)
    assert best_checkpoint(scores) == "checkpoint_epoch=1.pt"


def test_a_checkpoint_is_chosen_by_layout_among_those_of_a_rank():
    scores = [
        {"file": "a", "rank": 100.0, "layout": 0.2},
        {"file": "b", "rank": 60.0, "layout": 0.4},
        {"file": "c", "rank": 40.0, "layout": 0.9},
    ]
    assert best_checkpoint(scores) == "b"
    assert best_checkpoint([]) is None


def test_a_model_without_layout_is_scored_by_places():
    settings = PretrainingSettings(objectives=["local"], amp="none", **SMALL)
    found = label_free_scores(ModelWorld(new_network(settings)), films(6))
    assert -0.5 < found["layout"] < -0.05


def test_the_page_of_a_random_network_says_no(run, monkeypatch):
    folder, settings = run
    monkeypatch.setattr(verdict, "FEWEST", 8)
    monkeypatch.setattr(verdict, "CHECKPOINT_FILMS", 3)
    torch.manual_seed(9)
    found = judge(ModelWorld(new_network(settings), "none"), films(verdict.FEWEST), settings, seen=900, held_out=True)
    assert found["verdict"] == "no"
    assert {one["question"] for one in found["comparisons"]} == {"place", "correspondence", "film"}
    assert found["best_checkpoint"] == "checkpoint_epoch=1.pt"
    page = (folder / "verdict.html").read_text()
    for text in ("No: it is not shown that pretraining helped", "What to try", "It saw 900 films", "held out"):
        assert text in page
    assert json.loads((folder / "verdict.json").read_text()) == found


def test_too_few_films_cost_nothing_and_are_said(run, tmp_path):
    settings = run[1].model_copy(update={"output_dir": str(tmp_path)})
    found = judge(ModelWorld(new_network(settings), "none"), films(5), settings)
    assert found["verdict"] == "cannot tell" and not found["comparisons"]
    assert found["advice"] == advice(settings, [], None, 192, None, 5)
    assert "5 patients" in (tmp_path / "verdict.html").read_text()


def test_the_tests_are_a_command_that_resumes(run, radiograph_folder, tmp_path, monkeypatch):
    folder, _ = run
    given = {"dataset_dir": str(radiograph_folder), "ckpt": str(folder / "checkpoint_epoch=1.pt"), "amp": "none"}
    settings = WorldSettings(output_dir=str(tmp_path), world_tests=["local", "spread"], **given, **SMALL)
    rows = measure_world(settings)
    assert {row["network"] for row in rows} == {"this network", "random weights, seed 0"}
    lines = table_lines(rows)
    assert lines[0] == ["test", "measure", "condition", "this network", "random weights, seed 0", "chance"]
    assert (tmp_path / "world" / "scores.md").read_text().count("\n") == len(lines) + 1
    assert "local, other places" in (tmp_path / "world" / "index.html").read_text()
    monkeypatch.setitem(world.TESTS, "local", None)  # would fail if it were called again
    assert measure_world(settings) == rows
    with pytest.raises(ValueError, match="world_tests must be some of domain, .* got 'magic'"):
        measure_world(settings.model_copy(update={"world_tests": ["magic"]}))
