"""Encoder and decoder as a segmentation network for radiographs of any size."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from .decoders import make_decoder
from .vit import RadiographViT, radiograph_vit

__all__ = ["RadiographSegmenter", "radiograph_segmenter"]


class RadiographSegmenter(nn.Module):
    """Radiographs to one logit a structure and pixel.

    Structures may overlap (a rib over a lung), so each has its own sigmoid, which is left to the caller. Any height
    and width of at least a patch will do: the image is padded at the bottom and the right by repeating its edge, up to
    a multiple of `stride`, and the logits are cut back, so that `logits[..., y, x]` is of `image[..., y, x]`.

    Batch normalisation sees one process's films; see `decoders.synchronise_batch_norm` for several GPUs.

    Args:
        encoder: the ViT; its normalisation serves the decoder too.
        structures: names of the S structures in the order of the output's channels, or their number.
        decoder: `unet` or `hybrid` (patches of 8 or 16 px), `upernet` or `linear` (see `decoders`).
        base_channels: width of the decoder; see `decoders.make_decoder`.
        frozen_blocks: the stem and this many first blocks keep their weights and stay in evaluation mode (no
            stochastic depth); -1, or all of them, freezes the final norm too.

    Attributes:
        encoder, decoder: the two parts; `encoder.` and `decoder.` begin the names of their parameters.
        structures: names of the structures.
        stride: multiple of px that the image is padded to.

    Raises:
        ValueError: for no or repeated structures, an unknown decoder, or sizes that do not fit.
    """

    def __init__(
        self,
        encoder: RadiographViT,
        structures: Sequence[str] | int,
        decoder: str = "unet",
        base_channels: int = 32,
        frozen_blocks: int = 0,
    ) -> None:
        super().__init__()
        names = (
            [f"structure_{number}" for number in range(structures)]
            if isinstance(structures, int)
            else [str(name) for name in structures]
        )
        if not names or len(set(names)) < len(names):
            raise ValueError(f"structures must be different names, or a number of 1 or more, got {structures!r}.")
        depth = len(encoder.blocks)
        if not -1 <= frozen_blocks <= depth:
            raise ValueError(f"frozen_blocks must lie in -1..{depth}, got {frozen_blocks}.")
        self.structures = tuple(names)
        self.patch_size = encoder.patch_size
        self.frozen_blocks = depth if frozen_blocks < 0 else frozen_blocks
        self.encoder = encoder
        self.decoder = make_decoder(
            decoder, encoder.embed_dim, depth, encoder.patch_size, encoder.in_channels, len(names), base_channels
        )
        self.stride = self.decoder.stride
        for module in self.frozen_modules():
            module.requires_grad_(False)

    def frozen_modules(self) -> list[nn.Module]:
        """The parts of the encoder that `frozen_blocks` keeps as they are."""
        if self.frozen_blocks == 0:
            return []
        if self.frozen_blocks == len(self.encoder.blocks):
            return [self.encoder]
        return [self.encoder.patch_embed, *self.encoder.blocks[: self.frozen_blocks]]

    def train(self, mode: bool = True) -> RadiographSegmenter:
        """Training or evaluation mode; frozen parts stay in evaluation mode."""
        super().train(mode)
        for module in self.frozen_modules():
            module.eval()
        return self

    def forward(self, image: Tensor) -> Tensor:
        """Logits at the image's size.

        Args:
            image: `[B, C, H, W]` in [0, 1], C 1 or the encoder's channels.

        Returns:
            `[B, S, H, W]`; `sigmoid` of it is each structure's probability.

        Raises:
            ValueError: when H or W is less than a patch, or C does not fit.
        """
        height, width = image.shape[2], image.shape[3]
        if min(height, width) < self.patch_size:
            raise ValueError(f"An image of {height} x {width} px is smaller than a patch of {self.patch_size} px.")
        bottom, right = -height % self.stride, -width % self.stride
        if bottom > 0 or right > 0:
            image = F.pad(image, [0, right, 0, bottom], mode="replicate")
        rows, columns = self.encoder.grid_of(image)
        features: list[Tensor] = []
        for tokens in self.encoder.intermediate_layers(image, self.decoder.layers, norm=True):
            features.append(tokens.transpose(1, 2).reshape(image.shape[0], -1, rows, columns))  # [B, D, rows, columns]
        logits = self.decoder(features, self.encoder.normalise(image))
        return logits[:, :, :height, :width]


def radiograph_segmenter(
    size: str = "tiny",
    patch: int = 16,
    structures: Sequence[str] | int = 1,
    decoder: str = "unet",
    base_channels: int = 32,
    image_size: int | Sequence[int] = 224,
    in_channels: int = 1,
    drop_path: float = 0.0,
    frozen_blocks: int = 0,
    pretrained_patch: int | None = None,
) -> RadiographSegmenter:
    """`RadiographSegmenter` from plain values, as a configuration holds them.

    Args:
        size: encoder, one of `VIT_SIZES`.
        patch: side of a patch in px.
        structures, decoder, base_channels, frozen_blocks: see `RadiographSegmenter`.
        image_size: side, or (height, width), in px of the encoder's pretraining, which the stored position table is
            for. Images of any size follow it (`RadiographViT`): it is not the size to segment at.
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
    encoder = radiograph_vit(
        size,
        image_size=(height, width),
        patch_size=patch,
        in_channels=in_channels,
        drop_path_rate=drop_path,
        position_grid=(height // step, width // step),
    )
    return RadiographSegmenter(encoder, structures, decoder, base_channels, frozen_blocks)
