"""Schedules of learning rate, weight decay and EMA momentum, as pure functions of the step.

Source: CheXWorld (arXiv 2504.13820), supplement B, and the released schedule lengths.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["CosineSchedule", "PretrainingSchedules", "warmup_cosine"]


@dataclass(frozen=True)
class CosineSchedule:
    """Linear warm-up from `start` to `peak`, then half a cosine to `end`, reached at the last step.

    Attributes:
        peak: value after the warm-up.
        end: value at the last step.
        total: number of steps.
        start: value at step 0 of the warm-up.
        warmup: number of warm-up steps; without any the first value is `peak`.
        hold: steps after the warm-up at `peak`, before the cosine.
    """

    peak: float
    end: float
    total: int
    start: float = 0.0
    warmup: int = 0
    hold: int = 0

    def __post_init__(self) -> None:
        if self.total < 1 or not 0 <= self.warmup <= self.total:
            raise ValueError(f"total must be positive and warmup within it, got {self.total} and {self.warmup}.")
        if not 0 <= self.hold <= self.total - self.warmup:
            raise ValueError(f"hold must lie in 0..total - warmup, got {self.hold} of {self.total - self.warmup}.")

    def __call__(self, step: int) -> float:
        """Value at `step` (0-based); past the last step the end value."""
        if step < self.warmup:
            return self.start + (self.peak - self.start) * step / max(self.warmup - 1, 1)
        held = self.warmup + self.hold
        progress = min(max(step - held, 0) / max(self.total - held - 1, 1), 1.0)
        return self.end + 0.5 * (self.peak - self.end) * (1 + math.cos(math.pi * progress))


def warmup_cosine(
    lr: float,
    lr_end: float,
    steps_per_epoch: int,
    epochs: int,
    warmup_epochs: float = 0,
    decay_epochs: float | None = None,
) -> CosineSchedule:
    """Learning rate by micro-batch: linear from 0 over the warm-up, then half a cosine to `lr_end`.

    Args:
        lr: peak learning rate.
        lr_end: learning rate at the end.
        steps_per_epoch: micro-batches an epoch.
        epochs: epochs of the run.
        warmup_epochs: may be fractional.
        decay_epochs: last epochs over which the cosine lies, with `lr` before them (warm-up, stable, decay: a run whose
            length is not known ahead, arXiv 2404.06395); None for all after the warm-up.

    Raises:
        ValueError: for lengths that are not positive.
    """
    if steps_per_epoch < 1 or epochs < 1:
        raise ValueError(
            f"steps_per_epoch and epochs must be positive, got {steps_per_epoch} and {epochs}. An epoch has no step "
            "when there are fewer training films than batch_size times the number of processes."
        )
    total = steps_per_epoch * epochs
    warmup = min(int(warmup_epochs * steps_per_epoch), total)
    decay = total if decay_epochs is None else int(decay_epochs * steps_per_epoch)
    return CosineSchedule(lr, lr_end, total, warmup=warmup, hold=max(total - warmup - decay, 0))


class PretrainingSchedules:
    """The three schedules of pretraining, indexed by micro-batch.

    Args:
        steps_per_epoch: micro-batches an epoch.
        epochs: epochs of the run.
        lr: peak learning rate.
        lr_end: learning rate at the end.
        warmup_epochs: epochs of linear warm-up from 0; may be fractional.
        weight_decay, weight_decay_end: at the start and the end.
        ema, ema_end: target momentum at the start and the end.
        stretch: schedules are laid out for `int(stretch * steps_per_epoch)` steps an epoch and cut off at the end of
            the run. 1 lets them end where they say; the released recipe uses 1.25, so that its 40 warm-up epochs
            last 50 and its last learning rate is 2.6e-5.
        decay_epochs: see `warmup_cosine`.

    Raises:
        ValueError: for lengths that are not positive.
    """

    def __init__(
        self,
        steps_per_epoch: int,
        epochs: int,
        lr: float,
        lr_end: float = 1e-6,
        warmup_epochs: float = 0,
        weight_decay: float = 0.05,
        weight_decay_end: float = 0.05,
        ema: float = 0.996,
        ema_end: float = 1.0,
        stretch: float = 1.0,
        decay_epochs: float | None = None,
    ) -> None:
        laid_out = int(stretch * steps_per_epoch)
        self.lr = warmup_cosine(lr, lr_end, laid_out, epochs, warmup_epochs, decay_epochs)
        self.weight_decay = CosineSchedule(weight_decay, weight_decay_end, self.lr.total)
        self.ema = CosineSchedule(ema, ema_end, self.lr.total)
