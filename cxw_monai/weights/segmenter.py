"""Segmentation networks in files, and new ones that start from a pretrained encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from cxw_monai.networks import VIT_SIZES, RadiographSegmenter, resize_encoder

from .encoder import pretrained_weights
from .encoder_settings import EncoderSettings
from .files import CheckpointError, load_state
from .kinds import Source, read_weights
from .kinds import save_network as save_segmenter
from .segmenter_settings import SegmenterSettings, checked_image_size

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

DEFAULT_SIZE = "small"


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
        size: the encoder's; None for that of `encoder_ckpt`, or `small` without one.
        patch_size: side of a patch in px; another one than the checkpoint's resizes its stem and positions.
        encoder_ckpt, encoder_weights: see `pretrained_weights` and `encoder_tensors`; None or `none`: fresh.

    Raises:
        ValueError: when the size is unknown, or the image is no multiple of the patch.
        CheckpointError: when the checkpoint is of another size, or cannot be read.
    """
    if size is not None and size not in tuple(VIT_SIZES):
        raise ValueError(f"network_size must be one of {', '.join(VIT_SIZES)}, got {size!r}.")
    if type(patch_size) is not int or patch_size < 1:
        raise ValueError(f"patch_size must be a whole number of px of at least 1, got {patch_size!r}.")
    sides = checked_image_size(image_size, patch_size)
    encoder = EncoderSettings(size or DEFAULT_SIZE, sides, patch_size, 1)
    if (weights := pretrained_weights(encoder_ckpt)) is not None:
        encoder = weights.encoder_settings(encoder_weights, sides)
        if size not in (None, encoder.size):
            remedy = f"set network_size to {encoder.size}, or encoder_ckpt to another file or to 'none' (fresh weights)"
            raise CheckpointError(weights.path, f"an encoder of size {encoder.size!r}, not {size!r}", remedy)
    return SegmenterSettings(
        structures=cast(tuple, tuple(structures) if isinstance(structures, list) else structures),
        image_size=sides,
        size=encoder.size,
        patch_size=patch_size,
        decoder=decoder,
        base_channels=base_channels,
        in_channels=encoder.in_channels,
        encoder_image_size=encoder.image_size,
        pretrained_patch=encoder.patch_size,
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
    named = {"none": 0, "encoder": -1}
    if freeze not in named and not str(freeze).isdigit():
        raise ValueError(f"freeze must be 'none', 'encoder' or a number of blocks, got {freeze!r}.")
    network = settings.network(drop_path, named[str(freeze)] if freeze in named else int(freeze))
    if (weights := pretrained_weights(encoder_ckpt)) is not None:
        state = weights.encoder(encoder_weights)
        if settings.patch_size != (old := settings.pretrained_patch):
            height, width = settings.encoder_image_size
            state = resize_encoder(state, settings.patch_size, (height // old, width // old))
        load_state(network.encoder, state, weights.path, "make settings and network with the same encoder_ckpt")
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
