"""What the pretraining bundle's configs are made of, each made of the run's settings."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

from monai.transforms import Compose
from torch import nn

from cxw_monai.data.cache import RadiographCache, build_cache
from cxw_monai.data.grey_statistics import grey_statistics
from cxw_monai.data.manifest import load_items, split_by_patient
from cxw_monai.metrics.world.verdict import check_columns
from cxw_monai.networks import (
    RadiographViT,
    WorldModel,
    WorldModelPredictor,
    WorldModelSettings,
    configure_blocks,
    radiograph_vit,
)
from cxw_monai.tasks.components import caching, stepping
from cxw_monai.training.batch_plan import BatchPlan
from cxw_monai.training.schedules import PretrainingSchedules
from cxw_monai.transforms import ActionSampler, RandActiond, RandLocalCropsd, RandWorldViewPaird, TokenMaskSampler
from cxw_monai.weights.encoder import load_weights

from .settings import EmbeddingSettings, EvaluationSettings, PretrainingSettings
from .step import PretrainingStep

__all__ = [
    "Films",
    "cached_films",
    "check_labels",
    "evaluated_films",
    "network_to_load",
    "new_encoder",
    "new_network",
    "new_step",
    "on_device",
    "schedules",
    "split_films",
    "token_masks",
    "world_views",
]

Item = dict[str, Any]

logger = logging.getLogger(__name__)


class Films(NamedTuple):
    """Items of the films: those to learn from, those of other patients, and both."""

    train: list[Item]
    validation: list[Item]
    everything: list[Item]


def split_films(settings: PretrainingSettings) -> Films:
    """The films, split by patient."""
    items = load_items(settings.dataset_dir, settings.datalist, section="training")
    if settings.verdict:
        check_labels(settings, items)
    return Films(*split_by_patient(items, settings.val_fraction, settings.seed), items)


def check_labels(settings: PretrainingSettings, items: Sequence[Item]) -> None:
    """Refuse labels that the verdict can't look at, before a run that ends with it.

    Raises:
        ValueError: one of `labels` is no column of the manifest.
    """
    if settings.labels and settings.labels != ["none"]:
        check_columns(settings.labels, items, str(settings.datalist or settings.dataset_dir))


def evaluated_films(settings: EvaluationSettings, data: Films) -> list[Item]:
    """The films of an evaluation: those held out of a training with the same settings, or all.

    Raises:
        ValueError: for another subset.
    """
    chosen = {"held_out": data.validation, "all": data.everything}
    if settings.subset not in chosen:
        raise ValueError(f"subset must be one of {', '.join(chosen)}, got {settings.subset!r}.")
    return chosen[settings.subset]


def cached_films(settings: PretrainingSettings, items: Sequence[Item], part: str) -> RadiographCache:
    """Decoded films; see `caching` for `part`."""
    return build_cache(items, verify=settings.verify_cache, **caching(settings, part))


def new_encoder(settings: PretrainingSettings | EmbeddingSettings) -> RadiographViT:
    """An encoder with fresh weights."""
    names = ("image_size", "patch_size", "in_channels", "image_mean", "image_std")
    own = ("drop_path_rate",) if isinstance(settings, PretrainingSettings) else ()
    given = settings.pick(*names, *own, size="network_size")
    if isinstance(settings, PretrainingSettings) and settings.measure_normalisation:
        given |= _measured_normalisation(settings)
    return radiograph_vit(**given)


def _measured_normalisation(settings: PretrainingSettings) -> dict[str, float]:
    """Mean and deviation of the training films, which are decoded for it, as `radiograph_vit` takes them.

    Raises:
        ValueError: the weights to start from have their own.
    """
    if settings.start_from:
        raise ValueError(
            "measure_normalisation is for fresh weights: those of start_from hold their own; set it to false."
        )
    cache = cached_films(settings, split_films(settings).train, "train")
    mean, deviation = grey_statistics(cache)
    logger.info("The training films' grey values: mean %.4f, standard deviation %.4f.", mean, deviation)
    return {"image_mean": mean, "image_std": deviation}


def new_network(settings: PretrainingSettings) -> WorldModel:
    """A world model to train, its encoders those of `start_from` where that is given."""
    objectives = WorldModelSettings(**settings.pick(*WorldModelSettings.__dataclass_fields__))
    encoder = new_encoder(settings)
    if settings.start_from:
        load_weights(encoder, settings.start_from)
    predictor = WorldModelPredictor(
        encoder.grid,
        encoder.embed_dim,
        num_heads=encoder.num_heads,
        out_dim=objectives.target_channels(encoder),
        **settings.pick("conditioning", "context_order", "flip_embedding"),
        **settings.pick(embed_dim="predictor_dim", depth="predictor_depth"),
    )
    return WorldModel(encoder, predictor, objectives)


def network_to_load(settings: PretrainingSettings) -> WorldModel:
    """A world model whose weights will be read from a file: what it would start from is not looked at."""
    return new_network(settings.model_copy(update={"start_from": None, "measure_normalisation": False}))


def on_device(network: nn.Module, settings: PretrainingSettings) -> nn.Module:
    """The network on the run's device, its blocks computed as the settings say."""
    return configure_blocks(network, settings.checkpoint_activations, settings.compile_blocks).to(settings.device)


def token_masks(settings: PretrainingSettings, network: WorldModel) -> TokenMaskSampler:
    """A sampler of token masks, with another seed in each process."""
    renamed = {"num_targets": "mask_targets", "mask_ratio": "mask_ratio"}
    renamed |= {
        name: f"mask_{name}"
        for name in ("strategy", "target_scale", "context_scale", "min_keep", "multiple", "truncation")
    }
    return TokenMaskSampler(network.encoder.grid, seed=settings.seed + settings.rank, **settings.pick(**renamed))


def world_views(settings: PretrainingSettings, network: WorldModel) -> Compose:
    """Two crops of a film, and the perturbations that are actions."""
    height, width = (side * settings.patch_size for side in network.encoder.grid)
    crops = settings.pick(
        "min_overlap", "flip_prob", scale="crop_scale", ratio="crop_ratio", jitter_prob="base_jitter_prob"
    )
    actions = {name: f"action_{name}" for name in ("jitter_prob", "blur_prob", "noise_prob")}
    sampler = ActionSampler(**settings.pick(**actions))
    pair = RandWorldViewPaird("image", size=(height, width), cut=settings.crops_on == "loader", **crops)
    actions_of_views = RandActiond(["action1", "action2"], sampler=sampler)
    if not settings.local_crops:
        return Compose([pair, actions_of_views])
    local = settings.pick(count="local_crops", size="local_crop_size", scale="local_crop_scale", ratio="crop_ratio")
    return Compose([RandLocalCropsd("image", **local, sampler=sampler), pair, actions_of_views])


def schedules(settings: PretrainingSettings, plan: BatchPlan, steps_per_epoch: int) -> PretrainingSchedules:
    """Learning rate, weight decay and momentum by step."""
    names = ("epochs", "lr_end", "warmup_epochs", "weight_decay", "weight_decay_end", "ema", "ema_end", "decay_epochs")
    return PretrainingSchedules(steps_per_epoch, lr=plan.lr, **settings.pick(*names, stretch="schedule_stretch"))


def new_step(
    settings: PretrainingSettings, masks: TokenMaskSampler, schedules: PretrainingSchedules
) -> PretrainingStep:
    """The trainer's iteration update."""
    return PretrainingStep(masks, schedules, monitor_every=settings.monitor_every, **stepping(settings))
