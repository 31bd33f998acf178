"""Parts of a training that every task makes of its settings alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cxw_monai.data.dataset import EpochSampler, source_mix
from cxw_monai.settings.common import TrainingSettings
from cxw_monai.training.batch_plan import BatchPlan
from cxw_monai.training.best_model import CheckpointSaver
from cxw_monai.training.non_finite import NonFiniteSteps
from cxw_monai.training.run_state import RunState
from cxw_monai.training.step import Stateful, TrainingStep

__all__ = ["batch_plan", "caching", "epoch_sampler", "new_run_state", "stepping"]


def batch_plan(settings: TrainingSettings) -> BatchPlan:
    """How many films make an optimiser step, and its learning rate."""
    names = ("batch_size", "world_size", "accumulation_steps", "global_batch_size", "lr_batch_size")
    return BatchPlan(**settings.pick(*names, base_lr="lr"))


def stepping(settings: TrainingSettings) -> dict[str, Any]:
    """How a step is made, as the tasks' steps take it."""
    skipped = NonFiniteSteps(settings.on_non_finite, settings.non_finite_limit)
    return {**settings.pick("clip_norm", "amp"), "non_finite": skipped}


def caching(settings: TrainingSettings, part: str) -> dict[str, Any]:
    """How films are decoded and cached, as `build_cache` takes it.

    Args:
        settings: the run's.
        part: what the films are for, in the name of the report of bad ones (`skipped_PART.csv` in `output_dir`).
    """
    given = settings.pick("cache_dir", "on_error", size="cache_size", min_size="patch_size", workers="num_workers")
    return {**given, "report": f"{settings.output_dir}/skipped_{part}.csv", "reader": settings.reader()}


def epoch_sampler(settings: TrainingSettings, items: Sequence[Mapping[str, Any]]) -> EpochSampler:
    """The order of the training films, each once an epoch, or as `source_shares` says.

    Args:
        settings: the run's.
        items: the films in the order of the data set, with `source` where shares are set.

    Raises:
        ValueError: what `source_mix` or `EpochSampler` refuses.
    """
    mix = None
    if settings.source_shares:
        sources = [str(item.get("source") or "") for item in items]
        mix = source_mix(sources, {k: float(v) for k, v in settings.source_shares.items()}, settings.epoch_films)
    elif settings.epoch_films:
        raise ValueError("epoch_films needs source_shares: without them an epoch is every film once.")
    return EpochSampler(len(items), settings.seed, rank=settings.rank, world_size=settings.world_size, mix=mix)


def new_run_state(
    settings: TrainingSettings,
    step: TrainingStep,
    run_settings: Mapping[str, Mapping[str, Any]],
    parts: Mapping[str, Stateful],
    best: CheckpointSaver | None = None,
) -> RunState:
    """The run's checkpoints."""
    renamed = {"folder": "output_dir", "every": "save_interval", "keep": "keep_checkpoints"}
    given = settings.pick("save_steps", "save_minutes", **renamed)
    return RunState(step=step, settings=run_settings, parts=parts, best=best, **given)
