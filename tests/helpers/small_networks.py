"""Small encoders and world models with random weights, and their inputs."""

from __future__ import annotations

import torch

from cxw_monai.networks import RadiographViT, WorldModel, WorldModelInputs, WorldModelPredictor, WorldModelSettings

TINY = {"image_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}  # grid 4 x 4


def encoder(seed: int = 0, **overrides: object) -> RadiographViT:
    """A small encoder whose every trainable parameter is random, for initial biases would hide mistakes."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = RadiographViT(**{**TINY, **overrides}).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network


def images(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def world_model(seed: int = 0, depth: int = 2, conditioning: str = "feat", **settings: object) -> WorldModel:
    """A small model whose trainable parameters are random, and whose target has moved away from its encoder."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = RadiographViT(image_size=32, patch_size=8, embed_dim=24, depth=depth, num_heads=3)
        chosen = WorldModelSettings(**settings)
        width = chosen.target_channels(encoder)
        predictor = WorldModelPredictor((4, 4), 24, 16, 2, 2, conditioning=conditioning, out_dim=width)
        model = WorldModel(encoder, predictor, chosen)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if not name.endswith("pos_embed"):
                    parameter.add_(0.1 * torch.randn(parameter.shape))
    return model


def random_inputs(seed: int = 1, batch: int = 2) -> WorldModelInputs:
    """A batch in which every field is different from its twin."""
    generator = torch.Generator().manual_seed(seed)
    draw = {}
    for name in ("view1", "view2", "perturbed1", "perturbed2"):
        draw[name] = torch.rand((batch, 1, 32, 32), generator=generator)
    for name in ("action1", "action2"):
        draw[name] = torch.rand((batch, 5), generator=generator) + 0.5
    for name in ("rel_12", "rel_21"):
        draw[name] = torch.rand((batch, 4), generator=generator) - 0.5
        draw[name][:, 2] = torch.tensor([0.0, 1.0]).repeat(batch)[:batch]
    for view in ("1", "2"):
        order = torch.stack([torch.randperm(16, generator=generator) for _ in range(batch)])
        draw[f"context{view}"], draw[f"target{view}"] = order[:, :7].sort(1).values, order[:, 7:12].sort(1).values
    draw["local_crops"] = torch.rand((batch, 2, 1, 16, 16), generator=generator)
    return WorldModelInputs(**draw)
