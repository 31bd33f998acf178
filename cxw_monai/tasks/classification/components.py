"""What the classification bundle's configs are made of, each made of the run's settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from monai.transforms import Compose
from torch import nn

from cxw_monai.data.cache import build_cache
from cxw_monai.data.splits import Splits
from cxw_monai.losses import MultiClassLoss, MultiLabelLoss
from cxw_monai.networks import RadiographClassifier
from cxw_monai.tasks.components import caching, check_shares, datalist_of, film_augmentation, stepping
from cxw_monai.tasks.films import warn_of_anatomy
from cxw_monai.training.schedules import CosineSchedule
from cxw_monai.transforms.whole_film import WholeFilmd, pair
from cxw_monai.weights.classifier import ClassifierSettings, classifier_settings, new_classifier

from .dataset import ClassificationDataset, EncodedDataset, LabelledFilms
from .encoding import encoded_films
from .items import classification_splits, classification_subset
from .settings import ClassificationScoringSettings, ClassificationSettings
from .step import ClassificationStep

__all__ = [
    "augmentation",
    "dataset",
    "films",
    "network_settings",
    "new_loss",
    "new_network",
    "new_step",
    "scored_films",
    "split_films",
    "whole_films",
]

Item = dict[str, Any]


def _labels(settings: ClassificationSettings) -> dict[str, Any]:
    """What splits and subsets are made of."""
    names = ("classes", "label_map", "target", "label_fraction", "shots")
    parts = ("splits", "val_fraction", "test_fraction", "test_datalist")
    return {"datalist": datalist_of(settings)} | settings.pick("seed", *names, *parts)


def split_films(settings: ClassificationSettings) -> Splits:
    """Films for training, validation and test, each patient on one side."""
    parts = classification_splits(**_labels(settings))
    check_shares(settings, parts.train)
    warn_of_anatomy(settings.anatomy, parts.train)
    return parts


def scored_films(settings: ClassificationScoringSettings, model: ClassifierSettings) -> list[Item]:
    """The films of a scoring.

    Raises:
        ValueError: other classes than the model's, or what `classification_subset` refuses.
    """
    if tuple(settings.classes) != model.classes:
        raise ValueError(
            f"classes: a model is scored on its own, in their order: {', '.join(model.classes)}, got "
            f"{', '.join(settings.classes)}. Leave classes out; label_map names the manifest's columns."
        )
    return classification_subset(settings.subset, **_labels(settings))


def films(settings: ClassificationSettings, items: Sequence[Item], part: str) -> LabelledFilms:
    """Decoded films with their labels; see `caching` for `part`."""
    cache = build_cache(items, **caching(settings, part)) if items else None
    return LabelledFilms(cache, settings.classes, settings.target)


def network_settings(settings: ClassificationSettings) -> ClassifierSettings:
    """What the network's file keeps beside its weights."""
    names = ("classes", "target", "head", "head_layers", "head_norm", "anatomy", "image_size", "patch_size")
    return classifier_settings(**settings.pick(*names, "encoder_ckpt", "encoder_weights", size="network_size"))


def new_network(settings: ClassificationSettings, network_settings: ClassifierSettings) -> RadiographClassifier:
    """A classifier to train.

    Raises:
        ValueError: `cache_tokens` with an encoder that is trained.
    """
    given = settings.pick("encoder_ckpt", "encoder_weights", "freeze", drop_path="drop_path_rate")
    network = new_classifier(network_settings, **given)
    if settings.cache_tokens and any(parameter.requires_grad for parameter in network.encoder.parameters()):
        raise ValueError("cache_tokens needs a frozen encoder: set freeze to encoder, or cache_tokens to false.")
    return network


def augmentation(settings: ClassificationSettings, extra: Sequence[Callable[[Item], Item]] = ()) -> Compose:
    """Training films warped, changed by transforms of one's own, and perturbed."""
    return film_augmentation(settings, extra)


def whole_films(settings: ClassificationSettings) -> WholeFilmd:
    """Films at the network's size, as they are scored."""
    return WholeFilmd(settings.image_size, keys="image")


def dataset(
    settings: ClassificationSettings,
    films: LabelledFilms,
    transform: Callable[[Item], Item],
    network: RadiographClassifier,
) -> ClassificationDataset | EncodedDataset:
    """Samples of films; with `cache_tokens` the tokens of the whole films."""
    if not settings.cache_tokens:
        return ClassificationDataset(films, transform, settings.seed)
    size, how = pair(settings.image_size), settings.pick("device", "amp")
    network.to(settings.device)
    return EncodedDataset(films, encoded_films(films, network, size, **how))


def new_loss(settings: ClassificationSettings, items: Sequence[Item]) -> nn.Module:
    """The loss of a target.

    Args:
        settings: the run's.
        items: the training films, of which `balanced` class weights are made: negatives over positives of a class, or
            (multi-class) films over classes and the class's films.

    Raises:
        ValueError: another number of weights than classes, an asymmetric loss of exclusive classes, or balanced
            weights of a class that no training film has, or all have.
    """
    weights = _class_weights(settings, items)
    asymmetric = settings.pick("gamma_negative", "gamma_positive", "margin")
    if settings.target == "multi_label":
        return MultiLabelLoss(weights, **asymmetric)
    if any(asymmetric.values()):
        raise ValueError("gamma_negative, gamma_positive and margin are of target multi_label; set them to 0.")
    return MultiClassLoss(weights)


def _class_weights(settings: ClassificationSettings, items: Sequence[Item]) -> list[float] | None:
    given = settings.class_weights
    if given == "none":
        return None
    if not isinstance(given, str):
        if len(given) != len(settings.classes):
            raise ValueError(f"class_weights must be {len(settings.classes)} numbers, one a class, got {given}.")
        return list(given)
    table = np.array([[np.nan if one is None else one for one in item["labels"]] for item in items], dtype=np.float64)
    positives, negatives = (table == 1).sum(axis=0), (table == 0).sum(axis=0)
    if min(positives.min(), negatives.min()) == 0:
        raise ValueError("class_weights: balanced ones need training films with and without each class.")
    if settings.target == "multi_class":
        return list(len(table) / (len(positives) * positives))
    return list(negatives / positives)


def new_step(settings: ClassificationSettings, loss: nn.Module, schedule: CosineSchedule) -> ClassificationStep:
    """The trainer's iteration update."""
    return ClassificationStep(loss, schedule, **stepping(settings))
