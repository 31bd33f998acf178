"""Classification networks in files, and new ones that start from a pretrained encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from cxw_monai.networks import RadiographClassifier

from .classifier_settings import ClassifierSettings
from .encoder import encoder_use, frozen_blocks, start_encoder
from .kinds import Source, read_weights

__all__ = [
    "ClassifierSettings",
    "classifier_settings",
    "load_classifier",
    "new_classifier",
    "read_classifier",
    "read_settings",
]


def classifier_settings(
    classes: Sequence[str],
    target: str = "multi_label",
    head: str = "linear",
    head_layers: int = 1,
    head_norm: bool = False,
    anatomy: str = "chest",
    image_size: int | Sequence[int] = 224,
    size: str | None = None,
    patch_size: int = 16,
    encoder_ckpt: Source | None = None,
    encoder_weights: str = "target",
) -> ClassifierSettings:
    """Settings of a new classifier; the encoder's are those of its checkpoint where there is one.

    Args:
        classes, target, head, head_layers, head_norm, anatomy: see `ClassifierSettings`.
        image_size, size, patch_size, encoder_ckpt, encoder_weights: see `encoder_use`.

    Raises:
        ValueError: a value is out of its range.
        CheckpointError: the checkpoint is of another size, or cannot be read.
    """
    return ClassifierSettings(
        classes=tuple(classes),
        target=target,
        head=head,
        head_layers=head_layers,
        head_norm=head_norm,
        anatomy=anatomy,
        **encoder_use(image_size, size, patch_size, encoder_ckpt, encoder_weights),
    )


def new_classifier(
    settings: ClassifierSettings,
    encoder_ckpt: Source | None = None,
    encoder_weights: str = "target",
    drop_path: float = 0.0,
    freeze: str | int = "none",
) -> RadiographClassifier:
    """A classifier to train.

    Args:
        settings: its sizes, made with the same `encoder_ckpt`.
        encoder_ckpt, encoder_weights: where the encoder's weights come from, as for `classifier_settings`.
        drop_path: the encoder's stochastic depth.
        freeze: `none`, `encoder`, or the number of first blocks (and the stem) that keep their weights.

    Raises:
        ValueError: for another `freeze`.
        CheckpointError: when the weights do not fit.
    """
    network = settings.network(drop_path, frozen_blocks(freeze))
    start_encoder(network.encoder, settings, encoder_ckpt, encoder_weights)
    return network


def read_classifier(path: Source) -> tuple[ClassifierSettings, RadiographClassifier]:
    """A saved classifier, in evaluation mode on the CPU, and its settings.

    Args:
        path: file of a run, such as `model.pt`, or what `read_weights` gave.

    Raises:
        CheckpointError: the file is damaged or no saved classifier.
    """
    weights = read_weights(path)
    return read_settings(weights), cast(RadiographClassifier, weights.network())


def read_settings(path: Source) -> ClassifierSettings:
    """Settings of a saved classifier; its tensors are looked at only when the network is loaded.

    Raises:
        CheckpointError: the file is damaged or no saved classifier.
    """
    return cast(ClassifierSettings, read_weights(path).expect("classification").settings)


def load_classifier(path: Source) -> RadiographClassifier:
    """The network of `read_classifier` alone."""
    return read_classifier(path)[1]
