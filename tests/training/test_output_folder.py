"""The output folder of a bundle's run: held before anything is written, by the process that writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from cxw_monai.io.results import folders
from cxw_monai.io.results.folders import LOCK, MARKER, is_result_folder
from cxw_monai.training import check_run, hold_output, release_output, training
from cxw_monai.training.batch_plan import BatchPlan

CONFIGS = sorted((Path(__file__).parents[2] / "bundles").glob("*/configs/*.json"))


def _names(config: Path) -> str:
    return f"{config.parts[-3]}/{config.name}"


@pytest.mark.parametrize("config", [c for c in CONFIGS if '"initialize"' in c.read_text()], ids=_names)
def test_a_run_holds_its_output_before_it_writes(config):
    """By `check_run` or by itself, in the steps before the engine's; evaluations of one file need no lock."""
    content = json.loads(config.read_text())
    steps = [json.dumps(step) for step in (*content["initialize"], *content.get("run", [])[:-1])]
    holding = [step for step in steps if ".hold_output" in step or ".check_run" in step]
    free = (
        "chexworld_segmentation/inference.json",
        "chexworld_classification/inference.json",
        "chexworld_landmarks/inference.json",
        "chexworld_pretraining/evaluate.json",
    )
    assert len(holding) == (_names(config) not in free)
    assert "pictures." not in json.dumps(content["initialize"])


def _arguments():
    plan = BatchPlan(batch_size=1, world_size=1, accumulation_steps=1, global_batch_size=None, base_lr=1.0)
    network = torch.nn.Linear(1, 1)
    return (False, {}, network, torch.optim.SGD(network.parameters()), plan, 5)


def test_a_training_run_is_refused_while_another_one_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "_PATIENCE", 0.0)
    run = _arguments()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "checkpoint_epoch=1.pt").write_bytes(b"of the run that goes on")
    with folders.output_lock(tmp_path / "out"), pytest.raises(folders.OutputBusyError):
        check_run(tmp_path / "out", *run)
    check_run(tmp_path / "new", *run)
    with pytest.raises(folders.OutputBusyError), folders.output_lock(tmp_path / "new"):
        pass
    release_output(tmp_path / "new")


def test_a_new_folder_is_held_and_marked_and_given_back(tmp_path):
    hold_output(tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {LOCK, MARKER}
    release_output(tmp_path / "out")
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "a.png").write_bytes(b"x")
    hold_output(tmp_path / "films")
    assert not is_result_folder(tmp_path / "films")  # it holds files that the run didn't make
    release_output(tmp_path / "films")


def test_only_the_main_process_takes_the_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "is_main_process", lambda: False)
    check_run(tmp_path / "out", *_arguments())
    assert not (tmp_path / "out").exists()
