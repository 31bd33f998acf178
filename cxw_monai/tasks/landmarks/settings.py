"""Settings of the landmark bundle: training and scoring."""

from __future__ import annotations

from cxw_monai.settings import setting
from cxw_monai.settings.common import EncoderTuningSettings
from cxw_monai.settings.types import AtLeast0, Count, Names, Positive, Table, Text

__all__ = ["LandmarkScoringSettings", "LandmarkSettings"]


class LandmarkSettings(EncoderTuningSettings):
    """Training of a landmark network on a pretrained encoder."""

    points: Names | None = setting(
        None, "landmarks to learn, in the order of the network's maps; null for all of the manifest", resume="fixed"
    )
    point_map: Table | None = setting({}, "the manifest's column of a landmark, by its name", resume="fixed")
    anatomy: Text = setting(
        "chest", "what the films show: chest (frontal; films are checked for it in inference) or any other word"
    )
    decoder: Text = setting("unet", "unet, hybrid, upernet or linear", resume="fixed")
    base_channels: Count = setting(16, "channels of the decoder's last stage", resume="fixed")
    heat_px: Positive = setting(2.0, "deviation of the heat maps in px of the network's image", resume="fixed")
    distance_weight: AtLeast0 = setting(0.0, "weight of the distance of a map's mean, beside its divergence")


class LandmarkScoringSettings(LandmarkSettings):
    """Scoring of a trained landmark network against landmarks."""

    ckpt: Text = setting(lambda data: f"{data['output_dir']}/model.pt", "file of the landmark network", resume="free")
    subset: Text = setting("test", "films to score: train, validation, test or all", resume="free")
