"""What MONAI's Ignite engines need to train, whatever the task."""

from cxw_monai.io.files.atomic import check_writable
from cxw_monai.io.results.folders import hold_output, release_output

from .errors import install_error_hook
from .handlers import EpochMeans, RunRecord, SamplerEpoch, StepProgress, attached
from .memory import keep_freed_memory
from .non_finite import NonFiniteLossError, NonFiniteSteps
from .parameter_groups import layer_decay_groups, parameter_groups
from .precision import allow_tf32
from .preemption import prepare_worker
from .processes import join_processes
from .run_state import RunState
from .schedules import CosineSchedule, PretrainingSchedules, warmup_cosine
from .step import TrainingStep
from .training import check_run, run_training

__all__ = [
    "CosineSchedule",
    "EpochMeans",
    "NonFiniteLossError",
    "NonFiniteSteps",
    "PretrainingSchedules",
    "RunRecord",
    "RunState",
    "SamplerEpoch",
    "StepProgress",
    "TrainingStep",
    "allow_tf32",
    "attached",
    "check_run",
    "check_writable",
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
]
