"""What the learning benchmark compares: tokens of an encoder, pixels, and histograms of oriented gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cxw_monai.networks import RadiographViT
from cxw_monai.networks.positions import sincos_table

__all__ = ["Described", "Descriptor", "encoder_tokens", "gradient_histograms", "pixels"]

TOKEN_PX = 16
ORIENTATIONS = 9
POSITION_CHANNELS = 64


@dataclass(frozen=True)
class Described:
    """Films as numbers.

    Attributes:
        vector: float32 `[N, D]`, one a film.
        tokens: float32 `[N, rows * columns, C]`, one for each 16 x 16 px of a film.
        learnt: whether `tokens` are made by a network, whose spread tells something.
    """

    vector: np.ndarray
    tokens: np.ndarray
    learnt: bool = False


Descriptor = Callable[[Tensor], Described]
"""Films `[N, 1, S, S]` in [0, 1] to descriptors."""


def encoder_tokens(encoder: RadiographViT, batch: int = 32) -> Descriptor:
    """Final-normed patch tokens, and their mean as the vector."""

    @torch.no_grad()
    def describe(images: Tensor) -> Described:
        encoder.eval()
        tokens = torch.cat([encoder(part) for part in images.split(batch)]).numpy()  # [N, n, D]
        return Described(tokens.mean(axis=1), tokens, learnt=True)

    return describe


def pixels(side: int) -> Descriptor:
    """`side x side` grey values; a token has 4 x 4 of its own, the film at 16 x 16, and its place."""

    def describe(images: Tensor) -> Described:
        vector = F.interpolate(images, size=(side, side), mode="area").flatten(1)
        grid = images.shape[-1] // TOKEN_PX
        cells = F.interpolate(images, size=(4 * grid, 4 * grid), mode="area")  # [N, 1, 4 g, 4 g]
        own = F.pixel_unshuffle(cells, 4).flatten(2).transpose(1, 2)  # [N, g * g, 16]
        film = F.interpolate(images, size=(16, 16), mode="area").flatten(1)
        place = sincos_table((grid, grid), POSITION_CHANNELS).expand(len(images), -1, -1)
        tokens = torch.cat([own, film.unsqueeze(1).expand(-1, own.shape[1], -1), place], dim=-1)
        return Described(vector.numpy(), tokens.numpy())

    return describe


def gradient_histograms(images: Tensor) -> Described:
    """Histograms of oriented gradients (Dalal and Triggs, CVPR 2005): 9 orientations in cells of 8 px.

    A token has its four cells, normalised together, and its place; the vector is all cells of the film.
    """
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    across = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]
    down = padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]
    size = torch.hypot(across, down)
    place = torch.remainder(torch.atan2(down, across), math.pi) / math.pi * ORIENTATIONS
    bins = place.long().clamp(max=ORIENTATIONS - 1)
    votes = torch.zeros(len(images), ORIENTATIONS, *images.shape[2:]).scatter_(1, bins, size)
    cells = F.avg_pool2d(votes, TOKEN_PX // 2)  # [N, 9, 2 g, 2 g]
    tokens = F.normalize(F.pixel_unshuffle(cells, 2).flatten(2).transpose(1, 2), dim=-1)  # [N, g * g, 36]
    grid = images.shape[-1] // TOKEN_PX
    positions = sincos_table((grid, grid), POSITION_CHANNELS).expand(len(images), -1, -1)
    return Described(tokens.flatten(1).numpy(), torch.cat([tokens, positions], dim=-1).numpy())
