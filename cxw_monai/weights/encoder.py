"""Encoders and world models in files."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from cxw_monai.networks import VIT_SIZES, RadiographEmbedder, RadiographViT, resize_encoder

from .bundles import named_bundle
from .encoder_settings import ENCODER_PREFIXES, EncoderSettings
from .files import CheckpointError, load_state
from .kinds import Source, Weights, read_weights
from .task_settings import EncoderUse, checked_image_size

__all__ = [
    "CheckpointError",
    "encoder_use",
    "frozen_blocks",
    "load_encoder",
    "load_weights",
    "pretrained_weights",
    "save_weights",
    "start_encoder",
]

DEFAULT_SIZE = "small"

logger = logging.getLogger(__name__)


def load_encoder(path: Source) -> RadiographEmbedder:
    """The target encoder of a pretraining run, with all sizes read off its tensors.

    Args:
        path: `model.pt`, `encoder.pt` or their safetensors of a pretraining run, an official checkpoint, the folder
            of either, or what `read_weights` gave. Learnt positions are of the bundle's image size, or of 224 px.

    Returns:
        The network in evaluation mode on the CPU; `encoder.grid` times `encoder.patch_size` is pretraining's size.

    Raises:
        CheckpointError: the file cannot be read, or holds no encoder of a known size.
    """
    weights = read_weights(path)
    return weights.embedder(weights.encoder_settings())


def pretrained_weights(encoder_ckpt: Source | None) -> Weights | None:
    """The weights to start from; None for fresh ones, which a command line asks for by `none`.

    A bundle's folder that isn't there is looked for by its name: a bundle that was fetched alone finds its neighbour.

    Raises:
        CheckpointError: there is no such file, or it cannot be read.
    """
    if encoder_ckpt is None or encoder_ckpt == "none":
        return None
    if isinstance(encoder_ckpt, Weights) or (path := Path(encoder_ckpt)).exists():
        return read_weights(encoder_ckpt)
    if path.suffix or (found := named_bundle(path.name)) is None:
        remedy = "fetch that bundle, give encoder_ckpt a file, or 'none' for a fresh encoder"
        raise CheckpointError(path, "no such file", remedy)
    return read_weights(found)


def encoder_use(
    image_size: int | Sequence[int] = 224,
    size: str | None = None,
    patch_size: int = 16,
    encoder_ckpt: Source | None = None,
    encoder_weights: str = "target",
) -> dict[str, Any]:
    """The fields of `EncoderUse` for a new network; the encoder's are those of its checkpoint where there is one.

    Args:
        image_size: px that films are stretched to, one number or (height, width).
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
    return {
        "image_size": sides,
        "size": encoder.size,
        "patch_size": patch_size,
        "in_channels": encoder.in_channels,
        "encoder_image_size": encoder.image_size,
        "pretrained_patch": encoder.patch_size,
    }


def frozen_blocks(freeze: str | int) -> int:
    """How many first blocks of an encoder keep their weights: -1 for all, with the final norm.

    Args:
        freeze: `none`, `encoder`, or the number of blocks.

    Raises:
        ValueError: for another `freeze`.
    """
    named = {"none": 0, "encoder": -1}
    if freeze not in named and not str(freeze).isdigit():
        raise ValueError(f"freeze must be 'none', 'encoder' or a number of blocks, got {freeze!r}.")
    return named[str(freeze)] if freeze in named else int(freeze)


def start_encoder(
    encoder: RadiographViT, use: EncoderUse, encoder_ckpt: Source | None, encoder_weights: str = "target"
) -> None:
    """Put the weights of a checkpoint into a new network's encoder, where there is one.

    Args:
        encoder: of the sizes in `use`.
        use: settings of the network, made with the same `encoder_ckpt`.
        encoder_ckpt, encoder_weights: as for `encoder_use`.

    Raises:
        CheckpointError: when the weights do not fit.
    """
    if (weights := pretrained_weights(encoder_ckpt)) is None:
        return
    state = weights.encoder(encoder_weights)
    if use.patch_size != (old := use.pretrained_patch):
        height, width = use.encoder_image_size
        state = resize_encoder(state, use.patch_size, (height // old, width // old))
    load_state(encoder, state, weights.path, "make settings and network with the same encoder_ckpt")


def load_weights(module: nn.Module, path: Source) -> nn.Module:
    """Load a module's weights from a file, strictly.

    They are those under the first of `target_encoder.` and `encoder.` that the file has, and all of the file where it
    has neither, or where the module's own names begin so.

    Args:
        module: a `WorldModel`, or a `RadiographViT` that takes its tensors from a world model's file too.
        path: as for `load_encoder`.

    Returns:
        `module`.

    Raises:
        CheckpointError: when names or shapes do not fit; the message lists them.
    """
    weights = read_weights(path)
    own = module.state_dict()
    found = [p for p in ENCODER_PREFIXES if any(name.startswith(p) for name in weights.state)]
    prefix = "" if not found or any(name.startswith(found[0]) for name in own) else found[0]
    state = {name[len(prefix) :]: value for name, value in weights.state.items() if name.startswith(prefix)}
    remedy = "build the network that the checkpoint was made with: in a bundle, give its run's preset after the config"
    load_state(module, state, weights.path, remedy)
    logger.info("Loaded %d tensors from %s (%s).", len(state), weights.path, prefix.rstrip(".") or "whole file")
    return module


def save_weights(state: Mapping[str, Tensor], output_dir: str | Path, geometry: Mapping[str, Any]) -> None:
    """Write `model.pt` (a plain state dict) and `model.safetensors` (with the geometry in its metadata)."""
    output_dir = Path(output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    torch.save(state, output_dir / "model.pt")
    save_file(state, output_dir / "model.safetensors", {"geometry": json.dumps(dict(geometry))})
