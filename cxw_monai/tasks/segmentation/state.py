"""Checkpoints of a fine-tuning run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cxw_monai.training.best_model import CheckpointSaver
from cxw_monai.training.run_state import Stateful, TrainingState

__all__ = ["FineTuningState"]


class FineTuningState(TrainingState):
    """`TrainingState` of a network that is chosen by validation.

    The best epoch's score is among the saved parts; its weights are `CheckpointSaver`'s to write.

    Args:
        folder, every, keep, save_steps, save_minutes, settings: see `TrainingState`.
        step: the iteration update; its `before` holds `iteration` and `random` for the case that a step fails.
        best: keeps the best epoch.
        parts: by name, what else has a state, such as the epoch's means.
    """

    def __init__(
        self,
        folder: str | Path,
        step: Any,
        best: CheckpointSaver,
        every: int = 1,
        keep: int | None = 2,
        save_steps: int | None = None,
        save_minutes: float | None = None,
        parts: Mapping[str, Stateful] | None = None,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        own: dict[str, Stateful] = {"best": best, "non_finite": step.non_finite, "precision": step.precision}
        super().__init__(folder, step, own | dict(parts or {}), every, keep, save_steps, save_minutes, settings)
