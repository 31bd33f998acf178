"""A small decoder that makes a token visible: the grey values of its patch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import init_weights

__all__ = ["PixelDecoder"]


class PixelDecoder(nn.Module):
    """Reads the pixels of each patch off its own token, so that no patch is filled in from its neighbours.

    Args:
        channels: of a token.
        patch_size: side of a patch in px.
        grid: rows and columns of tokens.
        hidden: channels between the three linear maps.
    """

    def __init__(self, channels: int, patch_size: int, grid: tuple[int, int], hidden: int = 384) -> None:
        super().__init__()
        self.channels, self.patch_size, self.hidden = channels, patch_size, hidden
        self.grid = (int(grid[0]), int(grid[1]))
        self.layers = nn.Sequential(
            nn.LayerNorm(channels),
            nn.Linear(channels, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, patch_size**2),
        ).apply(init_weights)
        self.place = nn.Parameter(torch.full((self.grid[0] * self.grid[1], 1), 0.5))

    def patches(self, tokens: Tensor, places: Tensor) -> Tensor:
        """Pixels `[M, p * p]`, row by row, of tokens `[M, channels]` at places `[M]` of the grid."""
        return self.layers(tokens) + self.place[places]

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens `[B, N, channels]` of the whole grid to images `[B, 1, H, W]`, about [0, 1]."""
        patches = self.layers(tokens) + self.place  # [B, N, p * p]
        size = self.grid[0] * self.patch_size, self.grid[1] * self.patch_size
        return F.fold(patches.transpose(1, 2), size, self.patch_size, stride=self.patch_size)
