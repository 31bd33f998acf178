"""Training and evaluation steps of segmentation, for MONAI's supervised engines."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.losses import DiceLoss
from torch import Tensor, nn
from torch.nn import functional as F

from cxw_monai.tasks.pretraining.step import unwrapped
from cxw_monai.training.non_finite import NonFiniteSteps
from cxw_monai.training.precision import Precision
from cxw_monai.training.processes import dist_size, is_main_process
from cxw_monai.training.random_state import random_state
from cxw_monai.training.schedules import CosineSchedule
from cxw_monai.weights.segmenter import load_segmenter

from .dataset import AnnotatedFilms

__all__ = [
    "DiceBCELoss",
    "FilmScores",
    "SegmentationEvaluationStep",
    "SegmentationStep",
    "channels_of",
    "evaluate_films",
    "test_best",
    "warmup_cosine",
]

logger = logging.getLogger(__name__)


def warmup_cosine(
    lr: float, lr_end: float, steps_per_epoch: int, epochs: int, warmup_epochs: float = 0
) -> CosineSchedule:
    """Learning rate by micro-batch: linear from 0 over the warm-up, then half a cosine to `lr_end`.

    Raises:
        ValueError: when an epoch has no step.
    """
    if steps_per_epoch < 1 or epochs < 1:
        raise ValueError(
            f"steps an epoch and epochs must be positive, got {steps_per_epoch} and {epochs}. An epoch has no step "
            "when there are fewer training films than batch_size times the number of processes."
        )
    total = steps_per_epoch * epochs
    return CosineSchedule(lr, lr_end, total, warmup=min(int(warmup_epochs * steps_per_epoch), total))


class DiceBCELoss(nn.Module):
    """Soft Dice plus binary cross-entropy of each known structure of each film.

    Source: CheXWorld (arXiv 2504.13820), supplement B. A structure that is unknown on a film has no share in the loss
    or its gradient.

    Args:
        dice_weight, bce_weight: weights of the two terms, not both 0.
        smooth: added to the Dice's numerator and denominator, in px; a film without the structure has a Dice of 1 for
            an empty prediction.

    Raises:
        ValueError: for a negative weight, or no positive one.
    """

    def __init__(self, dice_weight: float = 1.0, bce_weight: float = 1.0, smooth: float = 1.0) -> None:
        super().__init__()
        if min(dice_weight, bce_weight) < 0 or dice_weight + bce_weight == 0:
            raise ValueError(f"dice_weight and bce_weight must be 0 or more, not both 0: {dice_weight}, {bce_weight}.")
        self.dice_weight, self.bce_weight = dice_weight, bce_weight
        self.dice = DiceLoss(sigmoid=True, reduction="none", smooth_nr=smooth, smooth_dr=smooth)

    def forward(self, logits: Tensor, label: Tensor, known: Tensor) -> dict[str, Tensor]:
        """Loss of a batch.

        Args:
            logits: `[B, S, H, W]`.
            label: 0 and 1, of the same shape.
            known: `[B, S]`, whether a structure was annotated.

        Returns:
            `loss`, and its unweighted terms `dice` and `bce`: scalars, means over the known structures of the films; 0
            where none is known.
        """
        dice = self.dice(logits, label).flatten(1)  # [B, S]
        bce = F.binary_cross_entropy_with_logits(logits, label, reduction="none").mean(dim=(2, 3))  # [B, S]
        weight = known.to(logits) / known.sum().clamp_min(1)
        terms = {"dice": (dice * weight).sum(), "bce": (bce * weight).sum()}
        return {"loss": self.dice_weight * terms["dice"] + self.bce_weight * terms["bce"], **terms}


class SegmentationStep:
    """`iteration_update` of a `SupervisedTrainer` that trains a segmenter.

    In order: learning rates set, forward under autocast, loss in float32, backward, and on the last micro-batch of a
    group gradient clipping and optimiser step. A loss or gradient that is not finite never touches the weights: the run
    stops, or leaves the group out and counts it (`engine.state.metrics["skipped_steps"]`), and running statistics are
    set back to those before the group. The engine's output is one dictionary with
    `loss`, `scalars` (floats to log) and `count` (films).

    Args:
        loss: takes logits, label and known, and gives `loss` and other scalars.
        schedule: learning rate by micro-batch; a parameter group's `lr_scale` multiplies it.
        clip_norm: largest gradient norm; larger ones are scaled down. None to leave them.
        amp: autocast to `bfloat16`, `none`, or `auto`; see `supported_amp`.
        non_finite: what happens with steps that are not finite; by default they stop the run.
    """

    def __init__(
        self,
        loss: Callable[[Tensor, Tensor, Tensor], Mapping[str, Tensor]],
        schedule: Callable[[int], float],
        clip_norm: float | None = 1.0,
        amp: str = "auto",
        non_finite: NonFiniteSteps | None = None,
    ) -> None:
        self.loss, self.schedule = loss, schedule
        self.clip_norm, self.precision = clip_norm, Precision(amp)
        self.non_finite = non_finite or NonFiniteSteps()
        self.before: dict[str, Any] = {}
        """`iteration` and `random` before the current group of micro-batches, should its step fail."""
        self._buffers: list[Tensor] = []
        self._previous_end: float | None = None

    def __call__(self, engine: SupervisedTrainer, batch: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        step = engine.state.iteration - 1
        position = step % engine.state.epoch_length
        group = engine.accumulation_steps
        group_start = position - position % group
        group_size = min(group, engine.state.epoch_length - group_start)
        last = position == group_start + group_size - 1
        network, device = engine.network, engine.state.device
        network.train()
        if position == group_start:
            self.before = {"iteration": step, "random": random_state()}
            self._buffers = [buffer.clone() for buffer in network.buffers()]
            engine.optimizer.zero_grad(set_to_none=True)
        for parameters in engine.optimizer.param_groups:
            parameters["lr"] = self.schedule(step) * parameters.get("lr_scale", 1.0)
        image, label, known = (batch[name].to(device, non_blocking=True) for name in ("image", "label", "known"))
        sync = contextlib.nullcontext() if last or not hasattr(network, "no_sync") else network.no_sync()
        with sync:
            with self.precision.autocast(device):
                logits = network(image)
            terms = self.loss(logits.float(), label.float(), known)
            self.non_finite.backward(terms["loss"], group_size)
        scalars = {name if name == "loss" else f"loss_{name}": value.item() for name, value in terms.items()}
        if not math.isfinite(scalars["loss"]):
            scalars = {}
        scalars["lr"] = self.schedule(step)
        if last:
            scalars["gradient_norm"] = self._apply(engine, step)
        scalars["images_per_second"] = self._rate(len(image), first=position == 0)
        scalars = {name: value for name, value in scalars.items() if value is not None}
        return [{"loss": terms["loss"].detach(), "scalars": scalars, "count": len(image)}]

    def _apply(self, engine: SupervisedTrainer, step: int) -> float | None:
        """Clip and step; returns the gradient norm before clipping, None where the step was skipped."""
        parameters = [p for p in engine.network.parameters() if p.grad is not None]
        limit = float("inf") if self.clip_norm is None else self.clip_norm
        norm = nn.utils.clip_grad_norm_(parameters, limit).item()
        if not math.isfinite(norm):
            for buffer, before in zip(engine.network.buffers(), self._buffers, strict=True):
                buffer.copy_(before)
        refused = self.non_finite.refuses(norm, step + 1)
        if self.non_finite.on_non_finite == "skip":
            engine.state.metrics["skipped_steps"] = self.non_finite.skipped
        if refused:
            return None
        engine.optimizer.step()
        return norm

    def _rate(self, images: int, first: bool) -> float | None:
        """Films per second since the previous micro-batch of the epoch ended, data loading included."""
        now, before = time.perf_counter(), self._previous_end
        self._previous_end = now
        return None if first or before is None else images / (now - before)


class SegmentationEvaluationStep:
    """`iteration_update` of a `SupervisedEvaluator`: loss and logits of a batch.

    The engine's output is one dictionary with `scalars`, `count`, `logits` (float32 `[B, S, H, W]`) and `index` (the
    films' numbers).

    Args:
        loss, amp: see `SegmentationStep`.
        channels: those of the network's channels that the labels are of, in their order; None for all.
    """

    def __init__(
        self,
        loss: Callable[[Tensor, Tensor, Tensor], Mapping[str, Tensor]],
        amp: str = "auto",
        channels: Sequence[int] | None = None,
    ) -> None:
        self.loss, self.precision = loss, Precision(amp)
        self.channels = None if channels is None else list(channels)

    def __call__(self, engine: SupervisedEvaluator, batch: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        device = engine.state.device
        engine.network.eval()
        with torch.no_grad():
            image, label, known = (batch[name].to(device, non_blocking=True) for name in ("image", "label", "known"))
            with self.precision.autocast(device):
                logits = engine.network(image)
            logits = logits if self.channels is None else logits[:, self.channels]
            terms = self.loss(logits.float(), label.float(), known)
        scalars = {name if name == "loss" else f"loss_{name}": value.item() for name, value in terms.items()}
        return [{"scalars": scalars, "count": len(image), "logits": logits.float(), "index": batch["index"].tolist()}]


def channels_of(structures: Sequence[str], model: Sequence[str]) -> list[int]:
    """The channels of some of a model's structures, in the order of `structures`.

    Args:
        structures: those to score.
        model: the model's, in the order of its channels.

    Raises:
        ValueError: the model doesn't have one of them.
    """
    model = list(model)
    if unknown := [name for name in structures if name not in model]:
        raise ValueError(
            f"structures: the model has no {', '.join(map(repr, unknown))}; it has {', '.join(model)}. Name some of "
            "these, or say by structure_map which of the manifest's columns they are."
        )
    return [model.index(name) for name in structures]


class Scores(Protocol):
    """Accumulates films one by one."""

    def add(
        self,
        name: str,
        patient_id: str | None,
        pred: Any,
        label: Any,
        known: Any,
        spacing_mm: tuple[float, float] | None,
        image: Any = None,
    ) -> None: ...

    def summary(self) -> dict[str, Any]: ...

    def write(self, folder: Path) -> None: ...


class FilmScores:
    """Scores each film of an evaluation on the cached film's own pixels; an Ignite handler.

    The logits are resized (bilinear) from the network's size to the film's, a structure is where they are above 0
    (probability 0.5), and the masks are those of the cache, so that no score depends on the network's size. The epoch's
    summary goes into `engine.state.metrics`.

    Args:
        films: the films whose numbers the step gives.
        make: makes the empty scores of an epoch from the structures' names.

    Attributes:
        scores: those of the last epoch.
    """

    def __init__(self, films: AnnotatedFilms, make: Callable[[tuple[str, ...]], Scores]) -> None:
        self.films, self.make = films, make
        self.scores = make(films.structures)

    def attach(self, engine: Engine, name: str | None = None) -> None:
        """As a handler, or as a key metric, which is the summary's entry of that name."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._step)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._completed)

    def _started(self, engine: Engine) -> None:
        self.scores = self.make(self.films.structures)

    def _step(self, engine: Engine) -> None:
        output = engine.state.output[0]
        for index, logits in zip(output["index"], output["logits"], strict=True):
            label = self.films.label(index).astype(bool)  # [S, h, w]
            if logits.shape[1:] != label.shape[1:]:
                logits = F.interpolate(logits[None], label.shape[1:], mode="bilinear", antialias=True)[0]
            pred = (logits > 0).cpu().numpy()
            films = self.films
            about = films.known(index), films.spacing_mm(index), films.image(index)[0]
            self.scores.add(films.name(index), films.patient(index), pred, label, *about)

    def _completed(self, engine: Engine) -> None:
        summary = self.scores.summary()
        engine.state.metrics.update({k: v for k, v in summary.items() if isinstance(v, (int, float))})


def evaluate_films(evaluator: SupervisedEvaluator, scores: FilmScores, folder: str | Path) -> None:
    """Run an evaluation, log its summary and write its scores to a folder (main process)."""
    evaluator.run()
    if not is_main_process():
        return
    summary = ", ".join(f"{k} {v:.4f}" for k, v in evaluator.state.metrics.items() if isinstance(v, float))
    logger.info("%d films: %s. Written to %s.", len(scores.films), summary, folder)
    if missing := [name for name in scores.films.structures if f"dice_{name}" not in evaluator.state.metrics]:
        logger.warning("No film has a mask of %s: not scored.", ", ".join(missing))
    scores.scores.write(Path(folder))


def test_best(
    evaluator: SupervisedEvaluator, scores: FilmScores, network: nn.Module, ckpt: str | Path, folder: str | Path
) -> None:
    """Test the best epoch's weights once, after the training.

    Args:
        evaluator: runs the test films; does nothing where there are none, or where the folder holds their summary.
        scores: of those films.
        network: the evaluator's; takes the weights.
        ckpt: the run's `model.pt`.
        folder: where the scores go.
    """
    if not len(scores.films):
        logger.info("No test films: set test_datalist, test_fraction or splits for a test of the best epoch.")
        return
    if (Path(folder) / "summary.json").exists():  # a test that was killed while it wrote is made again
        logger.info("%s: the test was done already.", folder)
        return
    if dist_size() > 1:
        dist.barrier()  # the main process may still be writing
    unwrapped(network).load_state_dict(load_segmenter(ckpt).state_dict())
    evaluate_films(evaluator, scores, folder)


test_best.__test__ = False  # not one of pytest's
