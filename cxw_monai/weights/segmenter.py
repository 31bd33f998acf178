"""Segmentation networks in files: weights together with the plain values that rebuild the network.

A file is `torch.save` of `{"model": state dict, "settings": {...}}`, tensors and plain values only, so that it is read
without unpickling anything that could run. Of a `.safetensors` the settings stand in `config.json` beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.networks import VIT_SIZES, RadiographSegmenter, resize_encoder

from .files import CheckpointError, build, load_state, one_line, read_weights, state_dict_of
from .resolve import chosen_encoder, encoder_size, encoder_state, reference_size
from .segmenter_settings import SegmenterSettings, checked_image_size

__all__ = [
    "SegmenterSettings",
    "holds_segmenter",
    "load_segmenter",
    "new_segmenter",
    "read_segmenter",
    "read_settings",
    "save_segmenter",
    "segmenter_of",
    "segmenter_settings",
]

DEFAULT_SIZE = "small"
_NO_SEGMENTER, _GIVE = "not a segmentation model of this package", "give model.pt of a segmentation run"


def segmenter_settings(
    structures: Sequence[str],
    image_size: int | Sequence[int] = 224,
    size: str | None = None,
    patch_size: int = 16,
    decoder: str = "unet",
    base_channels: int = 32,
    encoder_ckpt: str | Path | None = None,
    encoder_weights: str = "target",
) -> SegmenterSettings:
    """Settings of a new segmenter; the encoder's are those of its checkpoint where there is one.

    Args:
        structures, decoder, base_channels: see `RadiographSegmenter`.
        image_size: px to segment at, one number or (height, width); a multiple of 16 for the `unet` decoder.
        size: the encoder's; None for that of `encoder_ckpt`, or `small` without one.
        patch_size: side of a patch in px; another one than the checkpoint's resizes its stem and positions.
        encoder_ckpt, encoder_weights: see `encoder_state`; None or `none` for fresh weights.

    Raises:
        ValueError: when the size is unknown, or the image is no multiple of the patch.
        CheckpointError: when the checkpoint is of another size, or cannot be read.
    """
    if size is not None and size not in tuple(VIT_SIZES):
        raise ValueError(f"network_size must be one of {', '.join(VIT_SIZES)}, got {size!r}.")
    if type(patch_size) is not int or patch_size < 1:
        raise ValueError(f"patch_size must be a whole number of px of at least 1, got {patch_size!r}.")
    height, width = checked_image_size(image_size, patch_size)
    reference, pretrained_patch, channels = (height, width), patch_size, 1
    if (path := chosen_encoder(encoder_ckpt)) is not None:
        state = encoder_state(path, encoder_weights)
        channels, pretrained_patch = state["patch_embed.proj.weight"].shape[1:3]
        found = encoder_size(state, path)
        reference = reference_size(state, (height, width), path)
        if size not in (None, found):
            remedy = f"set network_size to {found}, or encoder_ckpt to another file or to 'none' (fresh weights)"
            raise CheckpointError(path, f"an encoder of size {found!r}, not {size!r}", remedy)
        size = found
    return SegmenterSettings(
        structures=tuple(structures) if isinstance(structures, list) else structures,
        image_size=(height, width),
        size=size or DEFAULT_SIZE,
        patch_size=patch_size,
        decoder=decoder,
        base_channels=base_channels,
        in_channels=int(channels),
        encoder_image_size=reference,
        pretrained_patch=int(pretrained_patch),
    )


def new_segmenter(
    settings: SegmenterSettings,
    encoder_ckpt: str | Path | None = None,
    encoder_weights: str = "target",
    drop_path: float = 0.0,
    freeze: str | int = "none",
) -> RadiographSegmenter:
    """A segmenter to train.

    Args:
        settings: its sizes, made with the same `encoder_ckpt`.
        encoder_ckpt, encoder_weights: where the encoder's weights come from (`encoder_state`); None or `none`: fresh.
        drop_path: the encoder's stochastic depth.
        freeze: `none`, `encoder`, or the number of first blocks (and the stem) that keep their weights.

    Raises:
        ValueError: for another `freeze`.
        CheckpointError: when the weights do not fit.
    """
    named = {"none": 0, "encoder": -1}
    if freeze not in named and not str(freeze).isdigit():
        raise ValueError(f"freeze must be 'none', 'encoder' or a number of blocks, got {freeze!r}.")
    network = settings.network(drop_path, named.get(freeze) if freeze in named else int(freeze))
    if (path := chosen_encoder(encoder_ckpt)) is not None:
        state = encoder_state(path, encoder_weights)
        if settings.patch_size != settings.pretrained_patch:
            grid = tuple(side // settings.pretrained_patch for side in settings.encoder_image_size)
            state = resize_encoder(state, settings.patch_size, grid)
        load_state(network.encoder, state, path, "make settings and network with the same encoder_ckpt")
    return network


def save_segmenter(network: RadiographSegmenter, settings: SegmenterSettings, path: str | Path) -> None:
    """Write a file that `load_segmenter` needs nothing else for."""
    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(settings).items()}
    with atomic_file(path) as stream:
        torch.save({"model": state, "settings": plain}, stream)


def holds_segmenter(content: Mapping[str, Any], path: Path) -> bool:
    """Whether what `read_weights` gave for `path` is a saved segmenter's, rather than an encoder's."""
    if path.suffix == ".safetensors":
        return any(str(name).startswith("decoder.") for name in content)
    return "settings" in content


def _settings_of(content: Mapping[str, Any], path: Path) -> SegmenterSettings:
    """The settings in a file, or of a `.safetensors` beside it.

    Raises:
        CheckpointError: there are none, or they are of no network.
    """
    plain, names = content.get("settings"), {field.name for field in fields(SegmenterSettings)}
    config = path.parent / "config.json"
    if path.suffix == ".safetensors" and config.is_file():
        try:
            plain = json.loads(config.read_text(encoding="utf-8"))["settings"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise CheckpointError(config, f"tells no settings ({one_line(error)})", "fetch it again") from error
    if not isinstance(plain, Mapping) or set(plain) != names:
        raise CheckpointError(path, _NO_SEGMENTER, _GIVE)
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()}
    try:
        return SegmenterSettings(**values)
    except ValueError as error:
        raise CheckpointError(path, f"settings of no network: {str(error).rstrip('.')}", _GIVE) from error


def segmenter_of(content: Mapping[str, Any], path: Path) -> tuple[SegmenterSettings, RadiographSegmenter]:
    """As `read_segmenter`, from what `read_weights` gave for `path`."""
    settings = _settings_of(content, path)
    return settings, build(settings.network, state_dict_of(content, path), path)


def read_segmenter(path: str | Path) -> tuple[SegmenterSettings, RadiographSegmenter]:
    """A saved segmenter, in evaluation mode on the CPU, and its settings.

    Args:
        path: file of `save_segmenter`, such as a run's `model.pt`.

    Raises:
        CheckpointError: the file is damaged or no saved segmenter.
    """
    return segmenter_of(read_weights(path), Path(path))


def read_settings(path: str | Path) -> SegmenterSettings:
    """Settings of a saved segmenter; its tensors are looked at only when the network is loaded.

    Raises:
        CheckpointError: the file is damaged or no saved segmenter.
    """
    return _settings_of(read_weights(path), Path(path))


def load_segmenter(path: str | Path) -> RadiographSegmenter:
    """The network of `read_segmenter` alone."""
    return read_segmenter(path)[1]
