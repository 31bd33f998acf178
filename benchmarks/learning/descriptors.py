"""What the learning benchmark compares, besides pixels: tokens of an encoder, and histograms of oriented gradients."""

from __future__ import annotations

import numpy as np
import torch
from skimage.feature import hog
from torch import Tensor

from cxw_monai.metrics.descriptors import POSITION_CHANNELS, TOKEN_PX, Descriptor, Features
from cxw_monai.networks import RadiographViT
from cxw_monai.networks.positions import sincos_table

__all__ = ["encoder_tokens", "gradient_histograms"]


def encoder_tokens(encoder: RadiographViT, batch: int = 32) -> Descriptor:
    """Final-normed patch tokens, and their mean as the vector."""

    @torch.no_grad()
    def describe(images: Tensor) -> Features:
        encoder.eval()
        tokens = torch.cat([encoder(part) for part in images.split(batch)]).numpy()  # [N, n, D]
        return Features(tokens.mean(axis=1), tokens, learnt=True)

    return describe


def gradient_histograms(images: Tensor) -> Features:
    """Histograms of oriented gradients (Dalal and Triggs, CVPR 2005): 9 orientations in cells of 8 px.

    A token has its four cells, normalised together, and its place; the vector is all cells of the film.

    Args:
        images: `[N, 1, S, S]` in [0, 1].
    """
    cell = TOKEN_PX // 2
    blocks = [
        hog(film, 9, (cell, cell), (2, 2), block_norm="L2", feature_vector=False)[::2, ::2]  # [g, g, 2, 2, 9]
        for film in images[:, 0].numpy()
    ]
    grid = len(blocks[0])
    tokens = np.stack(blocks).reshape(len(blocks), grid * grid, -1).astype(np.float32)  # [N, g * g, 36]
    places = sincos_table((grid, grid), POSITION_CHANNELS).expand(len(blocks), -1, -1).numpy()
    return Features(tokens.reshape(len(blocks), -1), np.concatenate([tokens, places], axis=-1))
