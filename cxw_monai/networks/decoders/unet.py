"""Convolutional pyramid and U-Net decoder.

Source: CheXWorld (arXiv 2504.13820), supplement B: a simple feature pyramid (arXiv 2203.16527) made from the ViT's last
map, and a U-Net's expanding path over it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import BatchNorm2d, conv_norm_act, transposed

__all__ = ["UNetDecoder"]

UNET_STRIDE = 16


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, each normalised and activated, added to the input (through a 1x1 convolution)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_norm_act(in_channels, out_channels), conv_norm_act(out_channels, out_channels))
        same = in_channels == out_channels
        self.skip = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.skip(x)


def doubled(in_channels: int, out_channels: int) -> nn.Sequential:
    """Nearest upsampling by 2 and a 3x3 convolution."""
    return nn.Sequential(nn.Upsample(scale_factor=2.0, mode="nearest"), conv_norm_act(in_channels, out_channels))


def pyramid_of_patch_16(dim: int, base: int) -> list[nn.Module]:
    """Maps at 1/16, 1/8, 1/4 and 1/2 of the image, 16, 8, 4 and 2 times `base` channels, from a map at 1/16."""
    return [
        conv_norm_act(dim, 16 * base, kernel_size=1),
        doubled(dim, 8 * base),
        nn.Sequential(doubled(dim, dim // 2), doubled(dim // 2, 4 * base)),
        nn.Sequential(doubled(dim, dim // 2), doubled(dim // 2, dim // 4), doubled(dim // 4, 2 * base)),
    ]


def pyramid_of_patch_8(dim: int, base: int) -> list[nn.Module]:
    """The same levels from a map at 1/8."""
    half = nn.Sequential(transposed(dim, dim // 2), BatchNorm2d(dim // 2))
    quarter = nn.Sequential(
        transposed(dim, dim // 2),
        BatchNorm2d(dim // 2),
        nn.GELU(),
        transposed(dim // 2, dim // 4),
        BatchNorm2d(dim // 4),
    )
    return [
        nn.Sequential(conv_norm_act(dim, 2 * dim, kernel_size=2, stride=2), conv_norm_act(2 * dim, 16 * base, 1)),
        conv_norm_act(dim, 8 * base, kernel_size=1),
        nn.Sequential(half, conv_norm_act(dim // 2, 4 * base, kernel_size=1)),
        nn.Sequential(quarter, conv_norm_act(dim // 4, 2 * base, kernel_size=1)),
    ]


class UNetDecoder(nn.Module):
    """U-Net decoder over a pyramid made from the encoder's last map.

    All four levels of the pyramid read the last layer, as in the paper; the image itself is the fifth, so that contours
    are drawn at full resolution. 12,101,729 parameters at patch 16 and 11,836,001 at patch 8 with the paper's sizes
    (768-d tokens, 32 base channels, 3 image channels, one output).

    Batch statistics of 4 to 8 films are noisy in the coarsest levels only: there 4 films of 224 px have 784 values a
    channel. Train with at least 4 films a process.

    Args:
        embed_dim: channels D of a token, a multiple of 4.
        patch_size: 8 or 16 px.
        image_channels: channels C of the normalised image.
        outputs: number of structures S.
        base_channels: channels c of the finest level; the others have 2, 4, 8 and 16 times as many.

    Raises:
        ValueError: for another patch size.
    """

    def __init__(
        self, embed_dim: int, patch_size: int, image_channels: int = 1, outputs: int = 1, base_channels: int = 32
    ) -> None:
        super().__init__()
        if patch_size not in (8, 16):
            raise ValueError(f"The unet decoder takes patches of 8 or 16 px, got {patch_size}: use upernet or linear.")
        c = base_channels
        self.layers = [-1]
        self.stride = UNET_STRIDE
        make_pyramid = pyramid_of_patch_8 if patch_size == 8 else pyramid_of_patch_16
        coarsest, *laterals = make_pyramid(embed_dim, c)
        self.coarsest = coarsest
        self.laterals = nn.ModuleList(laterals)
        self.levels = nn.ModuleList(ResidualBlock(3 * n, n) for n in (8 * c, 4 * c, 2 * c))
        self.image_skip = ResidualBlock(image_channels, c)
        self.finest = ResidualBlock(3 * c, c)
        self.head = nn.Conv2d(c, outputs, kernel_size=1)

    def forward(self, features: list[Tensor], image: Tensor) -> Tensor:
        """One map `[B, D, rows, columns]` and the normalised image `[B, C, H, W]` to logits `[B, S, H, W]`."""
        tokens = features[0]
        x = self.coarsest(tokens)  # [B, 16 c, H / 16, W / 16]
        for lateral, level in zip(self.laterals, self.levels):  # noqa: B905, TorchScript knows no `strict`
            x = level(torch.cat([F.interpolate(x, scale_factor=2.0, mode="nearest"), lateral(tokens)], dim=1))
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")  # [B, 2 c, H, W]
        return self.head(self.finest(torch.cat([x, self.image_skip(image)], dim=1)))
