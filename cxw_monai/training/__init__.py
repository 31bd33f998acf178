"""What MONAI's Ignite engines need to pretrain a world model."""

from cxw_monai.io.files.atomic import check_writable
from cxw_monai.tasks.pretraining.monitors import CollapseWarning, embedding_statistics
from cxw_monai.tasks.pretraining.step import PretrainingStep, world_view_inputs

from .errors import install_error_hook
from .handlers import EpochMeans, RunRecord, SamplerEpoch, StepProgress, attached
from .launch import join_processes
from .memory import keep_freed_memory
from .non_finite import NonFiniteLossError, NonFiniteSteps
from .output_folder import hold_output, release_output
from .parameter_groups import layer_decay_groups, parameter_groups
from .precision import allow_tf32
from .run_state import RunState
from .schedules import CosineSchedule, PretrainingSchedules
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
    "world_view_inputs",
]
