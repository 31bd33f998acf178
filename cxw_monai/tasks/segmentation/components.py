"""What the segmentation bundle's configs are made of, each made of the run's settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.transforms import Compose
from torch import nn

from cxw_monai.data.splits import Splits
from cxw_monai.networks import RadiographSegmenter
from cxw_monai.tasks.components import caching, stepping
from cxw_monai.training.batch_plan import BatchPlan
from cxw_monai.training.schedules import CosineSchedule, warmup_cosine
from cxw_monai.transforms import ActionSampler, Perturbd, RandActiond
from cxw_monai.transforms.warp import RandFilmWarpd
from cxw_monai.weights.segmenter import (
    SegmenterSettings,
    continued_segmenter,
    continued_settings,
    new_segmenter,
    save_segmenter,
    segmenter_settings,
)

from .dataset import AnnotatedFilms, annotated_films
from .items import segmentation_splits, segmentation_subset
from .settings import FineTuningSettings, ScoringSettings
from .step import SegmentationStep

__all__ = [
    "augmentation",
    "films",
    "network_settings",
    "new_network",
    "new_step",
    "on_device",
    "schedule",
    "scored_films",
    "split_films",
    "writer",
]

Item = dict[str, Any]


def _manifest(settings: FineTuningSettings) -> dict[str, Any]:
    """What splits and subsets are made of."""
    names = ("structures", "structure_map", "absent_labels", "splits", "val_fraction", "test_fraction", "test_datalist")
    found = settings.datalist or (f"{settings.dataset_dir}/manifest.csv" if settings.dataset_dir else None)
    return {"datalist": found} | settings.pick("seed", *names)


def split_films(settings: FineTuningSettings) -> Splits:
    """Films for training, validation and test, each patient on one side."""
    return segmentation_splits(**_manifest(settings))


def scored_films(settings: ScoringSettings) -> list[Item]:
    """The films of a scoring."""
    return segmentation_subset(settings.subset, **_manifest(settings))


def films(settings: FineTuningSettings, items: Sequence[Item], part: str) -> AnnotatedFilms:
    """Decoded films and masks; see `caching` for `part`."""
    return annotated_films(items, settings.structures, **caching(settings, part))


def network_settings(settings: FineTuningSettings) -> SegmenterSettings:
    """What the network's file keeps beside its weights."""
    if settings.start_from is not None:
        return continued_settings(settings.start_from, settings.structures, settings.image_size)
    names = ("structures", "image_size", "patch_size", "decoder", "base_channels", "encoder_ckpt", "encoder_weights")
    return segmenter_settings(**settings.pick(*names, size="network_size"))


def new_network(settings: FineTuningSettings, network_settings: SegmenterSettings) -> RadiographSegmenter:
    """A segmenter to train."""
    if settings.start_from is not None:
        given = settings.pick("start_from", "freeze", drop_path="drop_path_rate")
        return continued_segmenter(network_settings, **given)
    given = settings.pick("encoder_ckpt", "encoder_weights", "freeze", drop_path="drop_path_rate")
    return new_segmenter(network_settings, **given)


def on_device(network: nn.Module, settings: FineTuningSettings) -> nn.Module:
    """The network on the run's device, its channels last in memory."""
    return network.to(settings.device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def augmentation(settings: FineTuningSettings, extra: Sequence[Callable[[Item], Item]] = ()) -> Compose:
    """Training films warped, changed by transforms of one's own, and perturbed."""
    size = settings.pick("structures", size="image_size")
    crop = settings.pick("crop_prob", "crop_scale", "crop_ratio", "flip_prob", "distortion_prob", "distortion")
    affine = settings.pick("affine_prob", "rotate", "shear", "zoom", "translate")
    look = settings.pick("brightness", "contrast", "gamma", "blur", "noise", "jitter_prob", "blur_prob", "noise_prob")
    action = RandActiond("action", sampler=ActionSampler(**look))
    perturbation = Perturbd("image", action_keys="action", output_keys="image")
    return Compose([RandFilmWarpd(**size, **crop, **affine), *extra, action, perturbation])


def schedule(settings: FineTuningSettings, plan: BatchPlan, steps_per_epoch: int) -> CosineSchedule:
    """Learning rate by step."""
    return warmup_cosine(plan.lr, settings.lr_end, steps_per_epoch, settings.epochs, settings.warmup_epochs)


def new_step(settings: FineTuningSettings, loss: nn.Module, schedule: CosineSchedule) -> SegmentationStep:
    """The trainer's iteration update."""
    return SegmentationStep(loss, schedule, **stepping(settings))


def writer(network_settings: SegmenterSettings) -> Callable[[RadiographSegmenter, Path], None]:
    """Writes a network as a file that `load_segmenter` needs nothing else for."""
    return lambda network, path: save_segmenter(network, network_settings, path)
