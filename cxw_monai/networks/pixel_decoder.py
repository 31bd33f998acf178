"""A small decoder that makes a token visible: the grey values of its patch."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["PixelDecoder"]


class PixelDecoder(nn.Module):
    """One linear map of each token to the pixels of its own patch.

    No patch is filled in from its neighbours, and the mean of several possible tokens, which is what a predictor that
    is unsure gives, becomes the mean of their pictures.

    Args:
        channels: of a token.
        patch_size: side of a patch in px.
        grid: rows and columns of tokens.
    """

    def __init__(self, channels: int, patch_size: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.channels, self.patch_size = channels, patch_size
        self.grid = (int(grid[0]), int(grid[1]))
        self.head = nn.Linear(channels, patch_size**2)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens `[B, N, channels]` of the whole grid to images `[B, 1, H, W]`, about [0, 1]."""
        patches = self.head(tokens)  # [B, N, p * p], row by row
        size = self.grid[0] * self.patch_size, self.grid[1] * self.patch_size
        return F.fold(patches.transpose(1, 2), size, self.patch_size, stride=self.patch_size)
