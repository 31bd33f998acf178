"""What MONAI's Ignite engines need to train, whatever the task."""

import importlib
from typing import Any

from cxw_monai.io.files.atomic import check_writable

from .errors import install_error_hook
from .handlers import EpochMeans, RunRecord, SamplerEpoch, StepProgress, attached
from .launch import join_processes
from .memory import keep_freed_memory
from .non_finite import NonFiniteLossError, NonFiniteSteps
from .output_folder import hold_output, release_output
from .parameter_groups import layer_decay_groups, parameter_groups
from .precision import allow_tf32
from .run_state import RunState
from .schedules import CosineSchedule, PretrainingSchedules, warmup_cosine
from .step import TrainingStep
from .training import check_run, run_training
from .workers import prepare_worker

__all__ = [
    "CollapseWarning",
    "CosineSchedule",
    "EpochMeans",
    "NonFiniteLossError",
    "NonFiniteSteps",
    "PretrainingSchedules",
    "PretrainingStep",
    "RunRecord",
    "RunState",
    "SamplerEpoch",
    "StepProgress",
    "TrainingStep",
    "allow_tf32",
    "attached",
    "check_run",
    "check_writable",
    "embedding_statistics",
    "hold_output",
    "install_error_hook",
    "join_processes",
    "keep_freed_memory",
    "layer_decay_groups",
    "parameter_groups",
    "prepare_worker",
    "release_output",
    "run_training",
    "warmup_cosine",
    "world_view_inputs",
]

_OF_PRETRAINING = {
    "CollapseWarning": "monitors",
    "PretrainingStep": "step",
    "embedding_statistics": "monitors",
    "world_view_inputs": "step",
}


def __getattr__(name: str) -> Any:
    """Names of the pretraining task: imported when asked for, since tasks import this package."""
    if name not in _OF_PRETRAINING:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"cxw_monai.tasks.pretraining.{_OF_PRETRAINING[name]}"), name)
