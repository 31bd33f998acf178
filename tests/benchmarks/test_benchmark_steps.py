"""The plain loop does the package's step, number for number, and both are measured side by side."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.speed.cases import Case, measure
from benchmarks.speed.plain_loop import PlainLoop
from benchmarks.speed.startup import measure_data, measure_startup
from benchmarks.speed.steps import measure_processes, measure_step
from cxw_monai.networks import (
    RadiographViT,
    WorldModel,
    WorldModelInputs,
    WorldModelPredictor,
    WorldModelSettings,
    configure_blocks,
)
from cxw_monai.training import parameter_groups

SMALL = {"size": "tiny", "batch": 2, "image_size": 160, "predictor_dim": 96, "predictor_depth": 1}


def world_model(cross_targets: str) -> WorldModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = RadiographViT(image_size=48, patch_size=8, embed_dim=24, depth=2, num_heads=3)
        predictor = WorldModelPredictor(encoder.grid, 24, 12, depth=2, num_heads=3)
        model = WorldModel(encoder, predictor, WorldModelSettings(cross_targets=cross_targets))
        for parameter in model.encoder.parameters():  # target and encoder apart, biases not zero
            if parameter.requires_grad:
                parameter.data.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def drawn_inputs() -> WorldModelInputs:
    generator = torch.Generator().manual_seed(1)
    image = [torch.rand(3, 1, 48, 48, generator=generator) for _ in range(4)]
    action = [torch.rand(3, 5, generator=generator) for _ in range(2)]
    rel = [torch.rand(3, 4, generator=generator) * torch.tensor([0.3, 0.3, 0, 0.3]) for _ in range(2)]
    places = [torch.stack([torch.randperm(36, generator=generator) for _ in range(3)]) for _ in range(2)]
    context, target = [p[:, :14] for p in places], [p[:, 14:25] for p in places]
    return WorldModelInputs(*image, *action, *rel, *context, *target)


@pytest.mark.parametrize("cross_targets", ["all", "masked"])
@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_step_of_the_plain_loop_is_a_step_of_the_package(cross_targets, checkpoint):
    model, inputs = world_model(cross_targets).double(), drawn_inputs().to("cpu", torch.float64)
    loop = PlainLoop(copy.deepcopy(model), lr=1e-2, weight_decay=0.05, momentum=0.9)
    for part in (loop.encoder, loop.target, loop.predictor):
        part.double()
    loop.target.load_state_dict(model.target_encoder.state_dict())
    configure_blocks(model, checkpoint=checkpoint).train()
    optimizer = torch.optim.AdamW(parameter_groups(model), lr=1e-2, weight_decay=0.05, fused=True)
    loss = model(inputs).loss
    loss.backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer.step()
    model.update_target(0.9)
    assert loop.step(inputs) == pytest.approx(loss.item(), abs=1e-6)  # its tables are made in float32
    for ours, plain in ((model.encoder, loop.encoder), (model.target_encoder, loop.target)):
        for name, value in plain.state_dict().items():
            torch.testing.assert_close(ours.state_dict()[name], value, rtol=0, atol=2e-5, msg=name)
    for name, value in loop.predictor.state_dict().items():
        torch.testing.assert_close(model.predictor.state_dict()[name], value, rtol=0, atol=2e-5, msg=name)


def test_in_bfloat16_the_package_is_as_near_to_float64_as_the_plain_loop():
    model, inputs = world_model("all").train(), drawn_inputs()
    loop = PlainLoop(copy.deepcopy(model))
    loop.target.load_state_dict(model.target_encoder.state_dict())
    exact = copy.deepcopy(model).double()
    exact(inputs.to("cpu", torch.float64)).loss.backward()
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(inputs).loss, loop.loss(inputs)
    for loss in losses:
        loss.backward()
    want = dict(exact.encoder.named_parameters())
    apart = []
    for encoder in (model.encoder, loop.encoder):
        found = dict(encoder.named_parameters())
        blocks = [name for name in want if name.startswith("blocks.")]
        errors = [(found[n].grad - want[n].grad).norm() / want[n].grad.norm() for n in blocks]
        apart.append(torch.stack(errors).mean().item())
    assert 0 < apart[0] < 1.25 * apart[1] < 0.1


@pytest.mark.parametrize("amp", ["none", "bfloat16"])
def test_both_sides_are_measured_in_turns(amp):
    found = {(m.name.split(", ", 1)[1], m.unit): m.values for m in measure_step(2, amp=amp, **SMALL)}
    ours, plain = found["package", "images/cpu-s"], found["plain loop", "images/cpu-s"]
    assert found["speed over plain", "x"] == pytest.approx([a / b for a, b in zip(ours, plain, strict=True)])
    assert all(len(found[side, "images/s"]) == 2 for side in ("package", "plain loop"))
    if ("package, peak", "MiB") in found:
        peaks = [found[f"{side}, peak", "MiB"][0] for side in ("package", "plain loop")]
        assert found["memory over plain", "x"] == pytest.approx([peaks[0] / peaks[1]])
        assert min(peaks) > 100
    assert all(math.isfinite(v) and v > 0 for values in found.values() for v in values)


def test_two_processes_are_measured_in_turns_with_one():
    one, two, throughput, processor = measure_processes(2, batch=2, image_size=96)
    assert [m.unit for m in (one, two, throughput, processor)] == ["images/s", "images/s", "x", "x"]
    assert throughput.values == pytest.approx([b / a for a, b in zip(one.values, two.values, strict=True)])
    assert all(len(m.values) == 2 and min(m.values) > 0 for m in (one, two, throughput, processor))


def test_the_package_alone_with_checkpointing():
    result = measure(Case("step", {**SMALL, "checkpoint": True, "beside_plain": False}), 1)
    names = [found["name"] for found in result["measurements"]]
    assert "training step tiny fp32 160 px batch 2 checkpoint, package" in names
    assert not any("plain" in name for name in names)


def test_a_side_that_fails_is_told():
    with pytest.raises(RuntimeError, match=r"ValueError: image_size \(100, 100\) must be a positive multiple"):
        measure_step(1, "tiny", batch=2, image_size=100)


def test_a_data_set_until_its_first_batch():
    found = measure_data(2, rows=30, batch=4, size=32)
    assert [m.name for m in found] == [
        "data set of 30 films, manifest read and split",
        "data set of 30 films, first batch, cache to be made",
        "data set of 30 films, first batch, cache there",
    ]
    assert [len(m.values) for m in found] == [2, 1, 2]
    assert all(value > 0 for m in found for value in m.values)


@pytest.mark.slow
def test_the_bundles_start_ends_at_the_first_step():
    bundle = Path(__file__).parents[2] / "bundles" / "chexworld_pretraining"
    start, imports = measure_startup(1, str(bundle), films=24)
    assert min(start.values[0], imports.values[0]) > 0
