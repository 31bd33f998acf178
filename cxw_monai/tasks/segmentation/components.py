"""What the segmentation bundle's configs are made of, each made of the run's settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from monai.transforms import Compose
from torch import nn

from cxw_monai.data.splits import Splits
from cxw_monai.networks import RadiographSegmenter
from cxw_monai.tasks.components import (
    caching,
    check_shares,
    datalist_of,
    film_augmentation,
    on_device,
    schedule,
    stepping,
    writer,
)
from cxw_monai.training.schedules import CosineSchedule
from cxw_monai.weights.segmenter import (
    SegmenterSettings,
    continued_segmenter,
    continued_settings,
    new_segmenter,
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
    return {"datalist": datalist_of(settings)} | settings.pick("seed", *names)


def split_films(settings: FineTuningSettings) -> Splits:
    """Films for training, validation and test, each patient on one side."""
    parts = segmentation_splits(**_manifest(settings))
    check_shares(settings, parts.train)
    return parts


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


def augmentation(settings: FineTuningSettings, extra: Sequence[Callable[[Item], Item]] = ()) -> Compose:
    """Training films and masks warped, changed by transforms of one's own, and perturbed."""
    return film_augmentation(settings, extra, settings.structures)


def new_step(settings: FineTuningSettings, loss: nn.Module, schedule: CosineSchedule) -> SegmentationStep:
    """The trainer's iteration update."""
    return SegmentationStep(loss, schedule, **stepping(settings))
