"""Landmark networks in files, and new ones that start from a pretrained encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from cxw_monai.networks import RadiographLandmarker

from .encoder import encoder_use, frozen_blocks, start_encoder
from .kinds import Source, read_weights
from .landmarker_settings import LandmarkerSettings

__all__ = ["LandmarkerSettings", "landmarker_settings", "load_landmarker", "new_landmarker", "read_settings"]


def landmarker_settings(
    points: Sequence[str],
    decoder: str = "unet",
    base_channels: int = 16,
    heat_px: float = 2.0,
    anatomy: str = "chest",
    image_size: int | Sequence[int] = 224,
    size: str | None = None,
    patch_size: int = 16,
    encoder_ckpt: Source | None = None,
    encoder_weights: str = "target",
) -> LandmarkerSettings:
    """Settings of a new landmark network; the encoder's are those of its checkpoint where there is one.

    Args:
        points, decoder, base_channels, heat_px, anatomy: see `LandmarkerSettings`.
        image_size, size, patch_size, encoder_ckpt, encoder_weights: see `encoder_use`.

    Raises:
        ValueError: a value is out of its range.
        CheckpointError: the checkpoint is of another size, or cannot be read.
    """
    return LandmarkerSettings(
        points=tuple(points),
        decoder=decoder,
        base_channels=base_channels,
        heat_px=float(heat_px),
        anatomy=anatomy,
        **encoder_use(image_size, size, patch_size, encoder_ckpt, encoder_weights),
    )


def new_landmarker(
    settings: LandmarkerSettings,
    encoder_ckpt: Source | None = None,
    encoder_weights: str = "target",
    drop_path: float = 0.0,
    freeze: str | int = "none",
) -> RadiographLandmarker:
    """A landmark network to train.

    Args:
        settings: its sizes, made with the same `encoder_ckpt`.
        encoder_ckpt, encoder_weights: where the encoder's weights come from, as for `landmarker_settings`.
        drop_path: the encoder's stochastic depth.
        freeze: `none`, `encoder`, or the number of first blocks (and the stem) that keep their weights.

    Raises:
        ValueError: for another `freeze`.
        CheckpointError: when the weights do not fit.
    """
    network = settings.network(drop_path, frozen_blocks(freeze))
    start_encoder(network.encoder, settings, encoder_ckpt, encoder_weights)
    return network


def read_settings(path: Source) -> LandmarkerSettings:
    """Settings of a saved landmark network; its tensors are looked at only when the network is loaded.

    Raises:
        CheckpointError: the file is damaged or no saved landmark network.
    """
    return cast(LandmarkerSettings, read_weights(path).expect("landmarks").settings)


def load_landmarker(path: Source) -> RadiographLandmarker:
    """A saved landmark network, in evaluation mode on the CPU.

    Raises:
        CheckpointError: the file is damaged or no saved landmark network.
    """
    return cast(RadiographLandmarker, read_weights(path).expect("landmarks").network())
