"""Files as the official code writes them, of a small world model with random weights."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from cxw_monai.networks import RadiographViT
from cxw_monai.weights.official import WorldModelGeometry, build_world_model

GEOMETRY = WorldModelGeometry(
    image_size=32,
    patch_size=8,
    in_channels=3,
    embed_dim=24,
    depth=2,
    num_heads=3,
    predictor_embed_dim=12,
    predictor_depth=1,
    predictor_num_heads=3,
    context_order="column_first",
)


def official_state(order: str = "column_first", **sizes: int) -> dict[str, Tensor]:
    """Random weights under the official names: no buffers, target and encoder not alike."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_world_model(WorldModelGeometry(**{**asdict(GEOMETRY), "context_order": order, **sizes}))
        state = {name: value for name, value in model.state_dict().items() if not name.endswith(("_mean", "_std"))}
        return {n: v if n.endswith("pos_embed") else v + 0.1 * torch.randn(v.shape) for n, v in state.items()}


def official_file(path: Path, order: str = "column_first", prefix: str = "") -> Path:
    state = {prefix + name: value for name, value in official_state(order).items()}
    torch.save({"model": state, "epoch": 299, "args": argparse.Namespace(lr=2e-4, unify_embed=False)}, path)
    return path


def network(in_channels: int = 3, **overrides: object) -> RadiographViT:
    sizes = {"image_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
    return RadiographViT(in_channels=in_channels, **{**sizes, **overrides}).eval()
