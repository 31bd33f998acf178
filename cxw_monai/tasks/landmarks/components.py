"""What the landmark bundle's configs are made of, each made of the run's settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from monai.transforms import Compose
from torch import nn

from cxw_monai.data.cache import build_cache
from cxw_monai.data.splits import Splits
from cxw_monai.networks import RadiographLandmarker
from cxw_monai.tasks.components import caching, check_shares, datalist_of, film_augmentation, stepping
from cxw_monai.tasks.films import warn_of_anatomy
from cxw_monai.training.schedules import CosineSchedule
from cxw_monai.weights.landmarker import LandmarkerSettings, landmarker_settings, new_landmarker

from .dataset import LandmarkFilms
from .items import landmark_names, landmark_splits, landmark_subset
from .settings import LandmarkScoringSettings, LandmarkSettings
from .step import LandmarkStep

__all__ = [
    "augmentation",
    "films",
    "network_settings",
    "new_network",
    "new_step",
    "point_names",
    "scored_films",
    "split_films",
]

Item = dict[str, Any]


def point_names(settings: LandmarkSettings) -> list[str]:
    """The landmarks to learn: those of the settings, or all of the manifest.

    Raises:
        ValueError: no manifest, or one without landmarks.
    """
    if settings.points is not None:
        return settings.points
    datalist = datalist_of(settings)
    if datalist is None:
        raise ValueError("no data set: give datalist, a .csv or .json manifest with columns landmark_<name>.")
    return landmark_names(datalist)


def _manifest(settings: LandmarkSettings, points: Sequence[str]) -> dict[str, Any]:
    """What splits and subsets are made of."""
    names = ("point_map", "splits", "val_fraction", "test_fraction", "test_datalist", "seed")
    return {"datalist": datalist_of(settings), "points": list(points)} | settings.pick(*names)


def split_films(settings: LandmarkSettings, points: Sequence[str]) -> Splits:
    """Films for training, validation and test, each patient on one side."""
    parts = landmark_splits(**_manifest(settings, points))
    check_shares(settings, parts.train)
    warn_of_anatomy(settings.anatomy, parts.train)
    return parts


def scored_films(settings: LandmarkScoringSettings, model: LandmarkerSettings) -> list[Item]:
    """The films of a scoring.

    Raises:
        ValueError: other landmarks than the model's, or what `landmark_subset` refuses.
    """
    if settings.points != list(model.points):
        raise ValueError(
            f"points: a model is scored on its own, in their order: {', '.join(model.points)}, got "
            f"{settings.points}. Leave points out; point_map names the manifest's columns."
        )
    return landmark_subset(settings.subset, **_manifest(settings, model.points))


def films(settings: LandmarkSettings, points: Sequence[str], items: Sequence[Item], part: str) -> LandmarkFilms:
    """Decoded films with their landmarks; see `caching` for `part`."""
    cache = build_cache(items, **caching(settings, part)) if items else None
    return LandmarkFilms(cache, points)


def network_settings(settings: LandmarkSettings, points: Sequence[str]) -> LandmarkerSettings:
    """What the network's file keeps beside its weights."""
    names = (
        "decoder",
        "base_channels",
        "heat_px",
        "anatomy",
        "image_size",
        "patch_size",
        "encoder_ckpt",
        "encoder_weights",
    )
    return landmarker_settings(points, **settings.pick(*names, size="network_size"))


def new_network(settings: LandmarkSettings, network_settings: LandmarkerSettings) -> RadiographLandmarker:
    """A landmark network to train."""
    given = settings.pick("encoder_ckpt", "encoder_weights", "freeze", drop_path="drop_path_rate")
    return new_landmarker(network_settings, **given)


def augmentation(
    settings: LandmarkSettings, points: Sequence[str], extra: Sequence[Callable[[Item], Item]] = ()
) -> Compose:
    """Training films and landmarks warped, changed by transforms of one's own, and perturbed."""
    return film_augmentation(settings, extra, points=points)


def new_step(settings: LandmarkSettings, loss: nn.Module, schedule: CosineSchedule) -> LandmarkStep:
    """The trainer's iteration update."""
    return LandmarkStep(loss, schedule, **stepping(settings))
