"""Predictor of the world model: context tokens, an action and a place to the target's tokens.

Source: CheXWorld (arXiv 2504.13820), section 4 and supplement B.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from .layers import LAYER_NORM_EPS, Block, init_weights
from .positions import TableOrder, relative_table, sincos_table, table_order
from .rows import gather_tokens, row_wise

__all__ = ["Conditioning", "WorldModelPredictor"]

Conditioning = Literal["feat", "feat_res", "feat_silu", "token", "token_bare", "none"]
CONDITIONINGS = get_args(Conditioning)
FOURIER_BANDS = 8


def fourier_features(action: Tensor) -> Tensor:
    """Sines and cosines of an action at octaves of pi: `[B, A]` to `[B, A * 2 * FOURIER_BANDS]`."""
    bands = math.pi * 2.0 ** torch.arange(FOURIER_BANDS, dtype=action.dtype, device=action.device)
    angles = (action.unsqueeze(-1) * bands).flatten(1)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class WorldModelPredictor(nn.Module):
    """Narrow transformer that predicts target tokens from context tokens.

    Mask tokens carry the place of the target in the context's coordinates and, by `conditioning`, the action:

    - `feat`: an MLP (ReLU) of [mask token, action] replaces the mask token (the paper's choice);
    - `feat_res`: the same, added to the mask token; `feat_silu`: the same as `feat` with SiLU;
    - `token`: Fourier features of the action make one more context token; `token_bare`: a linear map of it does;
    - `none`: the action is not used.

    Args:
        grid: rows and columns of tokens of the reference view.
        encoder_dim: channels of the encoder's tokens.
        embed_dim: channels inside the predictor, a multiple of 4 and of `num_heads`.
        depth: number of blocks.
        num_heads: attention heads (the paper uses the encoder's number).
        action_dim: length A of an action.
        conditioning: see above.
        context_order: order of the context tokens' table. `row_first` agrees with the mask tokens' table; the
            released weights hold `column_first`, an axis swap that is kept only to load them.
        flip_embedding: add a learnt vector to the mask tokens of a target that is mirrored against its context.
        out_dim: channels of a predicted token; those of the encoder by default.
    """

    def __init__(
        self,
        grid: tuple[int, int] | list[int],
        encoder_dim: int = 768,
        embed_dim: int = 384,
        depth: int = 6,
        num_heads: int = 12,
        action_dim: int = 5,
        conditioning: Conditioning = "feat",
        context_order: TableOrder = "row_first",
        flip_embedding: bool = False,
        out_dim: int | None = None,
    ) -> None:
        super().__init__()
        if conditioning not in CONDITIONINGS:
            raise ValueError(f"conditioning must be one of {CONDITIONINGS}, got {conditioning!r}.")
        self.grid = (int(grid[0]), int(grid[1]))
        self.embed_dim = embed_dim
        self.action_dim = action_dim
        self.conditioning = conditioning
        self.mask_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        table = sincos_table(self.grid, embed_dim, context_order)
        self.predictor_pos_embed = nn.Parameter(table, requires_grad=False)
        self.predictor_embed = nn.Linear(encoder_dim, embed_dim)
        self.predictor_blocks = nn.ModuleList(Block(embed_dim, num_heads) for _ in range(depth))
        self.predictor_norm = nn.LayerNorm(embed_dim, eps=LAYER_NORM_EPS)
        self.predictor_proj = nn.Linear(embed_dim, encoder_dim if out_dim is None else out_dim)
        self.policy_net = self._policy_net()
        self.flip_token = nn.Parameter(torch.zeros(1, 1, embed_dim)) if flip_embedding else None
        self.apply(init_weights)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def _policy_net(self) -> nn.Module:
        dim = self.embed_dim
        if self.conditioning == "none":
            return nn.Identity()
        if self.conditioning == "token_bare":
            return nn.Linear(self.action_dim, dim)
        if self.conditioning == "token":
            return nn.Linear(self.action_dim * 2 * FOURIER_BANDS, dim)
        activation = nn.SiLU if self.conditioning == "feat_silu" else nn.ReLU
        layers = [nn.Linear(dim + self.action_dim, dim), activation(), nn.Linear(dim, dim), activation()]
        return nn.Sequential(*layers, nn.Linear(dim, dim))

    def context_positions(self, grid: tuple[int, int]) -> Tensor:
        """Table `[1, N, D]` of the context tokens; on another grid than the stored one, made in the stored order."""
        if grid == self.grid:
            return self.predictor_pos_embed
        order = table_order(self.predictor_pos_embed, self.grid)
        table = sincos_table(grid, self.embed_dim, order, device=self.predictor_pos_embed.device)
        return table.to(self.predictor_pos_embed)

    def mask_tokens(self, action: Tensor, tokens: Tensor | None, rel: Tensor | None, grid: tuple[int, int]) -> Tensor:
        """Mask tokens `[B, K, D]` that carry place, flip and (for the `feat` conditionings) action."""
        table_rel = action.new_zeros(1, 4, dtype=torch.float32) if rel is None else rel
        table = relative_table(table_rel, grid, self.embed_dim).to(self.mask_token.dtype)
        t = (self.mask_token + table).expand(action.shape[0], -1, -1)  # [B, N, D]
        if self.flip_token is not None and rel is not None:
            t = t + self.flip_token * rel[:, 2].view(-1, 1, 1)
        t = gather_tokens(t, tokens)
        if not self.conditioning.startswith("feat"):
            return t
        out = row_wise(self.policy_net, torch.cat([t, action.unsqueeze(1).expand(-1, t.shape[1], -1)], dim=-1))
        return t + out if self.conditioning == "feat_res" else out

    def forward(
        self,
        context: Tensor,
        action: Tensor,
        context_tokens: Tensor | None = None,
        target_tokens: Tensor | None = None,
        rel: Tensor | None = None,
        grid: tuple[int, int] | None = None,
    ) -> Tensor:
        """Predict the target's tokens.

        Args:
            context: `[B, Kc, encoder_dim]` tokens of the context encoder.
            action: `[B, A]` perturbation that made the context from the clean film.
            context_tokens: `[B, Kc]` int64 row-major places of the context tokens; all tokens by default.
            target_tokens: `[B, Kt]` int64 places of the target tokens in the target view; all by default.
            rel: `[B, 4]` geometry of the target view relative to the context view; None for the same view, whose
                table is made in float32 whatever the weights' dtype, as in the reference.
            grid: rows and columns of tokens of both views; the reference grid by default.

        Returns:
            `[B, Kt, out_dim]`.
        """
        if action.shape[-1] != self.action_dim:
            raise ValueError(f"An action has {self.action_dim} numbers here, got {tuple(action.shape)}.")
        grid = self.grid if grid is None else grid
        positions = gather_tokens(self.context_positions(grid).expand(context.shape[0], -1, -1), context_tokens)
        u = row_wise(self.predictor_embed, context) + positions  # [B, Kc, D]
        if self.conditioning == "token":
            u = torch.cat([u, self.policy_net(fourier_features(action)).unsqueeze(1)], dim=1)
        elif self.conditioning == "token_bare":
            u = torch.cat([u, self.policy_net(action).unsqueeze(1)], dim=1)
        t = self.mask_tokens(action, target_tokens, rel, grid)  # [B, Kt, D]
        x = torch.cat([u, t.to(u.dtype)], dim=1)
        for block in self.predictor_blocks:
            x = block(x)
        return row_wise(self.predictor_proj, self.predictor_norm(x[:, u.shape[1] :]))
