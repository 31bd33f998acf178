"""What can be known of other devices without one: tensors stay where they were sent, and settings reach PyTorch.

PyTorch's `meta` device has shapes and dtypes but no values: whatever reads a value there, or brings a tensor back to
the CPU, fails.
"""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch
from torch import Tensor

from cxw_monai.networks import RadiographViT, WorldModel, WorldModelPredictor, WorldModelSettings
from cxw_monai.tasks.pretraining.step import world_view_inputs
from cxw_monai.training import allow_tf32
from cxw_monai.training.step import scalars_of
from cxw_monai.transforms import RandActiond, RandWorldViewPaird, TokenMaskSampler
from cxw_monai.transforms.device_crops import collate_films
from cxw_monai.transforms.perturb import perturb
from cxw_monai.transforms.transfer import sent

META = torch.device("meta")


def batch(noise: float) -> dict[str, Tensor]:
    view = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    action = torch.tensor([[1.2, 0.8, 1.5, 1.0, noise], [1.0, 1.0, 1.0, 0.0, 0.0]])
    rel = torch.tensor([[0.1, 0.2, 0.0, 0.1]] * 2)
    return {"view1": view, "view2": view, "action1": action, "action2": action, "rel_12": rel, "rel_21": rel}


def tensors(inputs: object) -> dict[str, Tensor]:
    return {f.name: getattr(inputs, f.name) for f in fields(inputs) if isinstance(getattr(inputs, f.name), Tensor)}


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_a_batch_is_moved_perturbed_and_masked_on_the_device(noise):
    found = tensors(world_view_inputs(batch(noise), TokenMaskSampler((4, 4), min_keep=2), META))
    assert {"view1", "perturbed2", "action1", "rel_21", "context1", "target2"} <= found.keys()
    assert {name: value.device.type for name, value in found.items()} == dict.fromkeys(found, "meta")
    assert found["perturbed1"].dtype == torch.float32 and found["context1"].dtype == torch.int64


def test_whole_films_are_cut_on_the_device_and_what_is_not_needed_stays():
    views, actions = RandWorldViewPaird(size=32, cut=False), RandActiond()
    samples = [actions(views({"image": np.full((1, 40 + n, 48), 100, np.uint8), "index": n})) for n in range(2)]
    found = tensors(world_view_inputs(collate_films(samples), TokenMaskSampler((4, 4), min_keep=2), META))
    assert found["view1"].shape == found["perturbed2"].shape == (2, 1, 32, 32)
    assert {value.device.type for value in found.values()} == {"meta"}
    assert not found.keys() & {"film", "jitter", "box1", "index"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scalars_are_read_together_and_are_those_read_one_by_one(dtype):
    values = torch.rand(3, dtype=dtype)
    found = scalars_of({"loss": values[0], "intra": values[1].float()}, gradient_norm=values[2])
    assert found == {
        "loss": values[0].item(),
        "loss_intra": values[1].float().item(),
        "gradient_norm": values[2].item(),
    }


def test_what_is_sent_from_pageable_memory_is_pinned_for_cuda_alone(monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.append(self) or self)
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda self: False)
    to, value = [], torch.ones(2)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *args, **kwargs: to.append((args, kwargs)) or self)
    sent(value, torch.device("cuda:0"))
    assert pinned == [value] and to == [((torch.device("cuda:0"),), {"non_blocking": True})]
    sent(value, torch.device("cpu"))
    assert len(pinned) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_perturbation_stays_on_its_device_and_in_its_dtype(dtype):
    view, action = batch(0.1)["view1"].to(META, dtype), batch(0.1)["action1"]
    out = perturb(view, action, torch.randn_like(view))
    assert (out.device, out.dtype, out.shape) == (META, dtype, view.shape)


@pytest.mark.parametrize("settings", [{}, {"targets": "both"}, {"unified": False}, {"target_layers": 2}], ids=str)
def test_a_step_and_its_moving_average_never_leave_the_device(settings):
    encoder = RadiographViT(image_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2)
    settings = WorldModelSettings(**settings)
    predictor = WorldModelPredictor(
        encoder.grid, 16, 16, depth=1, num_heads=2, out_dim=settings.target_channels(encoder)
    )
    model = WorldModel(encoder, predictor, settings).to(META).train()
    output = model(world_view_inputs(batch(0.1), TokenMaskSampler((4, 4), min_keep=2), META))
    assert output.loss.device == META and output.loss.dtype == torch.float32
    assert all(value.device == META for value in (*output.predictions.values(), *output.targets.values()))
    output.loss.backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.device == META for p in trained if p is not predictor.mask_token)
    model.update_target(0.9)


def test_tf32_is_set_for_products_and_convolutions_and_can_be_left_out():
    backends = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [backend.allow_tf32 for backend in backends]
    try:
        for allowed in (True, False):
            allow_tf32(allowed)
            assert [backend.allow_tf32 for backend in backends] == [allowed, allowed]
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.allow_tf32 = value
