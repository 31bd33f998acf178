"""Segmentation decoders: token maps of a plain ViT to logits at the image's size."""

from __future__ import annotations

from .hybrid import HybridDecoder
from .layers import BatchNorm2d, synchronise_batch_norm
from .linear import LinearDecoder
from .unet import UNetDecoder
from .upernet import UPerNetDecoder

__all__ = [
    "DECODERS",
    "BatchNorm2d",
    "HybridDecoder",
    "LinearDecoder",
    "UNetDecoder",
    "UPerNetDecoder",
    "make_decoder",
    "synchronise_batch_norm",
]

DECODERS = ("unet", "hybrid", "upernet", "linear")


def make_decoder(
    name: str, embed_dim: int, depth: int, patch_size: int, image_channels: int, outputs: int, base_channels: int = 32
) -> UNetDecoder | HybridDecoder | UPerNetDecoder | LinearDecoder:
    """Decoder of a name, for an encoder's sizes.

    Every decoder has `layers` (numbers of the encoder blocks that it reads), `stride` (the image's height and width
    must be multiples of it) and `forward(features, image)`: one map `[B, D, rows, columns]` a layer and the normalised
    image `[B, C, H, W]` to logits `[B, S, H, W]`.

    Args:
        name: `unet`, `hybrid`, `upernet` or `linear`.
        embed_dim: channels D of a token.
        depth: number of the encoder's blocks.
        patch_size: side of a patch in px.
        image_channels: channels C of the normalised image.
        outputs: number of structures S.
        base_channels: width of the U-Nets' finest level, of which `upernet` takes four times; unused by `linear`.

    Raises:
        ValueError: for another name, or sizes that the decoder does not take.
    """
    if outputs < 1 or base_channels < 1:
        raise ValueError(f"structures and base_channels must be 1 or more, got {outputs} and {base_channels}.")
    if name == "unet":
        return UNetDecoder(embed_dim, patch_size, image_channels, outputs, base_channels)
    if name == "hybrid":
        return HybridDecoder(embed_dim, patch_size, image_channels, outputs, base_channels)
    if name == "upernet":
        return UPerNetDecoder(embed_dim, depth, patch_size, outputs, 4 * base_channels)
    if name == "linear":
        return LinearDecoder(embed_dim, patch_size, outputs)
    raise ValueError(f"decoder must be one of {DECODERS}, got {name!r}.")
