"""Encoder and decoder as a segmentation network for radiographs of any size."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from .decoders import make_decoder
from .encoder_network import EncoderNetwork, task_encoder
from .vit import RadiographViT

__all__ = ["RadiographSegmenter", "radiograph_segmenter"]


class RadiographSegmenter(EncoderNetwork):
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
        frozen_blocks: see `EncoderNetwork`.

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
        super().__init__(encoder, frozen_blocks)
        names = (
            [f"structure_{number}" for number in range(structures)]
            if isinstance(structures, int)
            else [str(name) for name in structures]
        )
        if not names or len(set(names)) < len(names):
            raise ValueError(f"structures must be different names, or a number of 1 or more, got {structures!r}.")
        self.structures = tuple(names)
        self.decoder = make_decoder(
            decoder,
            encoder.embed_dim,
            len(encoder.blocks),
            encoder.patch_size,
            encoder.in_channels,
            len(names),
            base_channels,
        )
        self.stride = self.decoder.stride

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
        structures, decoder, base_channels, frozen_blocks: see `RadiographSegmenter`.
        size, patch, image_size, in_channels, drop_path, pretrained_patch: see `task_encoder`.

    Raises:
        ValueError: for sizes that do not fit.
    """
    encoder = task_encoder(size, patch, image_size, in_channels, drop_path, pretrained_patch)
    return RadiographSegmenter(encoder, structures, decoder, base_channels, frozen_blocks)
