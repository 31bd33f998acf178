"""Settings of the segmentation bundle: training and scoring."""

from __future__ import annotations

from cxw_monai.settings import setting
from cxw_monai.settings.common import EncoderTuningSettings
from cxw_monai.settings.types import AtLeast0, Count, Names, Table, Text

__all__ = ["FineTuningSettings", "ScoringSettings"]

STRUCTURES = ["lung_left", "lung_right", "heart", "clavicle_left", "clavicle_right"]


class FineTuningSettings(EncoderTuningSettings):
    """Training of a segmenter on a pretrained encoder."""

    structures: Names = setting(STRUCTURES, "masks to learn", resume="fixed")
    structure_map: Table | None = setting({}, "the manifest's columns of a structure, by its name", resume="fixed")
    absent_labels: Table | None = setting({}, "columns that say a structure is absent, by its name", resume="fixed")
    decoder: Text = setting("unet", "unet, hybrid, upernet or linear", resume="fixed")
    base_channels: Count = setting(16, "channels of the decoder's last stage", resume="fixed")
    start_from: Text | None = setting(
        None, "file or bundle of a segmenter to go on from, whose sizes count in the place of these", resume="free"
    )
    dice_weight: AtLeast0 = setting(1.0, "weight of the Dice loss")
    bce_weight: AtLeast0 = setting(1.0, "weight of the binary cross-entropy")


class ScoringSettings(FineTuningSettings):
    """Scoring of a trained segmenter against masks."""

    ckpt: Text = setting(lambda data: f"{data['output_dir']}/model.pt", "file of the segmenter", resume="free")
    subset: Text = setting("test", "films to score: train, validation, test or all", resume="free")
