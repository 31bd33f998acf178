"""Settings of the classification bundle: training and scoring."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cxw_monai.settings import setting
from cxw_monai.settings.common import EncoderTuningSettings
from cxw_monai.settings.types import AtLeast0, Count, Lower, Names, Number, Positive, Table, Text

__all__ = ["ClassificationSettings", "ClassificationScoringSettings"]

ClassWeights = Annotated[list[Positive], Field(min_length=1)]


class ClassificationSettings(EncoderTuningSettings):
    """Training of a classifier on a pretrained encoder."""

    classes: Names = setting(["pneumonia"], "labels to learn, in the order of the network's outputs", resume="fixed")
    label_map: Table | None = setting(
        {}, "the manifest's column of a class by its name, or {column: value} where a text means it", resume="fixed"
    )
    target: Annotated[Literal["multi_label", "multi_class"], Lower] = setting(
        "multi_label", "multi_label (any of the classes) or multi_class (exactly one)", resume="fixed"
    )
    label_fraction: Number = setting(1.0, "share of the training patients that are used", resume="fixed", gt=0, le=1)
    shots: Count | None = setting(None, "training patients a class; null for all", resume="fixed")
    anatomy: Text = setting(
        "chest", "what the films show: chest (frontal; films are checked for it in inference) or any other word"
    )
    # network
    head: Annotated[Literal["linear", "attentive"], Lower] = setting("linear", "linear or attentive", resume="fixed")
    head_layers: Count = setting(1, "how many of the encoder's last blocks the head reads", resume="fixed")
    head_norm: bool = setting(False, "layer normalisation before the head", resume="fixed")
    cache_tokens: bool = setting(
        False, "encode each film once and train the head on that; for a frozen encoder, without augmentation"
    )
    layer_decay: Number = setting(0.75, "factor of the learning rate from block to block, in (0, 1]", gt=0, le=1)
    # loss and choice
    class_weights: Annotated[Literal["none", "balanced"], Lower] | ClassWeights = setting(
        "none", "none, balanced, or a number a class: of its positives, or of its films", union_mode="left_to_right"
    )
    gamma_negative: AtLeast0 = setting(0.0, "asymmetric loss: exponent of negatives, 0 for cross-entropy")
    gamma_positive: AtLeast0 = setting(0.0, "asymmetric loss: exponent of positives")
    margin: AtLeast0 = setting(0.0, "asymmetric loss: probability below which negatives don't count", lt=1)
    key_metric: Annotated[Literal["auroc", "accuracy"], Lower] = setting(
        "auroc", "validation score of which the best epoch is kept: auroc (mean of the classes) or accuracy"
    )


class ClassificationScoringSettings(ClassificationSettings):
    """Scoring of a trained classifier against labels."""

    ckpt: Text = setting(lambda data: f"{data['output_dir']}/model.pt", "file of the classifier", resume="free")
    subset: Text = setting("test", "films to score: train, validation, test or all", resume="free")
