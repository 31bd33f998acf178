"""Classification heads: an encoder's tokens to one logit a class."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import LAYER_NORM_EPS

__all__ = ["HEADS", "AttentiveHead", "LinearHead", "make_head"]

HEADS = ("linear", "attentive")


class LinearHead(nn.Module):
    """Mean of the tokens, then one linear map; the head of CheXWorld's fine-tuning (arXiv 2504.13820, supplement B).

    The means of several layers stand beside each other.

    Args:
        embed_dim: channels D of a token.
        classes: number of logits L.
        layers: number K of the encoder's last blocks whose tokens are read.
        norm: layer normalisation of each layer's mean before the linear map.
    """

    def __init__(self, embed_dim: int, classes: int, layers: int = 1, norm: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(embed_dim, eps=LAYER_NORM_EPS) if norm else nn.Identity()
        self.fc = nn.Linear(layers * embed_dim, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """`[B, K, N, D]` to logits `[B, L]`."""
        return self.fc(self.norm(tokens.mean(dim=2)).flatten(1))


class AttentiveHead(nn.Module):
    """Each class has a query that attends to the tokens, and reads its logit off what it attended to.

    Attention is over the tokens of all layers together, which carry a learnt vector of their layer. Pooling by a query
    a class is that of Query2Label (arXiv 2107.10834) without its transformer; attentive probes of frozen encoders
    (V-JEPA, arXiv 2404.08471, section 4) have one query for all.

    Args:
        embed_dim: channels D of a token, a multiple of `heads`.
        classes: number of logits L.
        layers: number K of the encoder's last blocks whose tokens are read.
        norm: layer normalisation of the tokens before they are read.
        heads: attention heads.

    Raises:
        ValueError: `embed_dim` is no multiple of `heads`.
    """

    def __init__(self, embed_dim: int, classes: int, layers: int = 1, norm: bool = False, heads: int = 3) -> None:
        super().__init__()
        if embed_dim % heads:
            raise ValueError(f"embed_dim {embed_dim} must be a multiple of heads {heads}.")
        self.heads, self.classes = heads, classes
        self.scale = (embed_dim // heads) ** -0.5
        self.norm = nn.LayerNorm(embed_dim, eps=LAYER_NORM_EPS) if norm else nn.Identity()
        self.layer_embed = nn.Parameter(torch.zeros(layers, 1, embed_dim))
        self.queries = nn.Parameter(torch.empty(heads, classes, embed_dim // heads))
        nn.init.trunc_normal_(self.queries, std=0.02)
        self.key_value = nn.Linear(embed_dim, 2 * embed_dim)
        self.weight = nn.Parameter(torch.empty(classes, embed_dim))
        self.bias = nn.Parameter(torch.zeros(classes))
        nn.init.trunc_normal_(self.weight, std=0.02)

    def _attended(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Attention `[B, heads, L, K * N]` and values `[B, heads, K * N, D / heads]`."""
        x = (self.norm(tokens) + self.layer_embed).flatten(1, 2)  # [B, K * N, D]
        key_value = self.key_value(x).view(x.shape[0], x.shape[1], 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = (self.queries * self.scale) @ key_value[0].transpose(-2, -1)
        return scores.softmax(dim=-1), key_value[1]

    def forward(self, tokens: Tensor) -> Tensor:
        """`[B, K, N, D]` to logits `[B, L]`."""
        attention, values = self._attended(tokens)
        pooled = (attention @ values).transpose(1, 2).flatten(2)  # [B, L, D]
        return (pooled * self.weight).sum(dim=-1) + self.bias

    @torch.jit.ignore
    def attention(self, tokens: Tensor) -> Tensor:
        """Where each class looks, mean of the heads and sum of the layers: `[B, K, N, D]` to `[B, L, N]`, of sum 1."""
        maps = self._attended(tokens)[0].mean(dim=1)  # [B, L, K * N]
        return maps.view(len(tokens), self.classes, tokens.shape[1], -1).sum(dim=2)


def make_head(
    name: str, embed_dim: int, classes: int, layers: int = 1, norm: bool = False, heads: int = 3
) -> LinearHead | AttentiveHead:
    """A head by its name.

    Args:
        name: one of `HEADS`.
        embed_dim, classes, layers, norm, heads: see `AttentiveHead`.

    Raises:
        ValueError: for another name.
    """
    if name not in HEADS:
        raise ValueError(f"head must be one of {', '.join(HEADS)}, got {name!r}.")
    if name == "linear":
        return LinearHead(embed_dim, classes, layers, norm)
    return AttentiveHead(embed_dim, classes, layers, norm, heads)
