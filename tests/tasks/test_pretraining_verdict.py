"""The verdict's page, the choice among checkpoints, and the tests of a world model as a command."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from cxw_monai.metrics.world.films import read_world_films
from cxw_monai.metrics.world.worlds import ModelWorld
from cxw_monai.tasks.pretraining import verdict, world
from cxw_monai.tasks.pretraining.components import new_network, split_films
from cxw_monai.tasks.pretraining.settings import PretrainingSettings, WorldSettings
from cxw_monai.tasks.pretraining.verdict import advice, best_checkpoint, judge, label_free_scores, score_checkpoints
from cxw_monai.tasks.pretraining.world import measure_world, table_lines
from cxw_monai.weights.files import CheckpointError
from cxw_monai.weights.kinds import read_weights
from tests.helpers.small_classifier import save_classifier

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


def test_the_page_names_what_was_left_out(run, tmp_path, monkeypatch):
    monkeypatch.setattr(verdict, "FEWEST", 8)
    some = films(8)
    rows = [{**row, "label_rare": int(n < 2)} for n, row in enumerate(some.rows)]
    some = replace(some, rows=rows, unreadable=["broken.png"])
    settings = run[1].model_copy(update={"output_dir": str(tmp_path)})
    found = judge(ModelWorld(new_network(settings), "none"), some, settings)
    assert found["labels_left_out"] == {"label_rare": "2 patients with the rarer value, 15 are needed"}
    page = " ".join((tmp_path / "verdict.html").read_text().split())
    assert "left out: 1 film: broken.png." in page
    assert "Labels that were left out: label_rare (2 patients with the rarer value, 15 are needed)." in page


class Cached:
    """Decoded films of a run, so many a patient."""

    def __init__(self, name, patients, each):
        self.items = [{"image": f"{name}{n}.png", "patient_id": f"{name}{n // each}"} for n in range(patients * each)]

    def __len__(self):
        return len(self.items)

    def image(self, place):
        return np.full((1, 40, 40), place % 256, np.uint8)


@pytest.mark.parametrize(("patients", "each", "held_out"), [(30, 2, True), (4, 15, False)])
def test_a_run_is_judged_on_held_out_films_of_enough_patients(run, tmp_path, monkeypatch, patients, each, held_out):
    seen = {}
    monkeypatch.setattr(
        verdict, "judge", lambda world, films, settings, seen_, held: seen.update(films=films, held=held)
    )
    settings = run[1].model_copy(update={"output_dir": str(tmp_path)})
    torch.save({"model": new_network(settings).state_dict()}, tmp_path / "model.pt")
    verdict.judge_run(settings, Cached("train", 40, 1), Cached("held", patients, each))
    assert seen["held"] is held_out and len(seen["films"]) == 40
    names = {row["patient_id"][:4] for row in seen["films"].rows}
    assert names == ({"held"} if held_out else {"held", "trai"})


def test_a_misspelt_label_is_refused_before_the_training(tmp_path):
    for n in range(4):
        Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / f"{n}.png")
    manifest = tmp_path / "films.csv"
    rows = "".join(f"{n}.png,{n},{n % 2}\n" for n in range(4))
    manifest.write_text("image,patient_id,label_effusion\n" + rows)
    settings = PretrainingSettings(datalist=str(manifest), labels=["label_efusion"], val_fraction=0.5)
    expected = (
        "films.csv: no column 'label_efusion' for labels, did you mean label_effusion.? It has image, patient_id,"
    )
    with pytest.raises(ValueError, match=expected):
        split_films(settings)
    for fine in ({"labels": ["label_effusion"]}, {"labels": ["none"]}, {"verdict": False}, {"labels": None}):
        assert split_films(settings.model_copy(update=fine)).everything


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
    with pytest.raises(ValueError, match="world_tests must be some of domain, .* got 'locl', did you mean local"):
        measure_world(settings.model_copy(update={"world_tests": ["locl"]}))


def test_a_part_is_computed_again_where_what_it_is_made_of_changed(run, tmp_path, monkeypatch):
    folder, small = run
    calls = []

    def counted(*given):
        calls.append(given)
        return []

    monkeypatch.setattr(world, "TESTS", {"one": counted, "two": counted})
    (tmp_path / "films").mkdir()
    manifest = tmp_path / "films" / "films.csv"

    def write(column, values, shade=0):
        for n in range(4):
            grey = np.random.default_rng([n, shade]).integers(0, 256, (20, 20), dtype=np.uint8)
            Image.fromarray(grey).save(tmp_path / "films" / f"{n}.png")
        lines = [f"{n}.png,p{n},{value}" for n, value in enumerate(values)]
        manifest.write_text("\n".join([f"image,patient_id,{column}", *lines]) + "\n")

    def computed(**given):
        calls.clear()
        given = {"ckpt": str(folder / "checkpoint_epoch=1.pt"), "random_networks": 0, "world_tests": ["one"]} | given
        given |= {"output_dir": str(tmp_path / "out"), "datalist": str(manifest), "amp": "none"}
        measure_world(WorldSettings(**(SMALL | given)))
        return len(calls)

    write("landmark_carina", ['"[1, 2]"'] * 4)
    assert computed() == 1 and computed() == 0
    assert computed(world_tests=["one", "two"]) == 1  # the first is there
    assert computed(random_networks=1) == 1
    write("landmark_carina", ['"[1, 3]"'] * 4)
    assert computed() == 1
    write("sex", ["M", "F", "M", "F"])
    assert computed() == 1
    write("sex", ["M", "F", "M", "F"], shade=1)
    assert computed() == 1
    assert computed(seed=1) == 1
    assert computed(predictor_depth=1, objectives=["local"]) == 1
    assert computed(ckpt=str(folder / "checkpoint_epoch=2.pt")) == 1
    assert computed() == 0


def test_a_random_world_model_has_nothing_that_was_trained(run, tmp_path):
    settings = WorldSettings(output_dir=str(tmp_path), amp="none", flip_embedding=True, **SMALL)
    trained = new_network(settings)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(7.0)
    torch.save({"model": trained.state_dict()}, tmp_path / "model.pt")
    weights = read_weights(tmp_path / "model.pt")
    own, first, again, other = (world.world_of(settings, weights, seed).model for seed in (None, 1, 1, 2))
    for name, parameter in own.named_parameters():
        assert torch.equal(parameter, dict(trained.named_parameters())[name])
    for name, parameter in first.named_parameters():
        same = [torch.equal(parameter, dict(model.named_parameters())[name]) for model in (own, again, other)]
        constant = name.endswith("pos_embed")
        starts_alike = constant or parameter.std() == 0  # norms and biases
        assert same == [constant, True, starts_alike], name
    for mine, target in zip(first.encoder.parameters(), first.target_encoder.parameters(), strict=True):
        assert torch.equal(mine, target)


def test_a_model_of_another_task_is_refused(tmp_path):
    settings = WorldSettings(output_dir=str(tmp_path), **SMALL)
    weights = read_weights(save_classifier(tmp_path / "model.pt"))
    with pytest.raises(CheckpointError, match="weights of kind 'classification', not of a pretraining run; give"):
        world.world_of(settings, weights)


def test_films_of_too_few_patients_are_refused(run, radiograph_folder, tmp_path):
    settings = WorldSettings(
        output_dir=str(tmp_path), dataset_dir=str(radiograph_folder), ckpt=str(run[0] / "checkpoint_epoch=1.pt"),
        world_films=3, random_networks=0, amp="none", **SMALL,
    )  # fmt: skip
    with pytest.raises(ValueError, match="radiographs: the tests need films of at least 4 patients, got 3 films of 3;"):
        measure_world(settings)
