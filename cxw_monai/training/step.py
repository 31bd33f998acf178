"""One step of training, whatever the task: what a task adds is its loss and, where it differs, its forward pass."""

from __future__ import annotations

import contextlib
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from monai.engines import SupervisedTrainer
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cxw_monai.transforms.transfer import sent

from .non_finite import NonFiniteSteps
from .precision import Precision
from .processes import unwrapped
from .random_state import random_state
from .sharding import full

__all__ = ["Stateful", "TrainingStep", "moved", "scalars_of"]


class Stateful(Protocol):
    """Something whose state the next step depends on."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def moved(batch: Mapping[str, Any], device: torch.device) -> dict[str, Tensor]:
    """The tensors of a batch on a device."""
    return {name: sent(value, device) for name, value in batch.items() if isinstance(value, Tensor)}


def read_values(values: Sequence[Tensor]) -> list[float]:
    """Scalars of a device as numbers: in a training step the one place that waits for the device, once."""
    exact = any(value.dtype == torch.float64 for value in values)
    dtype = torch.float64 if exact else torch.float32
    return torch.stack([value.detach().to(dtype) for value in values]).tolist()


def scalars_of(losses: Mapping[str, Tensor], **others: Tensor) -> dict[str, float]:
    """`loss` and its terms, as `loss_<term>`, to log, and other scalars by their names, all read at once."""
    named = {name if name == "loss" else f"loss_{name}": value for name, value in losses.items()} | others
    return dict(zip(named, read_values(list(named.values())), strict=True))


def gradient_norm(network: nn.Module) -> Tensor:
    """Norm of all gradients together, a scalar on their device."""
    return full(nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None]))


class TrainingStep(ABC):
    """`iteration_update` of a `SupervisedTrainer`; a task's subclass gives `losses`.

    In order: schedules set, forward under autocast, loss, backward, and on the last micro-batch of a group gradient
    clipping, optimiser step and `after_step`. A loss or gradient that is not finite never touches the weights: the run
    stops, or leaves the group out and counts it (`engine.state.metrics["skipped_steps"]`), and the network's buffers,
    such as running statistics, are set back to those before the group.

    The engine's output is one dictionary with `loss` (tensor), `scalars` (floats to log) and `count` (films), in a list
    as MONAI's tracking handlers expect it.

    Args:
        schedule: learning rate by micro-batch; a parameter group's `lr_scale` multiplies it.
        clip_norm: largest gradient norm; larger ones are scaled down. None to leave them.
        amp: autocast to `bfloat16`, `none`, or `auto`; see `supported_amp`.
        non_finite: what happens with steps that are not finite; by default they stop the run.
        weight_decay: of the parameter groups that decay, by micro-batch; None leaves the optimiser's.
        sources: by name, what the step draws from besides the global random generators, such as a sampler of masks.

    Attributes:
        before: `iteration`, `random` and the states of `sources` before the current group of micro-batches, should its
            step fail.
    """

    def __init__(
        self,
        schedule: Callable[[int], float],
        clip_norm: float | None = 1.0,
        amp: str = "auto",
        non_finite: NonFiniteSteps | None = None,
        weight_decay: Callable[[int], float] | None = None,
        sources: Mapping[str, Stateful] | None = None,
    ) -> None:
        self.schedule, self.weight_decay, self.clip_norm = schedule, weight_decay, clip_norm
        self.precision, self.non_finite = Precision(amp), non_finite or NonFiniteSteps()
        self.sources = dict(sources or {})
        self.before: dict[str, Any] = {}
        self._buffers: list[Tensor] = []
        self._previous_end: float | None = None

    @property
    def parts(self) -> dict[str, Stateful]:
        """By name, all of the step that belongs into a checkpoint."""
        return {**self.sources, "non_finite": self.non_finite, "precision": self.precision}

    def prepare(self, batch: Mapping[str, Any], network: nn.Module, device: torch.device) -> Any:
        """What `forward` and `losses` take of a batch; by default its tensors on the device.

        Args:
            batch: as the loader gives it.
            network: not wrapped.
            device: where to compute.
        """
        return moved(batch, device)

    def forward(self, network: nn.Module, inputs: Any) -> Any:
        """The network's output, under autocast; by default that of `image`."""
        return network(inputs["image"])

    @abstractmethod
    def losses(self, output: Any, inputs: Any) -> Mapping[str, Tensor]:
        """Scalars from the network's output and what `prepare` gave: `loss`, to minimise, then any terms to log."""

    def monitors(self, output: Any, position: int) -> dict[str, float]:
        """What to log besides the losses, where they are finite.

        Args:
            output: the network's.
            position: the micro-batch's place in the epoch, from 0.
        """
        return {}

    def scheduled(self, step: int) -> dict[str, float]:
        """Values of the schedules to log at a micro-batch (0-based)."""
        return {"lr": self.schedule(step)}

    def after_step(self, network: nn.Module, step: int) -> None:  # noqa: B027, most tasks have nothing here
        """What follows an optimiser step that was applied, such as the EMA of a target."""

    def export(self, model: Mapping[str, Tensor], folder: Path) -> None:  # noqa: B027
        """What a saved epoch leaves besides its checkpoint, before which it is written.

        Args:
            model: the network's state dict, of whole tensors.
            folder: the run's.
        """

    def __call__(self, engine: SupervisedTrainer, batch: Mapping[str, Any]) -> list[dict[str, Any]]:
        step, length = engine.state.iteration - 1, engine.state.epoch_length
        position = step % length
        start = position - position % engine.accumulation_steps
        group_size = min(engine.accumulation_steps, length - start)
        last = position == start + group_size - 1
        network: Any = engine.network.train()
        device = engine.state.device
        if position == start:
            self._begin_group(engine, step)
        self._set_schedules(engine.optimizer, step)
        inputs = self.prepare(batch, unwrapped(network), device)
        shared = last or not isinstance(network, DistributedDataParallel)
        with contextlib.nullcontext() if shared else network.no_sync():
            with self.precision.autocast(device):
                output = self.forward(network, inputs)
            losses = self.losses(output, inputs)
            self.non_finite.backward(losses["loss"], group_size)
        norms = {"gradient_norm": gradient_norm(network)} if last else {}
        scalars = scalars_of(losses, **norms)
        norm = scalars.pop("gradient_norm", math.nan)
        scalars = {**scalars, **self.monitors(output, position)} if math.isfinite(scalars["loss"]) else {}
        scalars.update(self.scheduled(step))
        if last and self._apply(engine, step, norms["gradient_norm"], norm):
            scalars["gradient_norm"] = norm
        count = len(next(iter(batch.values())))
        self._add_rate(scalars, count, first=position == 0)
        return [{"loss": losses["loss"].detach(), "scalars": scalars, "count": count}]

    def _begin_group(self, engine: SupervisedTrainer, step: int) -> None:
        states = {name: source.state_dict() for name, source in self.sources.items()}
        self.before = {"iteration": step, **states, "random": random_state()}
        self._buffers = [buffer.clone() for buffer in engine.network.buffers()]
        engine.optimizer.zero_grad(set_to_none=True)

    def _set_schedules(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        for group in optimizer.param_groups:
            group["lr"] = self.schedule(step) * group.get("lr_scale", 1.0)
            if self.weight_decay is not None and group.get("decays", True):
                group["weight_decay"] = self.weight_decay(step)

    def _apply(self, engine: SupervisedTrainer, step: int, total: Tensor, norm: float) -> bool:
        """Clip by the gradients' norm, given as a tensor and as a number, and step; False where that was skipped."""
        network = engine.network
        if self.clip_norm is not None and norm > self.clip_norm:
            parameters = [p for p in network.parameters() if p.grad is not None]
            nn.utils.clip_grads_with_norm_(parameters, self.clip_norm, total)
        if not math.isfinite(norm):
            for buffer, before in zip(network.buffers(), self._buffers, strict=True):
                buffer.copy_(before)
        refused = self.non_finite.refuses(norm, step + 1)
        if self.non_finite.on_non_finite == "skip":
            engine.state.metrics["skipped_steps"] = self.non_finite.skipped
        if refused:
            return False
        engine.optimizer.step()
        self.after_step(unwrapped(network), step)
        return True

    def _add_rate(self, scalars: dict[str, float], images: int, first: bool) -> None:
        """Images per second since the previous micro-batch of the epoch ended, data loading included."""
        now, before = time.perf_counter(), self._previous_end
        self._previous_end = now
        if not first and before is not None:
            scalars["images_per_second"] = images / (now - before)
