"""Settings of the segmentation bundle: training and scoring."""

from __future__ import annotations

from typing import Annotated, Literal

from cxw_monai.settings import setting
from cxw_monai.settings.common import TrainingSettings
from cxw_monai.settings.types import AtLeast0, Count, Lower, Names, Number, Pair, Share, Size, Table, Text, Whole

__all__ = ["FineTuningSettings", "ScoringSettings"]

STRUCTURES = ["lung_left", "lung_right", "heart", "clavicle_left", "clavicle_right"]


class FineTuningSettings(TrainingSettings):
    """Training of a segmenter on a pretrained encoder."""

    test_datalist: Text | None = setting(
        None, "manifest of the test films, where they are in one of their own", resume="free"
    )
    splits: Annotated[Literal["patient", "column"], Lower] = setting("patient", "how films are split", resume="fixed")
    test_fraction: AtLeast0 = setting(0.0, "share of the patients tested at the end, in [0, 1)", resume="fixed", lt=1)
    structures: Names = setting(STRUCTURES, "masks to learn", resume="fixed")
    structure_map: Table | None = setting({}, "the manifest's columns of a structure, by its name", resume="fixed")
    absent_labels: Table | None = setting({}, "columns that say a structure is absent, by its name", resume="fixed")
    cache_size: Count = setting(256, "shorter side of a decoded film in px, at most")
    val_interval: Count = setting(1, "epochs between validations", resume="free")
    # network
    network_size: Text | None = setting(
        None, "the encoder's: tiny, small, base, large, huge; null for its file's", resume="fixed"
    )
    image_size: Size = setting(224, "side of the network's input in px, or height and width", resume="fixed")
    decoder: Text = setting("unet", "unet, hybrid, upernet or linear", resume="fixed")
    base_channels: Count = setting(16, "channels of the decoder's last stage", resume="fixed")
    drop_path_rate: AtLeast0 = setting(0.1, "stochastic depth of the encoder, in [0, 1)", lt=1)
    encoder_ckpt: Text | None = setting(
        lambda data: f"{data['bundle_root']}/../chexworld_pretraining",
        "file or bundle of an encoder; none for fresh weights",
        resume="free",
    )
    start_from: Text | None = setting(
        None, "file or bundle of a segmenter to go on from, whose sizes count in the place of these", resume="free"
    )
    encoder_weights: Text = setting("target", "which of a world model's encoders", resume="free")
    freeze: Whole | Text = setting(
        "none", "none, encoder, or how many first blocks", resume="fixed", union_mode="left_to_right"
    )
    layer_decay: Number = setting(0.8, "factor of the learning rate from block to block, in (0, 1]", gt=0, le=1)
    # augmentation
    crop_prob: Share = setting(0.5, "probability of a crop, 0 to 1")
    crop_scale: Pair = setting([0.4, 1.0], "area of a crop as a share of the film's, low and high")
    affine_prob: Share = setting(0.8, "probability of an affine map, 0 to 1")
    rotate: AtLeast0 = setting(10.0, "largest rotation in degrees")
    shear: AtLeast0 = setting(5.0, "largest shear in degrees")
    zoom: Pair = setting([0.9, 1.1], "low and high")
    translate: AtLeast0 = setting(0.05, "largest shift as a share of the side")
    distortion_prob: Share = setting(0.2, "probability of an elastic distortion, 0 to 1")
    distortion: AtLeast0 = setting(0.03, "largest distortion as a share of the side")
    jitter_prob: Share = setting(0.8, "probability of each of brightness, contrast and gamma, 0 to 1")
    brightness: Pair = setting([0.8, 1.2], "factor, low and high")
    contrast: Pair = setting([0.8, 1.2], "factor, low and high")
    gamma: Pair = setting([0.7, 1.4], "exponent, low and high")
    blur_prob: Share = setting(0.2, "probability of blur, 0 to 1")
    blur: Pair = setting([0.1, 1.5], "deviation of the blur in px, low and high")
    noise_prob: Share = setting(0.2, "probability of noise, 0 to 1")
    noise: Pair = setting([0.005, 0.03], "deviation of the noise, low and high, of grey values 0 to 1")
    # optimisation
    batch_size: Count = setting(16, "films of a process and micro-batch")
    epochs: Count = setting(50, "passes over the films, 1 or more")
    lr: AtLeast0 = setting(5e-4, "learning rate after the warm-up, 0 or more")
    warmup_epochs: AtLeast0 = setting(2, "epochs over which the learning rate rises")
    dice_weight: AtLeast0 = setting(1.0, "weight of the Dice loss")
    bce_weight: AtLeast0 = setting(1.0, "weight of the binary cross-entropy")
    patience: Count | None = setting(None, "validations without a better one that end the run; null for never")


class ScoringSettings(FineTuningSettings):
    """Scoring of a trained segmenter against masks."""

    ckpt: Text = setting(lambda data: f"{data['output_dir']}/model.pt", "file of the segmenter", resume="free")
    subset: Text = setting("test", "films to score: train, validation, test or all", resume="free")
