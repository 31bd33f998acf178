"""Segmentation networks in files, and new ones that start from a pretrained encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from cxw_monai.networks import RadiographSegmenter

from .encoder import encoder_use, frozen_blocks, start_encoder
from .files import load_state
from .kinds import Source, read_weights
from .kinds import save_network as save_segmenter
from .segmenter_settings import SegmenterSettings
from .task_settings import checked_image_size

__all__ = [
    "SegmenterSettings",
    "continued_segmenter",
    "continued_settings",
    "load_segmenter",
    "new_segmenter",
    "read_segmenter",
    "read_settings",
    "save_segmenter",
    "segmenter_settings",
]


def segmenter_settings(
    structures: Sequence[str],
    image_size: int | Sequence[int] = 224,
    size: str | None = None,
    patch_size: int = 16,
    decoder: str = "unet",
    base_channels: int = 32,
    encoder_ckpt: Source | None = None,
    encoder_weights: str = "target",
) -> SegmenterSettings:
    """Settings of a new segmenter; the encoder's are those of its checkpoint where there is one.

    Args:
        structures, decoder, base_channels: see `RadiographSegmenter`.
        image_size: px to segment at, one number or (height, width); a multiple of 16 for the `unet` decoder.
        size, patch_size, encoder_ckpt, encoder_weights: see `encoder_use`.

    Raises:
        ValueError: when the size is unknown, or the image is no multiple of the patch.
        CheckpointError: when the checkpoint is of another size, or cannot be read.
    """
    return SegmenterSettings(
        structures=cast(tuple, tuple(structures) if isinstance(structures, list) else structures),
        decoder=decoder,
        base_channels=base_channels,
        **encoder_use(image_size, size, patch_size, encoder_ckpt, encoder_weights),
    )


def new_segmenter(
    settings: SegmenterSettings,
    encoder_ckpt: Source | None = None,
    encoder_weights: str = "target",
    drop_path: float = 0.0,
    freeze: str | int = "none",
) -> RadiographSegmenter:
    """A segmenter to train.

    Args:
        settings: its sizes, made with the same `encoder_ckpt`.
        encoder_ckpt, encoder_weights: where the encoder's weights come from, as for `segmenter_settings`.
        drop_path: the encoder's stochastic depth.
        freeze: `none`, `encoder`, or the number of first blocks (and the stem) that keep their weights.

    Raises:
        ValueError: for another `freeze`.
        CheckpointError: when the weights do not fit.
    """
    network = settings.network(drop_path, frozen_blocks(freeze))
    start_encoder(network.encoder, settings, encoder_ckpt, encoder_weights)
    return network


def continued_settings(
    start_from: Source, structures: Sequence[str], image_size: int | Sequence[int]
) -> SegmenterSettings:
    """Settings of a segmenter that goes on from another one's weights: its sizes, with structures and input of its own.

    Raises:
        ValueError: the image is no multiple of the patch, or the structures are none.
        CheckpointError: the file is damaged or no saved segmenter.
    """
    settings = read_settings(start_from)
    sides = checked_image_size(image_size, settings.patch_size)
    return replace(settings, structures=tuple(structures), image_size=sides)


def continued_segmenter(
    settings: SegmenterSettings, start_from: Source, drop_path: float = 0.0, freeze: str | int = "none"
) -> RadiographSegmenter:
    """A segmenter to train that goes on from another one's weights.

    The last convolution's rows go over by the structures' names; a structure that the other one lacks starts afresh.

    Args:
        settings: of `continued_settings`.
        start_from: file or bundle of a segmenter.
        drop_path, freeze: see `new_segmenter`.

    Raises:
        ValueError: for another `freeze`.
        CheckpointError: the file is damaged or no saved segmenter.
    """
    weights = read_weights(start_from)
    network = new_segmenter(settings, drop_path=drop_path, freeze=freeze)
    known, state = {name: n for n, name in enumerate(read_settings(weights).structures)}, dict(weights.state)
    for name in ("decoder.head.weight", "decoder.head.bias"):
        fresh = network.state_dict()[name]
        rows = fresh.view(len(settings.structures), -1, *fresh.shape[1:]).clone()  # the linear decoder has several each
        theirs = state[name].view(len(known), -1, *fresh.shape[1:])
        for row, structure in zip(rows, settings.structures, strict=True):
            if structure in known:
                row.copy_(theirs[known[structure]])
        state[name] = rows.view_as(fresh)
    load_state(network, state, weights.path, "give model.pt of a segmentation run")
    return network


def read_segmenter(path: Source) -> tuple[SegmenterSettings, RadiographSegmenter]:
    """A saved segmenter, in evaluation mode on the CPU, and its settings.

    Args:
        path: file of `save_segmenter`, such as a run's `model.pt`, or what `read_weights` gave.

    Raises:
        CheckpointError: the file is damaged or no saved segmenter.
    """
    weights = read_weights(path)
    return read_settings(weights), cast(RadiographSegmenter, weights.network())


def read_settings(path: Source) -> SegmenterSettings:
    """Settings of a saved segmenter; its tensors are looked at only when the network is loaded.

    Raises:
        CheckpointError: the file is damaged or no saved segmenter.
    """
    return cast(SegmenterSettings, read_weights(path).expect("segmentation").settings)


def load_segmenter(path: Source) -> RadiographSegmenter:
    """The network of `read_segmenter` alone."""
    return read_segmenter(path)[1]
