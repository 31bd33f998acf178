"""Histograms of oriented gradients of each patch, as targets of masked prediction.

Sources: Dalal and Triggs (CVPR 2005); as targets MaskFeat (arXiv 2112.09133).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["HOG_CHANNELS", "hog_descriptors"]

ORIENTATIONS = 9
CELLS = 2
HOG_CHANNELS = CELLS * CELLS * ORIENTATIONS
"""Numbers of a patch and image channel."""
EPS = 1e-5


def hog_descriptors(image: Tensor, patch_size: int) -> Tensor:
    """Histograms of the unsigned gradient's direction in the 2 x 2 cells of each patch, normalised together.

    Gradients are central differences (0 on the image's edge), and a pixel votes with its gradient's magnitude for one
    of 9 directions of 20 degrees. A patch has the L2 norm `sqrt(36 C)`, so that a channel has a mean square of 1, as
    that of normalised latents and pixels is; a flat patch is 0.

    Args:
        image: `[B, C, H, W]`, H and W multiples of `patch_size`.
        patch_size: side of a patch in px, even.

    Returns:
        `[B, N, 36 C]` in float32: cells row by row, directions within a cell.

    Raises:
        ValueError: for an odd patch.
    """
    if patch_size % CELLS:
        raise ValueError(f"Histograms of gradients need patches of an even side, got {patch_size} px.")
    image = image.float()
    batch, channels, height, width = image.shape
    down = F.pad(image[:, :, 2:] - image[:, :, :-2], (0, 0, 1, 1))
    right = F.pad(image[..., 2:] - image[..., :-2], (1, 1, 0, 0))
    degrees = torch.rad2deg(torch.atan2(down, right)) % 180
    bins = (degrees * (ORIENTATIONS / 180)).long().clamp_max(ORIENTATIONS - 1)
    votes = image.new_zeros(batch, channels, ORIENTATIONS, height, width)
    votes.scatter_(2, bins.unsqueeze(2), torch.hypot(down, right).unsqueeze(2))
    cells = F.avg_pool2d(votes.flatten(0, 1), patch_size // CELLS)  # [B * C, 9, 2 rows, 2 columns]
    rows, columns = height // patch_size, width // patch_size
    cells = cells.view(batch, channels, ORIENTATIONS, rows, CELLS, columns, CELLS)
    patches = cells.permute(0, 3, 5, 1, 4, 6, 2).reshape(batch, rows * columns, -1)  # [B, N, 36 C]
    scale = patches.square().sum(dim=-1, keepdim=True).add(EPS**2).rsqrt()
    return patches * scale * math.sqrt(patches.shape[-1])
