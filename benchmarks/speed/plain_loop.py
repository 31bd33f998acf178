"""Pretraining as one would first write it in plain PyTorch: what the benchmark holds the package's step against.

Source: CheXWorld (arXiv 2504.13820), section 4, step by step: the target encoder runs on each view, the context encoder
on each perturbed view, the predictor on each of the four (context, target) pairs, attention is PyTorch's fused one, the
optimiser is `torch.optim.AdamW` as it comes, and the moving average is a loop over parameters. Only the position tables
and the action's small MLP are the package's; the numbers are the same.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cxw_monai.networks import RadiographViT, WorldModel, WorldModelInputs, WorldModelPredictor
from cxw_monai.networks.positions import relative_table
from cxw_monai.training.precision import Precision

__all__ = ["PlainLoop"]


def _gather(tokens: Tensor, index: Tensor) -> Tensor:
    """`[B, N, D]` at `[B, K]` gives `[B, K, D]`."""
    return tokens.gather(1, index.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


class _Block(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(dim, 3 * dim), "proj": nn.Linear(dim, dim)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, 4 * dim), "fc2": nn.Linear(4 * dim, dim)})

    def forward(self, x: Tensor) -> Tensor:
        batch, count, dim = x.shape
        qkv = self.attn["qkv"](self.norm1(x)).reshape(batch, count, 3, self.heads, dim // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(batch, count, dim)
        x = x + self.attn["proj"](attended)
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class _Encoder(nn.Module):
    def __init__(self, like: RadiographViT) -> None:
        super().__init__()
        dim, patch = like.embed_dim, like.patch_size
        self.register_buffer("image_mean", torch.empty_like(like.image_mean))
        self.register_buffer("image_std", torch.empty_like(like.image_std))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(like.in_channels, dim, patch, patch)})
        self.pos_embed = nn.Parameter(torch.empty_like(like.pos_embed), requires_grad=False)
        self.blocks = nn.ModuleList(_Block(dim, like.num_heads) for _ in like.blocks)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.to(like.pos_embed).load_state_dict(like.state_dict())

    def forward(self, image: Tensor, index: Tensor | None = None) -> Tensor:
        image = (image - self.image_mean.view(1, -1, 1, 1)) / self.image_std.view(1, -1, 1, 1)
        x = self.patch_embed["proj"](image).flatten(2).transpose(1, 2) + self.pos_embed  # [B, N, D]
        if index is not None:
            x = _gather(x, index)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class _Predictor(nn.Module):
    def __init__(self, like: WorldModelPredictor) -> None:
        super().__init__()
        self.grid, dim, heads = like.grid, like.embed_dim, like.predictor_blocks[0].attn.num_heads
        self.mask_token = nn.Parameter(torch.empty_like(like.mask_token))
        self.predictor_pos_embed = nn.Parameter(torch.empty_like(like.predictor_pos_embed), requires_grad=False)
        self.predictor_embed = nn.Linear(like.predictor_embed.in_features, dim)
        self.predictor_blocks = nn.ModuleList(_Block(dim, heads) for _ in like.predictor_blocks)
        self.predictor_norm = nn.LayerNorm(dim, eps=1e-6)
        self.predictor_proj = nn.Linear(dim, like.predictor_proj.out_features)
        self.policy_net = copy.deepcopy(like.policy_net)
        self.to(like.mask_token).load_state_dict(like.state_dict())

    def forward(self, context: Tensor, action: Tensor, seen: Tensor, wanted: Tensor | None, rel: Tensor) -> Tensor:
        positions = self.predictor_pos_embed.expand(len(context), -1, -1)
        known = self.predictor_embed(context) + _gather(positions, seen)
        masked = self.mask_token + relative_table(rel, self.grid, self.mask_token.shape[-1])
        if wanted is not None:
            masked = _gather(masked, wanted)
        actions = action.unsqueeze(1).expand(-1, masked.shape[1], -1)
        x = torch.cat([known, self.policy_net(torch.cat([masked, actions], dim=-1))], dim=1)
        for block in self.predictor_blocks:
            x = block(x)
        return self.predictor_proj(self.predictor_norm(x)[:, known.shape[1] :])


class PlainLoop:
    """A world model with its optimiser, trained step by step.

    Args:
        model: weights, sizes, dtype and device are taken from it, and whether all tokens of the other view are
            predicted; its other settings must be the defaults.
        amp: `bfloat16` (autocast), `none` or `auto`.
        lr, weight_decay: of AdamW.
        momentum: of the target's moving average.
    """

    def __init__(
        self,
        model: WorldModel,
        amp: str = "none",
        lr: float = 2e-4,
        weight_decay: float = 0.05,
        momentum: float = 0.996,
    ) -> None:
        self.encoder, self.predictor = _Encoder(model.encoder), _Predictor(model.predictor)
        self.target = copy.deepcopy(self.encoder).requires_grad_(False)
        self.masked_only = model.settings.cross_targets == "masked"
        self.precision, self.momentum = Precision(amp), momentum
        trained = [*self.encoder.named_parameters(), *self.predictor.named_parameters()]
        trained = [(name, p) for name, p in trained if p.requires_grad]
        self.parameters = [p for _, p in trained]
        decays = [p.ndim > 1 and name != "mask_token" for name, p in trained]
        groups = [
            {"params": [p for p, d in zip(self.parameters, decays, strict=True) if d]},
            {"params": [p for p, d in zip(self.parameters, decays, strict=True) if not d], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=lr, weight_decay=weight_decay)

    def loss(self, inputs: WorldModelInputs) -> Tensor:
        """Mean of the four terms."""
        i = inputs
        with torch.no_grad():
            h1, h2 = (F.layer_norm(h, h.shape[-1:]) for h in (self.target(i.view1), self.target(i.view2)))
        z1, z2 = self.encoder(i.perturbed1, i.context1), self.encoder(i.perturbed2, i.context2)
        here = torch.zeros_like(i.rel_12)
        other1, other2 = (i.target1, i.target2) if self.masked_only else (None, None)
        p11 = self.predictor(z1, i.action1, i.context1, i.target1, here)
        p22 = self.predictor(z2, i.action2, i.context2, i.target2, here)
        p21 = self.predictor(z1, i.action1, i.context1, other2, i.rel_21)
        p12 = self.predictor(z2, i.action2, i.context2, other1, i.rel_12)
        terms = [F.mse_loss(p11, _gather(h1, i.target1)), F.mse_loss(p22, _gather(h2, i.target2))]
        terms.append(F.mse_loss(p21, _gather(h2, i.target2) if self.masked_only else h2))
        terms.append(F.mse_loss(p12, _gather(h1, i.target1) if self.masked_only else h1))
        return sum(terms) / 4

    def step(self, inputs: WorldModelInputs) -> float:
        """One step of training; returns the loss before it."""
        self.optimizer.zero_grad()
        with self.precision.autocast(inputs.view1.device):
            loss = self.loss(inputs)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        with torch.no_grad():
            for kept, new in zip(self.target.parameters(), self.encoder.parameters(), strict=True):
                kept.mul_(self.momentum).add_(new, alpha=1 - self.momentum)
        return loss.item()
