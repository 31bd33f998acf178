"""The checks of a device pass on the CPU, and each fails when what it looks at is broken."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

from benchmarks.device import numbers, processes, training
from benchmarks.device.__main__ import main
from benchmarks.device.outcome import CheckFailedError, compared
from benchmarks.device.run import right_checks
from cxw_monai.networks import world_model
from cxw_monai.tasks.pretraining import step as pretraining_step
from cxw_monai.tasks.pretraining.step import PretrainingStep
from cxw_monai.transforms import TokenMaskSampler, device_crops

CPU = torch.device("cpu")


def test_the_cpu_is_right(tmp_path, capsys):
    """All checks, as the command makes them; measurements are for those who have minutes."""
    assert main(["--device", "cpu", "--minutes", "0", "--output", str(tmp_path)]) == 0
    results = json.loads((tmp_path / "report.json").read_text())["results"]
    right = {one["name"]: one for one in results if one["kind"] == "right"}
    assert right.keys() == right_checks(CPU, False).keys()
    assert {name for name, one in right.items() if one["status"] != "passed"} <= {
        "torch.compile",
        "two processes, NCCL",
        "forward and loss, bfloat16",  # on processors without it
    }
    assert {one["status"] for one in results if one["kind"] == "fast"} == {"not run"}
    printed = capsys.readouterr().out
    assert all(name in printed for name in right) and "out of time" in printed


def changed(network: Any, device: torch.device) -> Any:
    """A network as a device might hold it that computes something else."""
    wrong = copy.deepcopy(network).to(device)
    with torch.no_grad():
        wrong.encoder.norm.weight.mul_(1.2)
    return wrong


def every_second(function: Callable[..., Any], change: Callable[[Any], Any]) -> Callable[..., Any]:
    """`function`, of which every second result is changed: in a check that of the device."""
    calls = []

    def broken(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        found = function(*args, **kwargs)
        return found if len(calls) % 2 else change(found)

    return broken


@pytest.mark.parametrize("check", [numbers.forward_fp32, numbers.forward_bf16])
def test_another_network_is_seen(check, monkeypatch):
    monkeypatch.setattr(numbers, "bfloat16_support", lambda device: "slow")
    monkeypatch.setattr(numbers, "placed", changed)
    with pytest.raises(CheckFailedError, match="tolerance"):
        check(CPU)


@pytest.mark.parametrize("check", [numbers.golden_tensors, numbers.plain_loop])
def test_another_normalisation_is_seen(check, monkeypatch):
    monkeypatch.setattr(world_model, "TARGET_NORM_EPS", 1e-3)
    with pytest.raises(CheckFailedError, match="tolerance"):
        check(CPU)


def test_another_perturbation_is_seen(monkeypatch):
    monkeypatch.setattr(numbers, "perturb", every_second(numbers.perturb, lambda image: image * 0.999))
    with pytest.raises(CheckFailedError, match="view 1"):
        numbers.perturbations(CPU)


def test_crops_that_lie_a_pixel_aside_are_seen(monkeypatch):
    resize = device_crops._resize
    monkeypatch.setattr(device_crops, "_resize", lambda *args: resize(*args).roll(1, dims=-1))
    with pytest.raises(CheckFailedError, match="view"):
        numbers.crops(CPU)


def test_another_step_is_seen(monkeypatch):
    monkeypatch.setattr(training, "placed", every_second(training.placed, lambda network: changed(network, CPU)))
    with pytest.raises(CheckFailedError, match="tolerance"):
        training.step_weights(CPU)


def test_steps_that_change_nothing_are_seen(monkeypatch):
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: None)
    monkeypatch.setattr(PretrainingStep, "after_step", lambda *args: None)
    with pytest.raises(CheckFailedError, match="moved no weight"):
        training.step_weights(CPU)


def test_masks_that_do_not_resume_are_seen(monkeypatch):
    monkeypatch.setattr(TokenMaskSampler, "load_state_dict", lambda self, state: None)
    with pytest.raises(CheckFailedError, match="tensors differ"):
        training.resuming(CPU)


def test_blocks_that_compute_something_else_are_seen(monkeypatch):
    monkeypatch.setattr(training, "configure_blocks", lambda network, **options: changed(network, CPU))
    with pytest.raises(CheckFailedError, match="tolerance"):
        training.checkpointing(CPU)


def test_a_value_that_is_read_in_a_step_is_seen(monkeypatch):
    def after_step(self: PretrainingStep, network: Any, step: int) -> None:
        network.predictor.mask_token.sum().item()

    monkeypatch.setattr(PretrainingStep, "after_step", after_step)
    with pytest.raises(CheckFailedError, match="views of the loader: "):
        training.waits(CPU)


def test_a_copy_that_is_waited_for_is_seen(monkeypatch):
    monkeypatch.setattr(pretraining_step, "sent", lambda value, device: value.to(device))
    with pytest.raises(CheckFailedError, match=r"views of the loader: a blocking copy of \(4, \d+\)"):
        training.waits(CPU)


def test_what_steps_leave_behind_is_seen(monkeypatch):
    kept = []
    monkeypatch.setattr(training, "GROWTH_STEPS", 20)
    monkeypatch.setattr(PretrainingStep, "after_step", lambda *args: kept.append(torch.zeros(2**12)))
    with pytest.raises(CheckFailedError, match=f"tensors grew by {18 * 4 * 2**12} bytes"):
        training.memory_growth(CPU)


def test_processes_that_learn_from_their_own_films_only_are_seen(monkeypatch):
    inputs = processes._inputs
    monkeypatch.setattr(processes, "_inputs", lambda rank, count, device: inputs(0, 2, device))  # in this process
    with pytest.raises(CheckFailedError, match="tolerance"):
        processes.gloo(CPU)


def test_an_error_of_a_process_is_told():
    with pytest.raises(CheckFailedError, match=r"process 0: .*nonsense"):
        processes._run({"backend": "nonsense", "devices": ["cpu"]})


def test_values_that_are_not_finite_of_other_shape_or_missing_are_seen():
    one = {"loss": torch.ones(2)}
    assert compared(one, {"loss": torch.ones(2) + 1e-5}, 1e-4).startswith("difference 1.0e-05 (loss)")
    for wrong in (torch.tensor([1.0, torch.nan]), torch.ones(3), torch.ones(2, dtype=torch.float64)):
        with pytest.raises(CheckFailedError, match="loss is"):
            compared({"loss": wrong}, one, 1e-4)
    with pytest.raises(CheckFailedError, match="expected"):
        compared({}, one, 1e-4)
