"""Parts of a training that every task makes of its settings alike."""

from __future__ import annotations

from typing import Any

from cxw_monai.settings.common import TrainingSettings
from cxw_monai.training.batch_plan import BatchPlan
from cxw_monai.training.non_finite import NonFiniteSteps

__all__ = ["batch_plan", "saving", "stepping"]


def batch_plan(settings: TrainingSettings) -> BatchPlan:
    """How many films make an optimiser step, and its learning rate."""
    names = ("batch_size", "world_size", "accumulation_steps", "global_batch_size", "lr_batch_size")
    return BatchPlan(**settings.pick(*names, base_lr="lr"))


def stepping(settings: TrainingSettings) -> dict[str, Any]:
    """How a step is made, as the tasks' steps take it."""
    skipped = NonFiniteSteps(settings.on_non_finite, settings.non_finite_limit)
    return {**settings.pick("clip_norm", "amp"), "non_finite": skipped}


def saving(settings: TrainingSettings) -> dict[str, Any]:
    """When a run's state is saved, as `TrainingState` takes it."""
    renamed = {"folder": "output_dir", "every": "save_interval", "keep": "keep_checkpoints"}
    return settings.pick("save_steps", "save_minutes", **renamed)
