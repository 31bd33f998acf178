"""Encoder as an inference network: one embedding an image, and patch embeddings on request."""

from __future__ import annotations

from torch import Tensor, nn

from .vit import RadiographViT

__all__ = ["RadiographEmbedder"]


class RadiographEmbedder(nn.Module):
    """Pools an encoder's final-normed tokens.

    Args:
        encoder: the network that makes tokens.
        output: `pooled` for the mean token `[B, D]`, `patches` for the token map `[B, D, rows, columns]`.

    Raises:
        ValueError: for another `output`.
    """

    def __init__(self, encoder: RadiographViT, output: str = "pooled") -> None:
        super().__init__()
        if output not in ("pooled", "patches"):
            raise ValueError(f"output must be 'pooled' or 'patches', got {output!r}.")
        self.encoder = encoder
        self.output = output

    def forward(self, image: Tensor) -> Tensor:
        """`[B, C, H, W]` in [0, 1] to `[B, D]`, or `[B, D, rows, columns]` for `patches`."""
        tokens = self.encoder(image)  # [B, N, D]
        if self.output == "pooled":
            return tokens.mean(dim=1)
        rows, columns = self.encoder.grid_of(image)
        return tokens.transpose(1, 2).reshape(image.shape[0], -1, rows, columns)
