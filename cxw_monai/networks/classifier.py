"""Encoder and head as a classification network for radiographs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .encoder_network import EncoderNetwork, task_encoder
from .heads import AttentiveHead, make_head
from .vit import RadiographViT

__all__ = ["ClassProbabilities", "RadiographClassifier", "radiograph_classifier"]


class RadiographClassifier(EncoderNetwork):
    """Radiographs to one logit a class.

    Args:
        encoder: the ViT.
        classes: names of the L classes in the order of the logits.
        head: `linear` or `attentive` (see `heads`).
        head_layers: number K of the encoder's last blocks whose final-normed tokens the head reads.
        head_norm: layer normalisation before the head's own weights.
        frozen_blocks: see `EncoderNetwork`.

    Attributes:
        encoder, head: the two parts; `encoder.` and `head.` begin the names of their parameters.
        classes: names of the classes.

    Raises:
        ValueError: for no or repeated classes, an unknown head, or more layers than the encoder has.
    """

    def __init__(
        self,
        encoder: RadiographViT,
        classes: Sequence[str],
        head: str = "linear",
        head_layers: int = 1,
        head_norm: bool = False,
        frozen_blocks: int = 0,
    ) -> None:
        super().__init__(encoder, frozen_blocks)
        if not classes or len(set(classes)) < len(classes):
            raise ValueError(f"classes must be different names, got {classes!r}.")
        depth = len(encoder.blocks)
        if not 1 <= head_layers <= depth:
            raise ValueError(f"head_layers must lie in 1..{depth}, got {head_layers}.")
        self.classes = tuple(classes)
        self.layers = list(range(depth - head_layers, depth))
        self.head = make_head(head, encoder.embed_dim, len(classes), head_layers, head_norm, encoder.num_heads)

    def tokens(self, image: Tensor) -> Tensor:
        """What the head reads of an image: `[B, 1 or C, H, W]` in [0, 1] to `[B, K, N, D]`.

        Raises:
            ValueError: H or W is no multiple of the patch size, or C does not fit.
        """
        return torch.stack(self.encoder.intermediate_layers(image, self.layers, norm=True), dim=1)

    def forward(self, image: Tensor, encoded: bool = False) -> Tensor:
        """Logits.

        Args:
            image: `[B, 1 or C, H, W]` in [0, 1], H and W multiples of the patch size; or what `tokens` gave.
            encoded: it is what `tokens` gave, `[B, K, N, D]`.

        Returns:
            `[B, L]`.
        """
        return self.head(image if encoded else self.tokens(image))

    @torch.jit.ignore
    def attention(self, image: Tensor) -> Tensor:
        """Where each class looks: `[B, L, rows, columns]` of sum 1 over the grid, from an attentive head.

        Raises:
            ValueError: the head is another one.
        """
        if not isinstance(self.head, AttentiveHead):
            raise ValueError("only an attentive head has a map of attention; this one is linear.")  # noqa: TRY004
        return self.head.attention(self.tokens(image)).unflatten(-1, self.encoder.grid_of(image))


class ClassProbabilities(nn.Module):
    """A classifier whose logits become calibrated probabilities.

    Args:
        network: gives logits `[B, L]`.
        multi_class: the classes exclude each other (softmax); otherwise each has its own sigmoid.
        temperatures: what the logits are divided by, one number a class or one for all, above 0; 1 leaves them.
    """

    if TYPE_CHECKING:  # TorchScript can't read it
        temperatures: Tensor

    def __init__(self, network: nn.Module, multi_class: bool, temperatures: Sequence[float] = (1.0,)) -> None:
        super().__init__()
        self.network, self.multi_class = network, multi_class
        self.register_buffer("temperatures", torch.tensor([float(one) for one in temperatures]), persistent=False)

    def of_logits(self, logits: Tensor) -> Tensor:
        """Logits `[..., L]` to probabilities `[..., L]`."""
        scaled = logits / self.temperatures
        return scaled.softmax(dim=-1) if self.multi_class else scaled.sigmoid()

    def forward(self, image: Tensor) -> Tensor:
        """`[B, C, H, W]` in [0, 1] to probabilities `[B, L]`."""
        return self.of_logits(self.network(image))


def radiograph_classifier(
    classes: Sequence[str],
    size: str = "tiny",
    patch: int = 16,
    head: str = "linear",
    head_layers: int = 1,
    head_norm: bool = False,
    image_size: int | Sequence[int] = 224,
    in_channels: int = 1,
    drop_path: float = 0.0,
    frozen_blocks: int = 0,
    pretrained_patch: int | None = None,
) -> RadiographClassifier:
    """`RadiographClassifier` from plain values, as a configuration holds them.

    Args:
        classes, head, head_layers, head_norm, frozen_blocks: see `RadiographClassifier`.
        size, patch, image_size, in_channels, drop_path, pretrained_patch: see `task_encoder`.

    Raises:
        ValueError: for sizes that do not fit.
    """
    encoder = task_encoder(size, patch, image_size, in_channels, drop_path, pretrained_patch)
    return RadiographClassifier(encoder, classes, head, head_layers, head_norm, frozen_blocks)
