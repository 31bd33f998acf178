"""What the learning benchmark compares: pixels, tokens of an encoder, and histograms of oriented gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cxw_monai.metrics.descriptors import POSITION_CHANNELS, TOKEN_PX, pixel_tokens
from cxw_monai.networks import RadiographViT
from cxw_monai.networks.positions import sincos_table
from cxw_monai.transforms.hog import HOG_CHANNELS, hog_descriptors

__all__ = ["Descriptor", "Features", "encoder_tokens", "gradient_histograms", "pixels"]


@dataclass(frozen=True)
class Features:
    """Films as numbers.

    Attributes:
        vector: float32 `[N, D]`, one a film.
        tokens: float32 `[N, rows * columns, C]`, one for each 16 x 16 px of a film.
        learnt: whether `tokens` are made by a network, whose spread means something.
    """

    vector: np.ndarray
    tokens: np.ndarray
    learnt: bool = False


Descriptor = Callable[[Tensor], Features]
"""Films `[N, 1, S, S]` in [0, 1] to their features."""


def pixels(side: int) -> Descriptor:
    """`side x side` grey values, and the tokens of `pixel_tokens`."""

    def describe(images: Tensor) -> Features:
        vector = F.interpolate(images, size=(side, side), mode="area").flatten(1)
        return Features(vector.numpy(), pixel_tokens(images).numpy())

    return describe


def encoder_tokens(encoder: RadiographViT, batch: int = 32, deviation: bool = False) -> Descriptor:
    """Final-normed patch tokens, and as the vector their mean, with `deviation` beside their standard deviation."""

    @torch.no_grad()
    def describe(images: Tensor) -> Features:
        encoder.eval()
        tokens = torch.cat([encoder(part) for part in images.split(batch)]).numpy()  # [N, n, D]
        vector = tokens.mean(axis=1)
        if deviation:
            vector = np.concatenate([vector, tokens.std(axis=1)], axis=1)
        return Features(vector, tokens, learnt=True)

    return describe


def gradient_histograms(images: Tensor) -> Features:
    """Histograms of oriented gradients (Dalal and Triggs, CVPR 2005): 9 orientations in cells of 8 px.

    A token has its four cells, normalised together, and its place; the vector is all cells of the film.

    Args:
        images: `[N, 1, S, S]` in [0, 1].
    """
    tokens = (hog_descriptors(images, TOKEN_PX) / math.sqrt(HOG_CHANNELS)).numpy()  # [N, g * g, 36], of norm 1
    grid = images.shape[-1] // TOKEN_PX
    places = sincos_table((grid, grid), POSITION_CHANNELS).expand(len(tokens), -1, -1).numpy()
    return Features(tokens.reshape(len(tokens), -1), np.concatenate([tokens, places], axis=-1))
