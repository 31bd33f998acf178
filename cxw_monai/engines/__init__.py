"""What MONAI's Ignite engines need to pretrain a world model."""

from .errors import install_error_hook
from .handlers import EpochMeans, RunRecord, SamplerEpoch, StepProgress, run_training
from .iteration import NonFiniteLossError, PretrainingStep, world_view_inputs
from .monitors import CollapseWarning, embedding_statistics
from .parameter_groups import parameter_groups
from .run_state import RunState
from .schedules import CosineSchedule, PretrainingSchedules

__all__ = [
    "CollapseWarning",
    "CosineSchedule",
    "EpochMeans",
    "NonFiniteLossError",
    "PretrainingSchedules",
    "PretrainingStep",
    "RunRecord",
    "RunState",
    "SamplerEpoch",
    "StepProgress",
    "embedding_statistics",
    "install_error_hook",
    "parameter_groups",
    "run_training",
    "world_view_inputs",
]
