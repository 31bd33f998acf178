"""Loss of heat maps of points, of which some may be unknown."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["HeatMapLoss"]


def _bell(centres: Tensor, length: int, deviation: float) -> Tensor:
    """A Gaussian over an axis's pixels for each of the centres (continuous px) `[B, P]`: `[B, P, length]`, sum 1."""
    places = torch.arange(length, device=centres.device) + 0.5
    return (-0.5 * ((places - centres[..., None]) / deviation) ** 2).softmax(dim=-1)


def _entropy(share: Tensor) -> Tensor:
    return -torch.xlogy(share, share).sum(dim=-1)


class HeatMapLoss(nn.Module):
    """How far heat maps are from Gaussians around the points, and the points that they mean from the true ones.

    A map is the softmax of its logits over all pixels. `heat` is the Kullback-Leibler divergence of the true Gaussian
    from it (cross-entropy less the Gaussian's own entropy, so that it ends at 0); `distance` the mean absolute
    difference of the map's mean from the point on either axis, in deviations of the Gaussian (integral regression,
    arXiv 1711.08229). A point that is unknown on a film has no share in the loss or its gradient.

    Args:
        heat_px: deviation of the Gaussian in px of the network's image.
        distance_weight: of `distance` beside `heat`.

    Raises:
        ValueError: `heat_px` isn't above 0, or the weight is negative.
    """

    def __init__(self, heat_px: float = 2.0, distance_weight: float = 0.0) -> None:
        super().__init__()
        if not heat_px > 0 or distance_weight < 0:
            raise ValueError(f"heat_px must be above 0 and distance_weight 0 or more: {heat_px}, {distance_weight}.")
        self.heat_px, self.distance_weight = heat_px, distance_weight

    def forward(self, logits: Tensor, points: Tensor, known: Tensor) -> dict[str, Tensor]:
        """Loss of a batch.

        Args:
            logits: `[B, P, h, w]`.
            points: `[B, P, 2]`, row and column in continuous px of the maps (the first pixel covers 0 to 1); what is
                unknown may hold any number that isn't NaN.
            known: `[B, P]`, whether a point was annotated.

        Returns:
            `loss`, and its unweighted terms `heat` and `distance`: scalars, means over the known points of the films;
            0 where none is known.
        """
        height, width = logits.shape[2:]
        down = _bell(points[..., 0], height, self.heat_px)  # [B, P, h]
        across = _bell(points[..., 1], width, self.heat_px)  # [B, P, w]
        spread = F.log_softmax(logits.flatten(2), dim=2).view_as(logits)  # [B, P, h, w]
        crossed = -torch.einsum("bphw,bph,bpw->bp", spread, down, across)
        heat = crossed - _entropy(down) - _entropy(across)
        maps = spread.exp()
        rows = torch.arange(height, device=logits.device) + 0.5
        columns = torch.arange(width, device=logits.device) + 0.5
        mean = torch.stack([maps.sum(dim=3) @ rows, maps.sum(dim=2) @ columns], dim=2)  # [B, P, 2]
        distance = (mean - points).abs().mean(dim=2) / self.heat_px
        weight = known.to(logits) / known.sum().clamp_min(1)
        terms = {"heat": (heat * weight).sum(), "distance": (distance * weight).sum()}
        return {"loss": terms["heat"] + self.distance_weight * terms["distance"], **terms}
