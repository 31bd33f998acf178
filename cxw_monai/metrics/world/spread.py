"""Spread of a set of embeddings: what a collapse takes away."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["embedding_statistics"]


@torch.no_grad()
def embedding_statistics(embeddings: Tensor, limit: int = 2048) -> dict[str, float]:
    """Spread of a set of embeddings.

    Args:
        embeddings: `[..., D]`, at least two in all.
        limit: at most this many, a fixed random choice, are looked at.

    Returns:
        `std`: standard deviation over embeddings, averaged over dimensions;
        `cosine`: mean cosine of all pairs, 1 when they point the same way;
        `rank`: exponential of the entropy of the normalised singular values, from 1 (collapsed) to D.

    Raises:
        ValueError: for fewer than two embeddings.
    """
    flat = embeddings.detach().reshape(-1, embeddings.shape[-1])
    if flat.shape[0] < 2:
        raise ValueError(f"Statistics need at least two embeddings, got {flat.shape[0]}.")
    if flat.shape[0] > limit:
        chosen = torch.randperm(flat.shape[0], generator=torch.Generator().manual_seed(0))[:limit]
        flat = flat[chosen.to(flat.device)]
    flat = flat.double()  # [M, D]; in float32 the small singular values of collapsed embeddings are noise
    count = flat.shape[0]
    unit = torch.nn.functional.normalize(flat, dim=-1)
    cosine = (unit.sum(dim=0).square().sum() - unit.square().sum()) / (count * (count - 1))
    gram = flat.T @ flat if count > flat.shape[1] else flat @ flat.T
    singular = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    share = singular / singular.sum().clamp_min(1e-12)
    rank = torch.exp(-torch.xlogy(share, share).sum()) if singular.sum() > 0 else torch.tensor(1.0)
    return {"std": flat.std(dim=0).mean().item(), "cosine": cosine.item(), "rank": rank.item()}
