"""What the tasks' networks share: an encoder of which the first blocks may be frozen."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from typing_extensions import Self

from .vit import RadiographViT, radiograph_vit

__all__ = ["EncoderNetwork", "task_encoder"]


class EncoderNetwork(nn.Module):
    """Base of a task's network, whose `encoder` it holds; `encoder.` begins the names of its parameters.

    Args:
        encoder: the ViT.
        frozen_blocks: the stem and this many first blocks keep their weights and stay in evaluation mode (no
            stochastic depth); -1, or all of them, freezes the final norm too.

    Raises:
        ValueError: the encoder has fewer blocks.
    """

    def __init__(self, encoder: RadiographViT, frozen_blocks: int = 0) -> None:
        super().__init__()
        depth = len(encoder.blocks)
        if not -1 <= frozen_blocks <= depth:
            raise ValueError(f"frozen_blocks must lie in -1..{depth}, got {frozen_blocks}.")
        self.patch_size = encoder.patch_size
        self.frozen_blocks = depth if frozen_blocks < 0 else frozen_blocks
        self.encoder = encoder
        for module in self.frozen_modules():
            module.requires_grad_(False)

    def frozen_modules(self) -> list[nn.Module]:
        """The parts of the encoder that `frozen_blocks` keeps as they are."""
        if self.frozen_blocks == 0:
            return []
        if self.frozen_blocks == len(self.encoder.blocks):
            return [self.encoder]
        return [self.encoder.patch_embed, *self.encoder.blocks[: self.frozen_blocks]]

    def train(self, mode: bool = True) -> Self:
        """Training or evaluation mode; frozen parts stay in evaluation mode."""
        super().train(mode)
        for module in self.frozen_modules():
            module.eval()
        return self


def task_encoder(
    size: str = "tiny",
    patch: int = 16,
    image_size: int | Sequence[int] = 224,
    in_channels: int = 1,
    drop_path: float = 0.0,
    pretrained_patch: int | None = None,
) -> RadiographViT:
    """The encoder of a task's network from plain values, as a configuration holds them.

    Args:
        size: one of `VIT_SIZES`.
        patch: side of a patch in px.
        image_size: side, or (height, width), in px of the encoder's pretraining, which the stored position table is
            for. Images of any size follow it (`RadiographViT`): it is not the size that films are stretched to.
        in_channels: the encoder's channels.
        drop_path: stochastic depth, from 0 in the first block linearly to this in the last.
        pretrained_patch: patch of the pretraining where `patch` is another one; see `resize_encoder`, which makes the
            weights fit.

    Raises:
        ValueError: for sizes that do not fit.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    step = patch if pretrained_patch is None else pretrained_patch
    if step < 1 or height % step or width % step:
        raise ValueError(f"image_size {(height, width)} must be a positive multiple of pretraining's patch, {step} px.")
    return radiograph_vit(
        size,
        image_size=(height, width),
        patch_size=patch,
        in_channels=in_channels,
        drop_path_rate=drop_path,
        position_grid=(height // step, width // step),
    )
