"""U-Net on the image with a ViT's tokens at its coarsest level.

Source: TransUNet (arXiv 2102.04306) joins a convolutional path and a transformer. There the transformer reads the
path's coarsest map; here it reads the image, so that a pretrained encoder can be used as it is.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import conv_norm_act
from .unet import ResidualBlock

__all__ = ["HybridDecoder"]

HYBRID_STRIDE = 16


def halved(in_channels: int, out_channels: int) -> nn.Sequential:
    """A convolution of stride 2, whose even kernel lies centred over the two pixels it joins, and a residual block."""
    joined = conv_norm_act(in_channels, out_channels, kernel_size=4, stride=2)
    return nn.Sequential(joined, ResidualBlock(out_channels, out_channels))


class HybridDecoder(nn.Module):
    """U-Net of its own on the image; the last token map joins it at 1/16 of the image's size.

    Edges come from the image at 1/2 to 1/8 of its size, and what lies where from the tokens, which see the whole film.
    The logits are computed at half the image's size and enlarged bilinearly, which keeps outlines smooth. Channels are
    c at 1/2, 2 c at 1/4, 4 c at 1/8 and 8 c at 1/16.

    Args:
        embed_dim: channels D of a token.
        patch_size: 16 px, or 8, whose tokens are averaged two by two.
        image_channels: channels C of the normalised image.
        outputs: number of structures S.
        base_channels: channels c of the finest level.

    Raises:
        ValueError: for another patch size.
    """

    def __init__(
        self, embed_dim: int, patch_size: int, image_channels: int = 1, outputs: int = 1, base_channels: int = 32
    ) -> None:
        super().__init__()
        if patch_size not in (8, 16):
            raise ValueError(
                f"The hybrid decoder takes patches of 8 or 16 px, got {patch_size}: use upernet or linear."
            )
        c = base_channels
        self.layers = [-1]
        self.stride = HYBRID_STRIDE
        widths = (image_channels, c, 2 * c, 4 * c, 8 * c)
        self.down = nn.ModuleList(halved(*pair) for pair in itertools.pairwise(widths))
        self.tokens = nn.Sequential(
            nn.AvgPool2d(HYBRID_STRIDE // patch_size), conv_norm_act(embed_dim, 8 * c, kernel_size=1)
        )
        self.coarsest = ResidualBlock(16 * c, 8 * c)
        self.up = nn.ModuleList(ResidualBlock(3 * n, n) for n in (4 * c, 2 * c, c))
        self.head = nn.Conv2d(c, outputs, kernel_size=1)

    def forward(self, features: list[Tensor], image: Tensor) -> Tensor:
        """One map `[B, D, rows, columns]` and the normalised image `[B, C, H, W]` to logits `[B, S, H, W]`."""
        x = image
        skips: list[Tensor] = []
        for down in self.down:
            x = down(x)
            skips.append(x)  # [B, c, H / 2, W / 2] to [B, 8 c, H / 16, W / 16]
        x = self.coarsest(torch.cat([x, self.tokens(features[0])], dim=1))
        for number, up in enumerate(self.up):
            x = up(torch.cat([F.interpolate(x, scale_factor=2.0, mode="nearest"), skips[2 - number]], dim=1))
        return F.interpolate(self.head(x), size=image.shape[2:], mode="bilinear", align_corners=False)
