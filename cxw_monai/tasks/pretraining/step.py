"""The step of pretraining a world model. Source: CheXWorld (arXiv 2504.13820), section 4."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cxw_monai.metrics.world.spread import embedding_statistics
from cxw_monai.networks import WorldModelInputs, WorldModelOutput
from cxw_monai.training.checkpoint_files import write_checkpoint
from cxw_monai.training.non_finite import NonFiniteSteps
from cxw_monai.training.schedules import PretrainingSchedules
from cxw_monai.training.step import TrainingStep, moved
from cxw_monai.transforms import TokenMaskSampler, perturb
from cxw_monai.transforms.device_crops import with_views
from cxw_monai.transforms.transfer import sent

__all__ = ["PretrainingStep", "world_view_inputs"]

USED = ("view1", "view2", "action1", "action2", "rel_12", "rel_21")
"""What the network needs of a batch, besides small crops."""


def world_view_inputs(
    batch: Mapping[str, Tensor], masks: TokenMaskSampler, device: torch.device, perturbed: bool = True
) -> WorldModelInputs:
    """Move a batch of view pairs to the device, perturb it there and draw its masks.

    Args:
        batch: `view1`, `view2` `[B, C, H, W]` in [0, 1], or films to cut them from (`with_views`); `action1`, `action2`
            `[B, 5]`; `rel_12`, `rel_21` `[B, 4]`.
            Where there are small crops, `local_crops` `[B, L, C, h, w]` and `local_actions` `[B, L, 5]`.
            Where an action asks for noise it is drawn from torch's global generator, which checkpoints save.
        masks: sampler of the batch's masks; view 2 takes view 1's in another order.
        device: where to compute.
        perturbed: whether perturbed copies are needed; otherwise they are the clean views.

    Returns:
        Inputs of the world model.
    """
    cut = with_views(batch, device)
    on_device = moved({name: cut[name] for name in (*USED, "local_crops") if name in cut}, device)
    drawn = masks.sample(len(on_device["view1"]))
    context, target, permutation = (sent(part, device) for part in (drawn.context, drawn.target, drawn.permutation))
    copies = {1: on_device["view1"], 2: on_device["view2"]}
    if perturbed:  # an action on the device would be waited for to be checked
        copies = {i: _perturbed(view, batch[f"action{i}"]) for i, view in copies.items()}
    small = on_device.get("local_crops")
    if small is not None:
        flat = _perturbed(small.flatten(0, 1), batch["local_actions"].flatten(0, 1))
        small = flat.view_as(small)
    return WorldModelInputs(
        **{name: on_device[name] for name in USED},
        perturbed1=copies[1],
        perturbed2=copies[2],
        context1=context,
        context2=context[permutation],
        target1=target,
        target2=target[permutation],
        local_crops=small,
    )


def _perturbed(images: Tensor, action: Tensor) -> Tensor:
    noise = torch.randn_like(images) if bool((action[:, 4] > 0).any()) else None
    return perturb(images, action, noise)


class PretrainingStep(TrainingStep):
    """`TrainingStep` of a world model, whose target follows by EMA after each step that was applied.

    Args:
        masks: sampler of token masks.
        schedules: learning rate, weight decay and EMA momentum by micro-batch.
        clip_norm, amp, non_finite: see `TrainingStep`.
        monitor_every: collapse monitors are computed every so many micro-batches, the epoch's first among them.
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
        super().__init__(schedules.lr, clip_norm, amp, non_finite, schedules.weight_decay, {"masks": masks})
        self.masks, self.schedules, self.monitor_every = masks, schedules, monitor_every

    def prepare(self, batch: Mapping[str, Tensor], network: Any, device: torch.device) -> WorldModelInputs:
        return world_view_inputs(batch, self.masks, device, network.settings.perturbs)

    def forward(self, network: nn.Module, inputs: WorldModelInputs) -> WorldModelOutput:
        return network(inputs)

    def losses(self, output: WorldModelOutput, inputs: WorldModelInputs) -> dict[str, Tensor]:
        return {"loss": output.loss.float(), **output.losses}

    def scheduled(self, step: int) -> dict[str, float]:
        return {**super().scheduled(step), "ema": self.schedules.ema(step)}

    def after_step(self, network: Any, step: int) -> None:
        network.update_target(self.schedules.ema(step))

    def monitors(self, output: WorldModelOutput, position: int) -> dict[str, float]:
        if position % self.monitor_every:
            return {}
        found = {}
        for name, tokens in {"target": output.targets, "prediction": output.predictions}.items():
            joined = torch.cat([t.flatten(0, 1) for t in tokens.values()])
            found.update({f"{name}_{key}": value for key, value in embedding_statistics(joined).items()})
        longest = max(output.targets.values(), key=lambda t: t.shape[1])  # [B, N, D]
        if len(longest) > 1:
            found["target_image_std"] = longest.float().mean(dim=1).std(dim=0).mean().item()
        return found

    def export(self, model: Mapping[str, Tensor], folder: Path) -> None:
        """`model.pt`, all of the world model, and `encoder.pt`, its target encoder as `RadiographEmbedder` names it."""
        write_checkpoint(dict(model), folder / "model.pt")
        prefix = "target_encoder."
        encoder = {name.replace(prefix, "encoder.", 1): v for name, v in model.items() if name.startswith(prefix)}
        write_checkpoint(encoder, folder / "encoder.pt")
