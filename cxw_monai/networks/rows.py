"""Rows of tokens: chosen ones, and those of matrix products, padded to few numbers.

oneDNN compiles a bfloat16 product anew for every number of rows that it meets, for milliseconds and half a megabyte
each, and masks of random lengths bring other numbers in every step. So in training on a CPU rows are padded with zeros
to a multiple of `ROWS`: few numbers come again and again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Optional

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["gather_tokens", "linear_of_tokens", "padded_rows", "row_wise", "to_tokens"]

ROWS = 64
"""Rows of bfloat16 products in training come in multiples of this."""


def gather_tokens(tokens: Tensor, index: Optional[Tensor]) -> Tensor:
    """`[B, N, D]` at `[B, K]` gives `[B, K, D]`; None keeps all."""
    return tokens if index is None else tokens.gather(1, index.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def padded_rows(count: int, dtype: torch.dtype) -> int:
    """Rows that `count` rows become in a product of that dtype."""
    return -(-count // ROWS) * ROWS if dtype == torch.bfloat16 else count


def to_tokens(rows: Tensor, like: Tensor) -> Tensor:
    """`[R, C]` as the `[B, N, C]` of `like`'s tokens, a view."""
    batch, count = like.shape[:2]
    return rows[: batch * count].unflatten(0, (batch, count))


def row_wise(layers: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`layers(x)` of linear layers and activations, `[B, N, C]` to `[B, N, C']`, with padded rows."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return layers(x)
    if x.device.type != "cpu" or not torch.is_grad_enabled():
        return layers(x)
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    count = x.shape[0] * x.shape[1]
    missing = padded_rows(count, dtype) - count
    if not missing:
        return layers(x)
    return to_tokens(layers(F.pad(x.flatten(0, 1), (0, 0, 0, missing))), x)


def linear_of_tokens(x: Tensor, weight: Tensor, bias: Optional[Tensor]) -> Tensor:
    """A linear layer on tokens, `[B, N, C]` to `[B, N, C']`, with padded rows; TorchScript takes it too."""
    if torch.jit.is_scripting():
        return F.linear(x, weight, bias)
    return row_wise(partial(F.linear, weight=weight, bias=bias), x)
