"""Parts of a training that every task makes of its settings alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose
from torch import nn

from cxw_monai.data.dataset import EpochSampler, source_mix
from cxw_monai.settings.common import EncoderTuningSettings, TrainingSettings
from cxw_monai.training.batch_plan import BatchPlan
from cxw_monai.training.best_model import CheckpointSaver
from cxw_monai.training.non_finite import NonFiniteSteps
from cxw_monai.training.run_state import RunState
from cxw_monai.training.schedules import CosineSchedule, warmup_cosine
from cxw_monai.training.step import Stateful, TrainingStep
from cxw_monai.transforms import ActionSampler, Perturbd, RandActiond
from cxw_monai.transforms.points import RandPointWarpd
from cxw_monai.transforms.warp import RandFilmWarpd
from cxw_monai.weights.kinds import TaskSettings, save_network

__all__ = [
    "batch_plan",
    "caching",
    "check_shares",
    "datalist_of",
    "epoch_sampler",
    "film_augmentation",
    "new_run_state",
    "on_device",
    "schedule",
    "stepping",
    "writer",
]

Item = dict[str, Any]


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
    mix = _mix(settings, items)
    return EpochSampler(len(items), settings.seed, rank=settings.rank, world_size=settings.world_size, mix=mix)


def _mix(settings: TrainingSettings, items: Sequence[Mapping[str, Any]]) -> list[tuple[np.ndarray, int]] | None:
    """What `source_mix` gives; None where every film comes once an epoch."""
    if settings.source_shares:
        sources = [str(item.get("source") or "") for item in items]
        shares = {name: float(share) for name, share in settings.source_shares.items()}
        return source_mix(sources, shares, settings.epoch_films)
    if settings.epoch_films:
        raise ValueError("epoch_films needs source_shares: without them an epoch is every film once.")
    return None


def check_shares(settings: TrainingSettings, items: Sequence[Mapping[str, Any]]) -> None:
    """Refuse before any film is decoded what `epoch_sampler` refuses of the training films."""
    _mix(settings, items)


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


def datalist_of(settings: TrainingSettings) -> str | None:
    """The manifest: `datalist`, or that of `dataset_dir`."""
    return settings.datalist or (f"{settings.dataset_dir}/manifest.csv" if settings.dataset_dir else None)


def on_device(network: nn.Module, settings: TrainingSettings) -> nn.Module:
    """The network on the run's device, its channels last in memory."""
    return network.to(settings.device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def schedule(settings: EncoderTuningSettings, plan: BatchPlan, steps_per_epoch: int) -> CosineSchedule:
    """Learning rate by step."""
    return warmup_cosine(plan.lr, settings.lr_end, steps_per_epoch, settings.epochs, settings.warmup_epochs)


def writer(network_settings: TaskSettings) -> Callable[[nn.Module, Path], None]:
    """Writes a network as a file that `load_network` needs nothing else for."""
    return lambda network, path: save_network(network, network_settings, path)


def film_augmentation(
    settings: EncoderTuningSettings,
    extra: Sequence[Callable[[Item], Item]] = (),
    structures: Sequence[str] | None = None,
    points: Sequence[str] | None = None,
) -> Compose:
    """Training films warped, changed by transforms of one's own, and perturbed.

    Args:
        settings: the run's.
        extra: dictionary transforms on `image`, float32 `[1, H, W]` in [0, 1].
        structures: names of the masks that are warped with the film; None for films without masks.
        points: names of the landmarks that are warped with the film; None for films without landmarks.
    """
    crop = settings.pick("crop_prob", "crop_scale", "crop_ratio", "flip_prob", "distortion_prob", "distortion")
    affine = settings.pick("affine_prob", "rotate", "shear", "zoom", "translate", size="image_size")
    look = settings.pick("brightness", "contrast", "gamma", "blur", "noise", "jitter_prob", "blur_prob", "noise_prob")
    warp: RandFilmWarpd
    if points is not None:
        warp = RandPointWarpd(points=points, **crop, **affine)
    else:
        masks = {"keys": "image"} if structures is None else {"structures": structures}
        warp = RandFilmWarpd(**crop, **affine, **masks)
    action = RandActiond("action", sampler=ActionSampler(**look))
    perturbation = Perturbd("image", action_keys="action", output_keys="image")
    return Compose([warp, *extra, action, perturbation])
