"""Encoders and world models in files."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from cxw_monai.networks import RadiographEmbedder

from .bundles import named_bundle
from .encoder_settings import ENCODER_PREFIXES
from .files import CheckpointError, load_state
from .kinds import Source, Weights, read_weights

__all__ = ["CheckpointError", "load_encoder", "load_weights", "pretrained_weights", "save_weights"]

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
