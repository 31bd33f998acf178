"""One step of pretraining and one of its evaluation, for MONAI's supervised engines.

Source: CheXWorld (arXiv 2504.13820), section 4; the mended order is described in the class below.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping
from typing import Any

import torch
from monai.engines import SupervisedTrainer
from torch import Tensor, nn

from cxw_monai.networks import WorldModel, WorldModelInputs, WorldModelOutput
from cxw_monai.training.non_finite import NonFiniteLossError, NonFiniteSteps
from cxw_monai.training.precision import Precision
from cxw_monai.training.random_state import random_state
from cxw_monai.training.schedules import PretrainingSchedules
from cxw_monai.training.sharding import whole
from cxw_monai.transforms import TokenMaskSampler, perturb

from .monitors import embedding_statistics

__all__ = ["NonFiniteLossError", "PretrainingStep", "unwrapped", "world_view_inputs"]


def unwrapped(network: nn.Module) -> WorldModel:
    """The world model inside a DistributedDataParallel wrapper, or itself."""
    return network.module if isinstance(network, nn.parallel.DistributedDataParallel) else network


def world_view_inputs(
    batch: Mapping[str, Tensor], masks: TokenMaskSampler, device: torch.device, perturbed: bool = True
) -> WorldModelInputs:
    """Move a batch of view pairs to the device, perturb it there and draw its masks.

    Args:
        batch: `view1`, `view2` `[B, C, H, W]` in [0, 1]; `action1`, `action2` `[B, 5]`; `rel_12`, `rel_21` `[B, 4]`.
            Where an action asks for noise it is drawn from torch's global generator, which checkpoints save.
        masks: sampler of the batch's masks; view 2 takes view 1's in another order.
        device: where to compute.
        perturbed: whether perturbed copies are needed; otherwise they are the clean views.

    Returns:
        Inputs of the world model.
    """
    moved = {name: value.to(device, non_blocking=True) for name, value in batch.items() if isinstance(value, Tensor)}
    drawn = masks.sample(len(moved["view1"]))
    context, target = drawn.context.to(device), drawn.target.to(device)
    permutation = drawn.permutation.to(device)
    copies = {}
    for i in (1, 2):
        view, action = moved[f"view{i}"], batch[f"action{i}"]  # checking an action on the device would wait for it
        noise = torch.randn_like(view) if perturbed and bool((action[:, 4] > 0).any()) else None
        copies[i] = perturb(view, action, noise) if perturbed else view
    return WorldModelInputs(
        view1=moved["view1"],
        view2=moved["view2"],
        perturbed1=copies[1],
        perturbed2=copies[2],
        action1=moved["action1"],
        action2=moved["action2"],
        rel_12=moved["rel_12"],
        rel_21=moved["rel_21"],
        context1=context,
        context2=context[permutation],
        target1=target,
        target2=target[permutation],
    )


class PretrainingStep:
    """`iteration_update` of a `SupervisedTrainer` that trains a world model.

    In order: schedules set, forward under autocast, backward, and on the last micro-batch of a group gradient
    clipping, optimiser step, and then the EMA of the target (only after a step that was applied). A loss or gradient
    that is not finite never touches the weights: the run stops, or leaves the group out and counts it
    (`engine.state.metrics["skipped_steps"]`).

    The engine's output is one dictionary with `loss` (tensor), `scalars` (floats to log) and `count` (images), in a
    list as MONAI's tracking handlers expect it.

    Args:
        masks: sampler of token masks.
        schedules: learning rate, weight decay and EMA momentum by micro-batch.
        clip_norm: largest gradient norm; larger ones are scaled down. None to leave them.
        amp: autocast to `bfloat16`, `none`, or `auto`; see `supported_amp`.
        monitor_every: collapse monitors are computed every so many micro-batches, the epoch's first among them.
        non_finite: what happens with steps that are not finite; by default they stop the run.
    """

    def __init__(
        self,
        masks: TokenMaskSampler,
        schedules: PretrainingSchedules,
        clip_norm: float | None = 1.0,
        amp: str = "auto",
        monitor_every: int = 20,
        non_finite: NonFiniteSteps | None = None,
    ) -> None:
        if monitor_every < 1:
            raise ValueError(f"monitor_every must be at least 1, got {monitor_every}.")
        self.masks, self.schedules = masks, schedules
        self.clip_norm, self.precision, self.monitor_every = clip_norm, Precision(amp), monitor_every
        self.non_finite = non_finite or NonFiniteSteps()
        self.before: dict[str, Any] = {}
        """`iteration`, `masks` and `random` before the current group of micro-batches, should its step fail."""
        self._previous_end: float | None = None

    def __call__(self, engine: SupervisedTrainer, batch: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        step = engine.state.iteration - 1
        position = step % engine.state.epoch_length
        group = engine.accumulation_steps
        group_start = position - position % group
        group_size = min(group, engine.state.epoch_length - group_start)
        last = position == group_start + group_size - 1
        if position == group_start:
            self.before = {"iteration": step, "masks": self.masks.state_dict(), "random": random_state()}
        network, device = engine.network, engine.state.device
        network.train()
        if position == group_start:
            engine.optimizer.zero_grad(set_to_none=True)
        self._set_schedules(engine.optimizer, step)
        inputs = world_view_inputs(batch, self.masks, device, "domain" in unwrapped(network).settings.objectives)
        sync = contextlib.nullcontext() if last or not hasattr(network, "no_sync") else network.no_sync()
        with sync:
            with self.precision.autocast(device):
                output: WorldModelOutput = network(inputs)
            loss = output.loss.float()
            self.non_finite.backward(loss, group_size)
        scalars = {f"loss_{name}": value.item() for name, value in output.losses.items()}
        scalars = {"loss": loss.item(), **scalars}
        if not math.isfinite(scalars["loss"]):
            scalars = {}
        elif position % self.monitor_every == 0:
            scalars.update(self._monitors(output))
        scalars.update(lr=self.schedules.lr(step), ema=self.schedules.ema(step))
        if last:
            scalars["gradient_norm"] = self._apply(engine, step)
        scalars["images_per_second"] = self._rate(len(inputs.view1), first=position == 0)
        scalars = {name: value for name, value in scalars.items() if value is not None}
        return [{"loss": loss.detach(), "scalars": scalars, "count": len(inputs.view1)}]

    def _set_schedules(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        for group in optimizer.param_groups:
            group["lr"] = self.schedules.lr(step) * group.get("lr_scale", 1.0)
            if group.get("decays", True):
                group["weight_decay"] = self.schedules.weight_decay(step)

    def _apply(self, engine: SupervisedTrainer, step: int) -> float | None:
        """Clip, step, EMA; returns the gradient norm before clipping, None where the step was skipped."""
        model = unwrapped(engine.network)
        gradients = [p for p in model.parameters() if p.grad is not None]
        total = whole(nn.utils.get_total_norm([p.grad for p in gradients]))
        norm = total.item()
        if self.clip_norm is not None and norm > self.clip_norm:
            nn.utils.clip_grads_with_norm_(gradients, self.clip_norm, total)
        refused = self.non_finite.refuses(norm, step + 1)
        if self.non_finite.on_non_finite == "skip":
            engine.state.metrics["skipped_steps"] = self.non_finite.skipped
        if refused:
            return None
        engine.optimizer.step()
        model.update_target(self.schedules.ema(step))
        return norm

    @staticmethod
    def _monitors(output: WorldModelOutput) -> dict[str, float]:
        sets = {"target": output.targets, "prediction": output.predictions}
        found = {}
        for name, tokens in sets.items():
            joined = torch.cat([t.flatten(0, 1) for t in tokens.values()])
            found.update({f"{name}_{key}": value for key, value in embedding_statistics(joined).items()})
        whole = max(output.targets.values(), key=lambda t: t.shape[1])  # [B, N, D]
        if len(whole) > 1:
            found["target_image_std"] = whole.float().mean(dim=1).std(dim=0).mean().item()
        return found

    def _rate(self, images: int, first: bool) -> float | None:
        """Images per second since the previous micro-batch of the epoch ended, data loading included."""
        now, before = time.perf_counter(), self._previous_end
        self._previous_end = now
        return None if first or before is None else images / (now - before)
