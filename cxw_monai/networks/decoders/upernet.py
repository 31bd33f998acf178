"""UPerNet decoder over several layers of a plain ViT.

Source: UPerNet (arXiv 1807.10221), on a ViT as in BEiT (arXiv 2106.08254), section A.3: maps of four depths, scaled to
four sizes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import BatchNorm2d, conv_norm_act, transposed

__all__ = ["PyramidPooling", "UPerNetDecoder", "pyramid_layers"]

BINS = (1, 2, 4, 6)


def pyramid_layers(depth: int) -> list[int]:
    """Four blocks at a third, a half, two thirds and the end of the depth: 3, 5, 7, 11 of twelve."""
    return [max(round(depth * twelfths / 12) - 1, 0) for twelfths in (4, 6, 8, 12)]


def resized(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear resize of `[B, C, h, w]` to the height and width of `like`."""
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)


class PyramidPooling(nn.Module):
    """Means over 1, 2 x 2, 4 x 4 and 6 x 6 bins beside the map itself (PSPNet, arXiv 1612.01105).

    The single bin of B films gives B values a channel to its batch normalisation: with less than about 8 films a
    process its statistics are noisy.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(bins), conv_norm_act(in_channels, channels, kernel_size=1))
            for bins in BINS
        )
        self.fuse = conv_norm_act(in_channels + len(BINS) * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, h, w]` to `[B, channels, h, w]`."""
        maps = [x]
        for stage in self.stages:
            maps.append(resized(stage(x), x))
        return self.fuse(torch.cat(maps, dim=1))


class UPerNetDecoder(nn.Module):
    """UPerNet decoder: pyramid pooling on the coarsest of four maps, a top-down path with its own smoothing
    convolution a level (the released code shares one among the three by mistake), fusion, bilinear to the image's size.

    The maps are those of four depths after the encoder's final norm, at 4, 2, 1 and 1/2 times the token grid.

    Args:
        embed_dim: channels D of a token, a multiple of 4.
        depth: number of the encoder's blocks.
        patch_size: side of a patch in px.
        outputs: number of structures S.
        channels: channels of the top-down path.
    """

    def __init__(self, embed_dim: int, depth: int, patch_size: int, outputs: int = 1, channels: int = 128) -> None:
        super().__init__()
        self.layers = pyramid_layers(depth)
        self.stride = 2 * patch_size
        half, quarter = embed_dim // 2, embed_dim // 4
        quadruple = [transposed(embed_dim, half), BatchNorm2d(half), nn.GELU(), transposed(half, quarter)]
        self.scales = nn.ModuleList([nn.Sequential(*quadruple), transposed(embed_dim, half), nn.Identity()])
        self.pool = nn.MaxPool2d(kernel_size=2)
        self.context = PyramidPooling(embed_dim, channels)
        widths = (quarter, half, embed_dim)
        self.laterals = nn.ModuleList(conv_norm_act(width, channels, kernel_size=1) for width in widths)
        self.smooth = nn.ModuleList(conv_norm_act(channels, channels) for _ in widths)
        self.fuse = conv_norm_act((len(widths) + 1) * channels, channels)
        self.head = nn.Conv2d(channels, outputs, kernel_size=3, padding=1)

    def forward(self, features: list[Tensor], image: Tensor) -> Tensor:
        """Four maps `[B, D, rows, columns]` and the image `[B, C, H, W]` (for its size) to logits `[B, S, H, W]`."""
        maps: list[Tensor] = []
        for number, (scale, lateral) in enumerate(zip(self.scales, self.laterals)):  # noqa: B905, TorchScript
            maps.append(lateral(scale(features[number])))  # at 4, 2 and 1 times the grid
        maps.append(self.context(self.pool(features[3])))  # at half the grid
        for level in (2, 1, 0):
            maps[level] = maps[level] + resized(maps[level + 1], maps[level])
        for number, smooth in enumerate(self.smooth):
            maps[number] = smooth(maps[number])
        x = self.fuse(torch.cat([resized(each, maps[0]) for each in maps], dim=1))
        return resized(self.head(x), image)
