"""Vision transformer for radiographs, the encoder of the world model.

Source: CheXWorld (arXiv 2504.13820), supplement B: a ViT without class token, fixed sine-cosine positions, pre-norm
blocks. Parameter names are those of timm and I-JEPA.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import LAYER_NORM_EPS, Block, init_weights
from .positions import sincos_table
from .rows import gather_tokens, linear_of_tokens

__all__ = ["VIT_SIZES", "RadiographViT", "radiograph_vit"]

VIT_SIZES: dict[str, dict[str, int]] = {
    "tiny": {"embed_dim": 192, "depth": 12, "num_heads": 3},
    "small": {"embed_dim": 384, "depth": 12, "num_heads": 6},
    "base": {"embed_dim": 768, "depth": 12, "num_heads": 12},
    "large": {"embed_dim": 1024, "depth": 24, "num_heads": 16},
    "huge": {"embed_dim": 1280, "depth": 32, "num_heads": 16},
}


class PatchEmbed(nn.Module):
    """Holds the stem: a convolution whose kernel and stride are the patch size."""

    def __init__(self, patch_size: int, in_channels: int, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, embed_dim, kernel_size=patch_size, stride=patch_size)


class RadiographViT(nn.Module):
    """ViT encoder: radiographs in [0, 1] to patch tokens.

    The network normalises its input itself (buffers `image_mean`, `image_std`) and repeats a grey image where its stem
    has more channels. Height and width may be any multiples of the patch size. On a grid other than that of
    `image_size` the positions are those of the reference grid laid over the same field of view, in closed form
    (`position_resize="closed_form"`) or by bicubic interpolation of the stored table as the official fine-tuning code
    does (`"bicubic"`).

    Args:
        image_size: side, or (height, width), in px of the reference grid; a multiple of `patch_size`.
        patch_size: side of a patch in px.
        in_channels: image channels C.
        embed_dim: channels D of a token, a multiple of 4 and of `num_heads`.
        depth: number of blocks.
        num_heads: attention heads.
        mlp_ratio: hidden channels of the MLP over `embed_dim`.
        drop_path_rate: stochastic depth, from 0 in the first block linearly to this in the last.
        image_mean: subtracted from the image, one value a channel (or one for all). The default is the mean of
            chest radiographs that the official code calls "xray".
        image_std: divides the image, likewise.
        position_resize: `closed_form` or `bicubic`.
        position_grid: (rows, columns) of the grid in whose cells positions are counted, by default that of
            `image_size`. With a smaller patch than in pretraining, give pretraining's grid: the smaller patches then
            get the positions between those that the weights know (see `resize_encoder`).
    """

    if TYPE_CHECKING:  # TorchScript can't read them
        image_mean: Tensor
        image_std: Tensor

    def __init__(
        self,
        image_size: int | Sequence[int] = 224,
        patch_size: int = 16,
        in_channels: int = 1,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.0,
        image_mean: float | Sequence[float] = 0.5056,
        image_std: float | Sequence[float] = 0.252,
        position_resize: str = "closed_form",
        position_grid: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        if height % patch_size or width % patch_size or min(height, width) < patch_size:
            raise ValueError(
                f"image_size {(height, width)} must be a positive multiple of patch_size {patch_size} on both axes."
            )
        if position_resize not in ("closed_form", "bicubic"):
            raise ValueError(f"position_resize must be 'closed_form' or 'bicubic', got {position_resize!r}.")
        self.patch_size = patch_size
        self.in_channels = in_channels
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.grid = (height // patch_size, width // patch_size)
        self.position_resize = position_resize
        self.position_grid = self.grid if position_grid is None else (int(position_grid[0]), int(position_grid[1]))
        self.register_buffer("image_mean", self._channel_values(image_mean, in_channels, "image_mean"))
        self.register_buffer("image_std", self._channel_values(image_std, in_channels, "image_std"))
        self.patch_embed = PatchEmbed(patch_size, in_channels, embed_dim)
        table = sincos_table(self.grid, embed_dim, reference_grid=self.position_grid)
        self.pos_embed = nn.Parameter(table, requires_grad=False)
        rates = [drop_path_rate * i / max(depth - 1, 1) for i in range(depth)]
        self.blocks = nn.ModuleList(Block(embed_dim, num_heads, mlp_ratio, rate) for rate in rates)
        self.norm = nn.LayerNorm(embed_dim, eps=LAYER_NORM_EPS)
        self.apply(init_weights)

    @staticmethod
    def _channel_values(values: float | Sequence[float], channels: int, name: str) -> Tensor:
        listed = [float(values)] * channels if isinstance(values, (int, float)) else [float(v) for v in values]
        if len(listed) != channels:
            raise ValueError(f"{name} must hold one value or one per channel ({channels}), got {len(listed)}.")
        return torch.tensor(listed)

    def grid_of(self, image: Tensor) -> tuple[int, int]:
        """Rows and columns of tokens for `image` `[B, C, H, W]`.

        Raises:
            ValueError: when the channels do not fit or H or W is not a multiple of the patch size.
        """
        channels, height, width = image.shape[1], image.shape[2], image.shape[3]
        if channels != self.in_channels and channels != 1:
            raise ValueError(f"The encoder takes 1 or {self.in_channels} channel(s), the image has {channels}.")
        if height % self.patch_size or width % self.patch_size or min(height, width) < self.patch_size:
            raise ValueError(
                f"An image of {height} x {width} px cannot be cut into patches of {self.patch_size} px: resize or pad "
                "it to a positive multiple of the patch size."
            )
        return height // self.patch_size, width // self.patch_size

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """Position table `[1, N, D]` of a grid of tokens."""
        if grid[0] == self.grid[0] and grid[1] == self.grid[1]:
            return self.pos_embed
        if self.position_resize == "closed_form":
            device = self.pos_embed.device
            table = sincos_table(grid, self.embed_dim, "column_first", self.position_grid, torch.float32, device)
            return table.to(self.pos_embed)
        stored = self.pos_embed.reshape(1, self.grid[0], self.grid[1], self.embed_dim).permute(0, 3, 1, 2)
        scale = [grid[0] / self.grid[0], grid[1] / self.grid[1]]
        resized = F.interpolate(stored, scale_factor=scale, mode="bicubic", align_corners=False)
        return resized.flatten(2).transpose(1, 2)

    def normalise(self, image: Tensor) -> Tensor:
        """`[B, 1 or C, H, W]` in [0, 1] to `[B, C, H, W]` less `image_mean`, over `image_std`."""
        image = image.expand(-1, self.in_channels, -1, -1)
        return (image - self.image_mean.view(1, -1, 1, 1)) / self.image_std.view(1, -1, 1, 1)

    def patches(self, image: Tensor) -> Tensor:
        """Normalised values of each patch: `[B, C, H, W]` in [0, 1] to `[B, N, C * p * p]`."""
        rows, columns = self.grid_of(image)
        size = self.patch_size
        patches = self.normalise(image).view(image.shape[0], self.in_channels, rows, size, columns, size)
        return patches.permute(0, 2, 4, 1, 3, 5).reshape(image.shape[0], rows * columns, -1)

    def embed(self, image: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Patch embeddings with positions.

        Args:
            image: `[B, C, H, W]` in [0, 1].
            tokens: `[B, K]` int64 row-major indices of the patches to embed; all of them by default.

        Returns:
            `[B, K, D]`, or `[B, N, D]` for all.
        """
        patches = gather_tokens(self.patches(image), tokens)  # [B, K, C * p * p]
        positions = self.positions(self.grid_of(image)).expand(image.shape[0], -1, -1)
        weight, bias = self.patch_embed.proj.weight.flatten(1), self.patch_embed.proj.bias
        return linear_of_tokens(patches, weight, bias) + gather_tokens(positions, tokens)

    def forward(self, image: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Final-normed tokens of an image or of a subset of its patches.

        Args:
            image: `[B, C, H, W]` in [0, 1], H and W multiples of the patch size.
            tokens: `[B, K]` int64 row-major indices of the visible patches; all of them by default.

        Returns:
            `[B, K, D]`, or `[B, N, D]` for all.
        """
        x = self.embed(image, tokens)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def intermediate_layers(self, image: Tensor, layers: list[int], norm: bool = False) -> list[Tensor]:
        """Outputs of several blocks on the full image.

        Args:
            image: `[B, C, H, W]` in [0, 1].
            layers: block numbers, 0 to depth - 1, or negative from the end.
            norm: apply the final layer norm to every output; otherwise only the last block's output gets it, as in
                the official code.

        Returns:
            One `[B, N, D]` a layer, in the order of `layers`.
        """
        depth = len(self.blocks)
        wanted = [layer + depth if layer < 0 else layer for layer in layers]
        for layer in wanted:
            if layer < 0 or layer >= depth:
                raise ValueError(f"layers must lie in -{depth}..{depth - 1}, got {layers}.")
        outputs: dict[int, Tensor] = {}
        x = self.embed(image)
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in wanted:
                outputs[number] = self.norm(x) if norm or number == depth - 1 else x
        return [outputs[layer] for layer in wanted]


def radiograph_vit(size: str = "base", **overrides: Any) -> RadiographViT:
    """`RadiographViT` of a named size.

    Args:
        size: `tiny` (192-d, 12 blocks, 3 heads), `small`, `base`, `large` or `huge`.
        overrides: any argument of `RadiographViT`.

    Raises:
        ValueError: for an unknown size.
    """
    if size not in VIT_SIZES:
        raise ValueError(f"size must be one of {sorted(VIT_SIZES)}, got {size!r}.")
    arguments: dict[str, Any] = {**VIT_SIZES[size], **overrides}
    return RadiographViT(**arguments)
