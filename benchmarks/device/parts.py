"""Small networks, films and batches that are the same on every machine, for the checks."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.speed.made_films import synthetic_film
from cxw_monai.networks import RadiographViT, WorldModel, WorldModelInputs, WorldModelPredictor, WorldModelSettings
from cxw_monai.tasks.pretraining.step import world_view_inputs
from cxw_monai.training import allow_tf32
from cxw_monai.transforms import ActionSampler, RandActiond, RandLocalCropsd, RandWorldViewPaird, TokenMaskSampler
from cxw_monai.transforms.device_crops import collate_films

__all__ = ["exact_products", "films", "inputs_of", "loader_batch", "masks_of", "outputs_of", "placed", "small_model"]

SIDE, PATCH = 48, 8
Network = TypeVar("Network", bound=nn.Module)


def small_model(depth: int = 2, **settings: Any) -> WorldModel:
    """A world model on the CPU with random weights, whose target has moved away from its encoder.

    Args:
        depth: blocks of encoder and predictor.
        settings: of the world model.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = RadiographViT(SIDE, PATCH, embed_dim=48, depth=depth, num_heads=3)
        chosen = WorldModelSettings(**settings)
        width = chosen.target_channels(encoder)
        model = WorldModel(encoder, WorldModelPredictor(encoder.grid, 48, 32, depth, 2, out_dim=width), chosen)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if not name.endswith("pos_embed"):
                    parameter.add_(0.05 * torch.randn(parameter.shape))
    return model.train()


def placed(network: Network, device: torch.device) -> Network:
    """A copy of a network on a device."""
    return copy.deepcopy(network).to(device)


def films(count: int = 4, dtype: type = np.uint8) -> list[np.ndarray]:
    """Films of different sizes, `[1, H, W]`."""
    made = [
        synthetic_film(128, number)[:, : 96 + 8 * (number % 3), : 112 - 8 * (number % 4)] for number in range(count)
    ]
    return made if dtype is np.uint8 else [film.astype(np.uint16) * 257 for film in made]


def loader_batch(
    count: int = 4, cut: bool = True, local_crops: bool = False, noise: bool = True, **options: Any
) -> dict[str, Tensor]:
    """A batch as the loader gives it, with all kinds of perturbation.

    Args:
        count: films.
        cut: whether the views are cut in the loader.
        local_crops: add small crops.
        noise: among the perturbations; it is drawn on the device, each of which has numbers of its own.
        options: of `films`.
    """
    actions = ActionSampler(blur_prob=0.7, noise_prob=0.5 * noise)
    transforms: list[Any] = [RandWorldViewPaird(size=SIDE, flip_prob=0.5, cut=cut), RandActiond(sampler=actions)]
    if local_crops:
        transforms.insert(0, RandLocalCropsd(count=2, size=32, sampler=actions))
    samples: list[dict[Any, Any]] = []
    for number, film in enumerate(films(count, **options)):
        sample: dict[Any, Any] = {"image": film}
        for place, transform in enumerate(transforms):
            transform.set_random_state(100 * number + place)
            sample = transform(sample)
        samples.append(sample)
    return collate_films(samples)


def masks_of(model: WorldModel) -> TokenMaskSampler:
    """A sampler of token masks that starts at the same place every time."""
    return TokenMaskSampler(model.encoder.grid, min_keep=4, seed=0)


def inputs_of(model: WorldModel, batch: dict[str, Tensor]) -> WorldModelInputs:
    """Inputs on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return world_view_inputs(batch, masks_of(model), torch.device("cpu"))


def outputs_of(model: WorldModel, inputs: WorldModelInputs) -> dict[str, Tensor]:
    """Loss, its terms, predictions and targets by name."""
    output = model(inputs)
    named = {"loss": output.loss, **output.losses}
    named |= {f"prediction {name}": value for name, value in output.predictions.items()}
    return named | {f"target {name}": value for name, value in output.targets.items()}


@contextlib.contextmanager
def exact_products() -> Iterator[None]:
    """float32 products in float32, not in TF32."""
    before = torch.backends.cuda.matmul.allow_tf32
    allow_tf32(False)
    try:
        yield
    finally:
        allow_tf32(before)
