"""Weights after a few steps of both training steps, computed by hand: plain gradient descent on a line.

The network is `weight * v + bias`, whose loss on a micro-batch of value v has the gradient (v, 1); with momentum-free
SGD each weight can be followed on paper, and no adaptive optimiser hides a wrong factor.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from torch import nn

from cxw_monai.networks import RadiographViT, WorldModel, WorldModelPredictor, radiograph_segmenter
from cxw_monai.tasks.pretraining.step import PretrainingStep
from cxw_monai.tasks.segmentation.step import SegmentationStep
from cxw_monai.training import NonFiniteSteps, PretrainingSchedules, parameter_groups, warmup_cosine
from cxw_monai.training.parameter_groups import layer_decay_groups
from cxw_monai.transforms import TokenMaskSampler

KINDS = ("pretraining", "segmentation")
NAN = float("nan")


class Line(nn.Module):
    """`weight * v + bias` as a world model or a segmenter gives it; `bias_slope` is the bias's gradient."""

    settings = SimpleNamespace(objectives=("global",), perturbs=False)

    def __init__(self, kind: str, start: float = 0.0, bias_slope: float = 1.0) -> None:
        super().__init__()
        self.kind, self.bias_slope = kind, bias_slope
        self.weight = nn.Parameter(torch.full((1, 1), start))
        self.bias = nn.Parameter(torch.full((1,), start))
        self.updates: list[tuple[float, float]] = []
        """(momentum, weight at that moment) of each update of the target."""

    def forward(self, batch):
        value = (batch.view1 if self.kind == "pretraining" else batch).mean()
        line = self.weight[0, 0] * value + self.bias[0] * self.bias_slope
        if self.kind == "segmentation":
            return line.expand(1, 1, 1, 1)
        tokens = {"one": torch.arange(4.0).view(1, 2, 2)}
        return SimpleNamespace(loss=line, losses={"global": line}, targets=tokens, predictions=tokens)

    def update_target(self, momentum: float) -> None:
        self.updates.append((momentum, self.weight.item()))


def batch_of(kind: str, value: float) -> dict[str, torch.Tensor]:
    film = torch.full((1, 1, 8, 8), float(value))
    if kind == "segmentation":
        return {"image": film, "label": torch.zeros(1, 1, 1, 1), "known": torch.ones(1, 1, dtype=torch.bool)}
    views = {f"view{i}": film for i in (1, 2)} | {f"action{i}": torch.zeros(1, 5) for i in (1, 2)}
    return views | {"rel_12": torch.zeros(1, 4), "rel_21": torch.zeros(1, 4)}


def run(
    kind,
    values,
    epochs=1,
    accumulation=1,
    clip=None,
    groups=None,
    skip=False,
    network=None,
    weight_decay=0.0,
    **schedule,
):
    """The network after these micro-batches an epoch, and of each micro-batch its scalars and each group's settings."""
    network = network or Line(kind)
    schedule = {"lr": 1.0, "lr_end": 1.0, "warmup_epochs": 0, **schedule}
    non_finite = NonFiniteSteps("skip" if skip else "stop")
    if kind == "pretraining":
        masks = TokenMaskSampler(grid=(4, 4), min_keep=2)
        decay = {"weight_decay": weight_decay, "weight_decay_end": weight_decay}
        schedules = PretrainingSchedules(len(values), epochs, **{**decay, **schedule})
        step = PretrainingStep(masks, schedules, clip_norm=clip, amp="none", non_finite=non_finite)
    else:
        rate = warmup_cosine(schedule["lr"], schedule["lr_end"], len(values), epochs, schedule["warmup_epochs"])
        step = SegmentationStep(
            lambda logits, label, known: {"loss": logits.sum()}, rate, clip_norm=clip, amp="none", non_finite=non_finite
        )
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=[batch_of(kind, value) for value in values],
        network=network,
        optimizer=torch.optim.SGD(groups(network) if groups else network.parameters(), 1.0, weight_decay=weight_decay),
        loss_function=None,
        iteration_update=step,
        accumulation_steps=accumulation,
        decollate=False,
    )
    seen = []
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED,
        lambda engine: seen.append(
            (
                engine.state.output[0]["scalars"],
                [(group["lr"], group["weight_decay"]) for group in engine.optimizer.param_groups],
            )
        ),
    )
    trainer.run()
    return network, seen


def ended_at(network: Line) -> tuple[float, float]:
    return network.weight.item(), network.bias.item()


@pytest.mark.parametrize("kind", KINDS)
class TestAccumulation:
    def test_gradients_are_averaged_over_the_group(self, kind):
        """Two groups, (2, 4) and (6, 2): mean gradients (3, 1) and (4, 1)."""
        assert ended_at(run(kind, [2, 4, 6, 2], accumulation=2)[0]) == (-7.0, -2.0)

    def test_a_smaller_last_group_is_averaged_over_what_it_holds(self, kind):
        """(2, 4) and (10) alone: 3 + 10; and again in the second epoch, whose groups start anew."""
        network, seen = run(kind, [2, 4, 10], epochs=2, accumulation=2)
        assert ended_at(network) == (-26.0, -4.0)
        assert [scalars.get("gradient_norm") for scalars, _ in seen] == pytest.approx(
            [None, 10**0.5, 101**0.5] * 2, nan_ok=True
        )

    def test_without_it_every_micro_batch_is_a_step(self, kind):
        assert ended_at(run(kind, [2, 4, 10])[0]) == (-16.0, -3.0)

    def test_the_groups_last_learning_rate_is_that_of_its_step(self, kind):
        """A warm-up over four micro-batches, rates 0, 1/3, 2/3, 1: the steps have those of the second and fourth."""
        network, _ = run(kind, [3, 3, 3, 3], accumulation=2, warmup_epochs=1)
        assert ended_at(network) == pytest.approx((-3 * (1 / 3 + 1), -(1 / 3 + 1)))


@pytest.mark.parametrize("kind", KINDS)
class TestClipping:
    """Gradient (3, 4) of the group (6, 0) with a bias's slope of 4: norm 5."""

    def test_the_averaged_gradient_is_clipped_and_the_norm_before_is_told(self, kind):
        network, seen = run(kind, [6, 0], accumulation=2, clip=1.0, network=Line(kind, bias_slope=4.0))
        assert ended_at(network) == pytest.approx((-0.6, -0.8), rel=1e-5)
        assert seen[-1][0]["gradient_norm"] == pytest.approx(5.0)

    def test_a_smaller_one_is_left_as_it_is(self, kind):
        network, seen = run(kind, [6, 0], accumulation=2, clip=5.5, network=Line(kind, bias_slope=4.0))
        assert ended_at(network) == (-3.0, -4.0) and seen[-1][0]["gradient_norm"] == pytest.approx(5.0)

    def test_none_clips_nothing(self, kind):
        assert ended_at(run(kind, [6, 0], accumulation=2, network=Line(kind, bias_slope=4.0))[0]) == (-3.0, -4.0)


@pytest.mark.parametrize("kind", KINDS)
class TestLearningRate:
    def test_warm_up_from_0_to_the_peak_then_half_a_cosine_to_the_end(self, kind):
        """Three warm-up steps of seven; then progress 0, 1/3, 2/3 and 1: 0.1 + 0.45 * (1 + cos(pi * progress))."""
        _, seen = run(kind, [1.0] * 7, lr=1.0, lr_end=0.1, warmup_epochs=3 / 7 + 1e-6)
        expected = [0, 0.5, 1, 1, 0.1 + 0.45 * 1.5, 0.1 + 0.45 * 0.5, 0.1]
        assert [groups[0][0] for _, groups in seen] == pytest.approx(expected)
        assert [scalars["lr"] for scalars, _ in seen] == pytest.approx(expected)

    def test_each_group_has_its_own_share(self, kind):
        """The weight's layer learns at half the rate of the bias's: 0.1 * (0.5 * 3, 1) a step."""

        def groups(network):
            return [{"params": [network.weight], "lr_scale": 0.5}, {"params": [network.bias]}]

        network, seen = run(kind, [3, 3], lr=0.1, lr_end=0.1, groups=groups)
        assert ended_at(network) == pytest.approx((-0.3, -0.2))
        assert all([rate for rate, _ in told] == pytest.approx([0.05, 0.1]) for _, told in seen)


@pytest.mark.parametrize("kind", KINDS)
def test_weight_decay_is_of_matrices_alone(kind):
    """No gradient, rate 0.1, decay 0.5: the matrix loses a twentieth a step, the bias nothing."""
    start = Line(kind, start=1.0, bias_slope=0.0)
    network, seen = run(kind, [0, 0], lr=0.1, lr_end=0.1, weight_decay=0.5, groups=parameter_groups, network=start)
    assert ended_at(network) == pytest.approx((0.95**2, 1.0))
    assert all(told == [(0.1, 0.5), (0.1, 0.0)] for _, told in seen)


def test_weight_decay_follows_its_schedule_where_there_is_any():
    """From 0.1 to 0.5 in three steps: 0.1, 0.3, 0.5; the group of biases stays at 0."""
    start = Line("pretraining", start=1.0, bias_slope=0.0)
    schedule = {"weight_decay": 0.1, "weight_decay_end": 0.5}
    masks = TokenMaskSampler(grid=(4, 4), min_keep=2)
    step = PretrainingStep(masks, PretrainingSchedules(3, 1, lr=1.0, lr_end=1.0, **schedule), amp="none")
    optimizer, told = torch.optim.SGD(parameter_groups(start), 1.0, weight_decay=9.0), []
    for number in range(3):
        step._set_schedules(optimizer, number)
        told.append([group["weight_decay"] for group in optimizer.param_groups])
    assert told == [pytest.approx(pair) for pair in ([0.1, 0.0], [0.3, 0.0], [0.5, 0.0])]


class TestTarget:
    def test_it_follows_after_each_applied_step_with_the_momentum_of_that_step(self):
        """Momentum 0.5 to 1 over four micro-batches: 0.5, 0.625, 0.875, 1; steps at the second and the fourth."""
        network, seen = run("pretraining", [2, 4, 6, 2], accumulation=2, ema=0.5, ema_end=1.0)
        assert network.updates == [(pytest.approx(0.625), -3.0), (pytest.approx(1.0), -7.0)]
        assert [scalars["ema"] for scalars, _ in seen] == pytest.approx([0.5, 0.625, 0.875, 1.0])

    def test_it_stays_where_a_step_was_left_out(self):
        network, _ = run("pretraining", [2, NAN, 6], skip=True, ema=0.5, ema_end=0.5)
        assert network.updates == [(0.5, -2.0), (0.5, -8.0)]

    def test_it_is_that_share_of_itself_and_the_rest_of_the_encoder(self):
        encoder = RadiographViT(image_size=16, patch_size=8, embed_dim=8, depth=1, num_heads=1)
        model = WorldModel(encoder, WorldModelPredictor(encoder.grid, 8, 8, depth=1, num_heads=1))
        with torch.no_grad():
            model.encoder.norm.weight.fill_(2.0)
            model.target_encoder.norm.weight.fill_(10.0)
        model.update_target(0.75)
        torch.testing.assert_close(model.target_encoder.norm.weight, torch.full((8,), 0.75 * 10 + 0.25 * 2))


@pytest.mark.parametrize("kind", KINDS)
def test_a_group_with_a_step_that_is_not_finite_leaves_no_gradient_behind(kind):
    """Of (2, 4), (NaN, 9) and (6, 2) the middle one is left out whole: -3 and -4 remain."""
    network, _ = run(kind, [2, 4, NAN, 9, 6, 2], accumulation=2, skip=True)
    assert ended_at(network) == (-7.0, -2.0)


def test_a_step_of_adamw_decays_and_moves_each_layer_by_its_own_rate():
    """AdamW's first step moves each weight by the rate times the gradient's sign, after decaying it by rate * decay."""
    network = radiograph_segmenter("tiny", structures=["lungs"], decoder="linear", image_size=32, frozen_blocks=0)
    optimizer = torch.optim.AdamW(layer_decay_groups(network, 0.5), lr=1.0, weight_decay=0.1)
    step = SegmentationStep(lambda *_: {}, lambda number: 0.01)
    before = {name: value.clone() for name, value in network.named_parameters()}
    for group in optimizer.param_groups:
        group["lr"] = step.schedule(0) * group["lr_scale"]
        for parameter in group["params"]:
            parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    shares = {
        "encoder.patch_embed.proj": 0.5**13,
        "encoder.blocks.0.attn.qkv": 0.5**12,
        "encoder.blocks.11.mlp.fc2": 0.5,
    }
    shares |= {"encoder.norm": 1.0, "decoder.head": 1.0}
    after = dict(network.named_parameters())
    for layer, share in shares.items():
        for name in (f"{layer}.weight", f"{layer}.bias"):
            rate, decay = 0.01 * share, 0.1 if before[name].ndim > 1 else 0.0
            torch.testing.assert_close(after[name], before[name] * (1 - rate * decay) - rate, rtol=0, atol=2e-7)
