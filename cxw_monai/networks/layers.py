"""Transformer layers with the parameter names that timm and I-JEPA use, so that outside weights load by name."""

from __future__ import annotations

import torch
from monai.networks.layers import DropPath
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .cpu_block import LAYER_NORM_EPS, run_block

__all__ = ["LAYER_NORM_EPS", "Attention", "Block", "Mlp", "configure_blocks", "init_weights"]

PLAIN_ATTENTION_TOKENS = 512
"""Up to this length two matrix products and a softmax beat the fused kernel's backward pass on a CPU."""


class Attention(nn.Module):
    """Multi-head self-attention.

    Scores are `q k^T / sqrt(head_dim)`. The fused kernel is used on accelerators, in inference and for long
    sequences; training on a CPU with few tokens uses plain matrix products, which are faster there.

    Args:
        dim: channels D, a multiple of `num_heads`.
        num_heads: attention heads.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"dim {dim} must be a multiple of num_heads {num_heads}.")
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.plain_tokens = PLAIN_ATTENTION_TOKENS
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, N, D]` to `[B, N, D]`."""
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.num_heads, dim // self.num_heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]  # [B, heads, N, head_dim]
        if self.training and x.device.type == "cpu" and tokens <= self.plain_tokens:
            out = torch.softmax((q * self.scale) @ k.transpose(-2, -1), dim=-1).to(v.dtype) @ v
        else:
            out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).reshape(batch, tokens, dim))


class Mlp(nn.Module):
    """Linear, exact GELU, Linear on `[..., D]`."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer block on `[B, N, D]`.

    On a CPU, with up to `PLAIN_ATTENTION_TOKENS` tokens and without stochastic depth, all of it is one function that
    keeps and moves less memory (`run_block`); elsewhere it is the sum of its modules.

    Args:
        dim: channels D.
        num_heads: attention heads.
        mlp_ratio: hidden channels of the MLP as a multiple of `dim`.
        drop_path: probability of dropping each residual branch of a sample in training.
    """

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float = 4.0, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(dim, round(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.checkpoint = False

    def forward(self, x: Tensor) -> Tensor:
        if not torch.jit.is_scripting():
            out = run_block(self, x)
            if out is not None:
                return out
            if self.checkpoint and torch.is_grad_enabled() and not torch.compiler.is_compiling():
                return checkpoint(self.residuals, x, use_reentrant=False)
        return self.residuals(x)

    def residuals(self, x: Tensor) -> Tensor:
        """The block as the sum of its modules."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


def configure_blocks(network: nn.Module, checkpoint: bool = False, compile: bool = False) -> nn.Module:
    """Choose how the transformer blocks of a network are computed; the weights and their names stay as they are.

    Args:
        network: anything that holds `Block`s.
        checkpoint: keep only a block's input for the backward pass and compute the block again there: less memory,
            more time.
        compile: let `torch.compile` make each block's kernels, for any number of tokens; needs a C++ compiler on CPUs.

    Returns:
        `network` itself.
    """
    for module in network.modules():
        if isinstance(module, Block):
            module.checkpoint = checkpoint
            if compile:
                module.compile(dynamic=True)
    return network


def init_weights(module: nn.Module) -> None:
    """Normal weights of std 0.02 (cut at +-2, timm's convention) and zero biases for linear and convolution layers.

    For use with `nn.Module.apply`. Layer norms keep weight 1 and bias 0. The official code computes a depth-dependent
    rescaling first and overwrites it, so that this is its net effect.
    """
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
