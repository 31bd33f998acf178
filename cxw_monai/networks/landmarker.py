"""Heat maps of landmarks from an encoder and a decoder, and the points that they mean."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .encoder_network import task_encoder
from .segmenter import RadiographSegmenter
from .vit import RadiographViT

__all__ = ["HeatMapPoints", "RadiographLandmarker", "radiograph_landmarker"]

WINDOW = 3.0
"""Half the side of the window around a heat map's maximum that is read, in its deviations."""


class RadiographLandmarker(RadiographSegmenter):
    """Radiographs to one heat map a landmark: a segmenter's network, whose maps are read otherwise.

    The softmax of a map over all pixels is the probability of where the point lies (`HeatMapPoints`).

    Args:
        encoder, decoder, base_channels, frozen_blocks: see `RadiographSegmenter`.
        points: names of the P landmarks in the order of the maps.
        heat_px: deviation in px of the heat maps that the network learns.

    Attributes:
        points: names of the landmarks.
        heat_px: see above.

    Raises:
        ValueError: no or repeated points, a `heat_px` that isn't above 0, or what `RadiographSegmenter` refuses.
    """

    def __init__(
        self,
        encoder: RadiographViT,
        points: Sequence[str],
        decoder: str = "unet",
        base_channels: int = 32,
        heat_px: float = 2.0,
        frozen_blocks: int = 0,
    ) -> None:
        super().__init__(encoder, list(points), decoder, base_channels, frozen_blocks)
        if not heat_px > 0:
            raise ValueError(f"heat_px must be above 0, got {heat_px}.")
        self.points, self.heat_px = self.structures, float(heat_px)


class HeatMapPoints(nn.Module):
    """Where heat maps say that points lie, to fractions of a pixel, and how sure they are.

    The probability of a map (its softmax over all pixels) is read in a square window around its maximum: the point is
    the window's centre of mass, the confidence the window's share of the map. A second hill elsewhere lowers the
    confidence and doesn't move the point.

    Args:
        heat_px: deviation in px of the heat maps that were learnt; the window reaches three of them to each side.
    """

    def __init__(self, heat_px: float = 2.0) -> None:
        super().__init__()
        self.reach = WINDOW * heat_px

    def forward(self, logits: Tensor) -> Tensor:
        """Points of heat maps.

        Args:
            logits: `[B, P, h, w]`.

        Returns:
            `[B, P, 3]`: x and y as shares of the image's width and height (0 and 1 are its outer edges), and the
            confidence in [0, 1].
        """
        height, width = logits.shape[2], logits.shape[3]
        maps = logits.float().flatten(2).softmax(dim=2)  # [B, P, h * w]
        top = maps.argmax(dim=2, keepdim=True)  # [B, P, 1]
        place = torch.arange(height * width, device=logits.device)
        rows, columns = torch.div(place, width, rounding_mode="floor"), place % width
        far = torch.maximum((rows - torch.div(top, width, rounding_mode="floor")).abs(), (columns - top % width).abs())
        near = torch.where(far <= self.reach, maps, torch.zeros_like(maps))  # [B, P, h * w]
        confidence = near.sum(dim=2)
        x = (near * (columns + 0.5)).sum(dim=2) / confidence / width
        y = (near * (rows + 0.5)).sum(dim=2) / confidence / height
        return torch.stack([x, y, confidence.clamp(max=1.0)], dim=2)


def radiograph_landmarker(
    size: str = "tiny",
    patch: int = 16,
    points: Sequence[str] = ("point",),
    decoder: str = "unet",
    base_channels: int = 32,
    heat_px: float = 2.0,
    image_size: int | Sequence[int] = 224,
    in_channels: int = 1,
    drop_path: float = 0.0,
    frozen_blocks: int = 0,
    pretrained_patch: int | None = None,
) -> RadiographLandmarker:
    """`RadiographLandmarker` from plain values, as a configuration holds them.

    Args:
        points, decoder, base_channels, heat_px, frozen_blocks: see `RadiographLandmarker`.
        size, patch, image_size, in_channels, drop_path, pretrained_patch: see `task_encoder`.

    Raises:
        ValueError: for sizes that do not fit.
    """
    encoder = task_encoder(size, patch, image_size, in_channels, drop_path, pretrained_patch)
    return RadiographLandmarker(encoder, points, decoder, base_channels, heat_px, frozen_blocks)
