"""The name that version 0.1 had for the state of a fine-tuning run; gone in 0.3."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from cxw_monai.training.run_state import RunState
from cxw_monai.training.step import Stateful, TrainingStep

__all__ = ["FineTuningState"]


class FineTuningState(RunState):
    """`RunState` with a `best` that must be given; what follows it goes by name."""

    def __init__(self, folder: str | Path, step: TrainingStep, best: Stateful, **settings: Any) -> None:
        message = "FineTuningState is cxw_monai.training.RunState since version 0.2; the old name will be gone in 0.3."
        warnings.warn(message, FutureWarning, stacklevel=2)
        super().__init__(folder, step, best=best, **settings)
