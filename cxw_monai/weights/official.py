"""Official CheXWorld checkpoints: the world model that they are of, and their import.

They are pickles of `{model, epoch, args}` with an `argparse.Namespace` inside, which `files.read_content` admits beside
tensors and plain containers.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cxw_monai.networks import RadiographViT, WorldModel, WorldModelPredictor, WorldModelSettings, table_order
from cxw_monai.networks.positions import TableOrder
from cxw_monai.networks.predictor import Conditioning
from cxw_monai.networks.vit import VIT_SIZES

from . import kinds
from .encoder import load_weights, save_weights
from .encoder_settings import ENCODER_PREFIXES
from .files import CheckpointError, build, one_line

__all__ = [
    "WorldModelGeometry",
    "build_world_model",
    "fold_to_one_channel",
    "geometry_of",
    "import_official",
]


@dataclass(frozen=True)
class WorldModelGeometry:
    """Sizes that tell a world model's networks.

    Attributes:
        image_size: side of the reference image in px.
        patch_size: side of a patch in px.
        in_channels: image channels.
        embed_dim, depth, num_heads: encoder.
        predictor_embed_dim, predictor_depth, predictor_num_heads: predictor.
        action_dim: numbers in an action.
        conditioning: how the predictor takes the action.
        context_order: order of the predictor's context table (`column_first` in the released weights).
    """

    image_size: int
    patch_size: int
    in_channels: int
    embed_dim: int
    depth: int
    num_heads: int
    predictor_embed_dim: int
    predictor_depth: int
    predictor_num_heads: int
    action_dim: int = 5
    conditioning: Conditioning = "feat"
    context_order: TableOrder = "row_first"


def _depth(state: Mapping[str, Tensor], blocks: str) -> int:
    """Number of blocks; where their numbers have gaps, the network of so many doesn't fit."""
    numbers = {name[len(blocks) :].split(".")[0] for name in state if name.startswith(blocks)}
    if not numbers:
        raise ValueError(f"Not a world model's state dict: no {blocks}* in it.")
    return len(numbers)


def geometry_of(state: Mapping[str, Tensor], num_heads: int | None = None) -> WorldModelGeometry:
    """Read the sizes off a world model's state dict.

    Args:
        state: tensors under the official names (`encoder.*`, `predictor.*`), square grid.
        num_heads: attention heads of encoder and predictor, which the tensors do not tell; by default those of the
            named size with this width and depth.

    Raises:
        ValueError: when keys are missing or the heads are unknown.
    """
    try:
        stem, table = state["encoder.patch_embed.proj.weight"], state["encoder.pos_embed"]
        predictor_table, predictor_embed = state["predictor.predictor_pos_embed"], state["predictor.mask_token"]
    except KeyError as error:
        raise ValueError(f"Not a world model's state dict: {error} is missing.") from error
    if stem.ndim != 4 or stem.shape[2] != stem.shape[3] or min(stem.shape) < 1 or table.ndim != 3:
        raise ValueError(
            f"The stem {tuple(stem.shape)} or table {tuple(table.shape)} is not that of a square patch ViT."
        )
    first = state.get("predictor.policy_net.0.weight")
    if predictor_table.ndim != 3 or predictor_embed.ndim < 1 or (first is not None and first.ndim != 2):
        raise ValueError(
            f"The predictor's parts, such as its table {tuple(predictor_table.shape)}, are of another kind."
        )
    side = round(table.shape[1] ** 0.5)
    if side**2 != table.shape[1] or predictor_table.shape[1:2] != table.shape[1:2]:
        raise ValueError(
            f"Position tables {tuple(table.shape)} and {tuple(predictor_table.shape)} are not of one square grid."
        )
    embed_dim, depth = stem.shape[0], _depth(state, "encoder.blocks.")
    if num_heads is None:
        heads = [s["num_heads"] for s in VIT_SIZES.values() if (s["embed_dim"], s["depth"]) == (embed_dim, depth)]
        if not heads:
            raise ValueError(f"No named size has width {embed_dim} and depth {depth}: give num_heads.")
        num_heads = heads[0]
    predictor_dim = predictor_embed.shape[-1]
    return WorldModelGeometry(
        image_size=side * stem.shape[-1],
        patch_size=stem.shape[-1],
        in_channels=stem.shape[1],
        embed_dim=embed_dim,
        depth=depth,
        num_heads=num_heads,
        predictor_embed_dim=predictor_dim,
        predictor_depth=_depth(state, "predictor.predictor_blocks."),
        predictor_num_heads=num_heads,
        action_dim=5 if first is None else first.shape[1] - predictor_dim,
        conditioning="none" if first is None else "feat",
        context_order=table_order(predictor_table, (side, side)),
    )


def build_world_model(
    geometry: WorldModelGeometry,
    settings: WorldModelSettings | None = None,
    image_mean: float | Sequence[float] = 0.5056,
    image_std: float | Sequence[float] = 0.252,
    position_resize: str = "closed_form",
) -> WorldModel:
    """A world model of a geometry, with fresh weights."""
    g = geometry
    encoder = RadiographViT(
        *(g.image_size, g.patch_size, g.in_channels, g.embed_dim, g.depth, g.num_heads),
        image_mean=image_mean,
        image_std=image_std,
        position_resize=position_resize,
    )
    sizes = g.predictor_embed_dim, g.predictor_depth, g.predictor_num_heads, g.action_dim
    predictor = WorldModelPredictor(encoder.grid, g.embed_dim, *sizes, g.conditioning, g.context_order)
    return WorldModel(encoder, predictor, settings)


def fold_to_one_channel(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Fold three-channel stems and their normalisation into one-channel stems, exactly.

    A grey image g in [0, 1], replicated and normalised with (mean, std), gives what g itself gives with
    `W' = sum_c W_c / std_c` and `b' = b - sum_c sum_pixels W_c mean_c / std_c` and no normalisation.

    Args:
        state: tensors with `<encoder>.patch_embed.proj.*`, `<encoder>.image_mean`, `<encoder>.image_std`, for one or
            both of `encoder` and `target_encoder`.

    Returns:
        A copy with folded stems, mean 0 and std 1.
    """
    folded = dict(state)
    for prefix in ENCODER_PREFIXES:
        if f"{prefix}patch_embed.proj.weight" not in state:
            continue
        weight = state[f"{prefix}patch_embed.proj.weight"].double()  # [D, 3, p, p]
        mean = state[f"{prefix}image_mean"].double().view(1, -1, 1, 1)
        scaled = weight / state[f"{prefix}image_std"].double().view(1, -1, 1, 1)
        bias = state[f"{prefix}patch_embed.proj.bias"]
        folded[f"{prefix}patch_embed.proj.weight"] = scaled.sum(dim=1, keepdim=True).to(bias.dtype)
        folded[f"{prefix}patch_embed.proj.bias"] = (bias.double() - (scaled * mean).sum(dim=(1, 2, 3))).to(bias.dtype)
        folded[f"{prefix}image_mean"] = torch.zeros(1, dtype=bias.dtype)
        folded[f"{prefix}image_std"] = torch.ones(1, dtype=bias.dtype)
    return folded


def import_official(
    path: kinds.Source, output_dir: str | Path, one_channel: bool = False, num_heads: int | None = None
) -> dict[str, Any]:
    """Convert an official checkpoint to `model.pt` and `model.safetensors` that this package's networks load.

    Args:
        path: the official `.tar`/`.pth` file.
        output_dir: folder for the results.
        one_channel: fold the three-channel stem and its ImageNet normalisation into a one-channel stem.
        num_heads: see `geometry_of`.

    Returns:
        What was found: geometry, table order, numbers of tensors and scalars, epoch, the official arguments' names.

    Raises:
        CheckpointError: when the file is broken, refused or of another network.
    """
    weights = kinds.read_weights(path)
    file, state = weights.path, weights.state
    own = [value for name, value in state.items() if not name.endswith(("image_mean", "image_std"))]
    try:
        geometry = geometry_of(state, num_heads)
        if one_channel:
            state, geometry = fold_to_one_channel(state), replace(geometry, in_channels=1)
        build(partial(build_world_model, geometry, image_mean=0.0, image_std=1.0), state, file)
    except (KeyError, ValueError, RuntimeError) as error:
        reason = error.reason if isinstance(error, CheckpointError) else one_line(error)
        raise CheckpointError(file, f"not an official world model ({reason})", "check which file it is") from error
    save_weights(state, output_dir, asdict(geometry))
    arguments = weights.content.get("args")
    return {
        "geometry": asdict(geometry),
        "position_tables": "unified" if geometry.context_order == "row_first" else "legacy (axis-swapped)",
        "tensors": len(own),
        "scalars": sum(value.numel() for value in own),
        "epoch": weights.content.get("epoch"),
        "official_arguments": sorted(vars(arguments)) if isinstance(arguments, argparse.Namespace) else [],
    }


__all__ += ["CheckpointError", "load_weights", "save_weights"]  # of version 0.1's `checkpoints`
