"""Loss of pooled embeddings of several crops of each film: one embedding a film, and no collapse.

Source: LeJEPA (arXiv 2511.08544): every crop is pulled to the mean embedding of the film's large crops, and SIGReg
keeps the embeddings of each crop, over the films of a batch, Gaussian.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .regularisers import DIRECTIONS, random_directions, sigreg

__all__ = ["pooled_terms"]

LARGE_CROPS = 2


def pooled_terms(embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """Invariance and regulariser.

    Args:
        embeddings: `[V, B, P]`, V crops of each of B films, the two large ones first.

    Returns:
        Two scalars in float32: the mean squared distance of a channel of all crops from the mean of the film's large
        crops, through which gradients flow too; and SIGReg over the films, averaged over crops.
    """
    embeddings = embeddings.float()
    centres = embeddings[:LARGE_CROPS].mean(dim=0)  # [B, P]
    invariance = (embeddings - centres).square().mean()
    with torch.autocast(embeddings.device.type, enabled=False):
        directions = random_directions(embeddings.shape[-1], DIRECTIONS, embeddings)
        spread = torch.stack([sigreg(crop, directions) for crop in embeddings]).mean()
    return invariance, spread
