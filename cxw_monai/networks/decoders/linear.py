"""Light decoder: one linear map a token."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["LinearDecoder"]

CELL_PX = 4


class LinearDecoder(nn.Module):
    """Reads logits off every final-normed token: a grid of cells a token, then bilinear to the image's size.

    Each token's linear map gives `r x r` cells of about 4 px (depth to space), r = patch_size // 4, where the linear
    decoder of DINOv2 (arXiv 2304.07193, section 7.4) gives one. No normalisation, and `D * S * r ** 2` weights: what
    it reaches is the encoder's merit.

    Args:
        embed_dim: channels D of a token.
        patch_size: side of a patch in px.
        outputs: number of structures S.
    """

    def __init__(self, embed_dim: int, patch_size: int, outputs: int) -> None:
        super().__init__()
        self.layers = [-1]
        self.stride = patch_size
        self.cells = max(patch_size // CELL_PX, 1)
        self.head = nn.Conv2d(embed_dim, outputs * self.cells**2, kernel_size=1)

    def forward(self, features: list[Tensor], image: Tensor) -> Tensor:
        """One map `[B, D, rows, columns]` and the image `[B, C, H, W]` (for its size) to `[B, S, H, W]`."""
        cells = F.pixel_shuffle(self.head(features[0]), self.cells)  # [B, S, rows * r, columns * r]
        return F.interpolate(cells, size=image.shape[2:], mode="bilinear", align_corners=False)
