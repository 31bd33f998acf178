"""A transformer block's forward and backward pass on a CPU with little memory traffic.

Left to itself, autograd keeps what every operation made: the outputs of both layer norms, the activations before and
after GELU, the attention's probabilities. Here one function runs the whole block. It keeps four tensors and computes
the cheap ones again in the backward pass, works on slices of the batch that stay in the caches, and forms weight
gradients from operands that lie as the bfloat16 kernels want them. The numbers are those of the block's modules, up to
rounding; gradients of the weights are summed over slices in the weights' own precision.

`run_block` is the only function for others and says itself where it can't be used. Rows of the products are padded in
training (`rows.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .rows import padded_rows, to_tokens

__all__ = ["LAYER_NORM_EPS", "run_block"]

LAYER_NORM_EPS = 1e-6
SLICE_VALUES = 4 * 2**20
"""Values of the MLP's hidden layer in a slice of the batch."""
SCORE_VALUES = 2**20
"""Attention scores that are held at a time."""
FEW_ROWS = 640
"""Most rows of a bfloat16 product that sums over `WIDE` channels or more: threads share many such rows badly."""
WIDE = 1500
TRANSPOSED_WIDTH = 1000
"""Inputs of a linear layer above which its bfloat16 weight gradient may be formed from a transposed copy."""


class BlockWeights(NamedTuple):
    """Parameters of a pre-norm block in the order in which gradients are returned."""

    norm1_weight: Tensor
    norm1_bias: Tensor
    qkv_weight: Tensor
    qkv_bias: Tensor
    proj_weight: Tensor
    proj_bias: Tensor
    norm2_weight: Tensor
    norm2_bias: Tensor
    fc1_weight: Tensor
    fc1_bias: Tensor
    fc2_weight: Tensor
    fc2_bias: Tensor

    def to(self, dtype: torch.dtype) -> BlockWeights:
        """The same with those of the linear layers in `dtype`; layer norms stay as they are."""
        cast = {name: getattr(self, name).to(dtype) for name in self._fields if not name.startswith("norm")}
        return self._replace(**cast)


class _Kept(NamedTuple):
    """What the backward pass of a slice needs besides its input; rows R are the slice's tokens, padded."""

    qkv: Tensor  # [R, 3 * D]
    attended: Tensor  # [R, D]
    projected: Tensor  # [R, D], what the attention adds to the tokens
    hidden: Tensor  # [R, H], before GELU


def run_block(block: Any, x: Tensor) -> Tensor | None:
    """The output of a `layers.Block` as one function; None where the block must be the sum of its modules.

    That is elsewhere than on a CPU, for long sequences, for stochastic depth in training, for other dtypes than that of
    the weights and bfloat16, and where the block is compiled or traced.

    Args:
        block: a pre-norm block with exact GELU.
        x: tokens `[B, N, D]`.
    """
    dtype = _product_dtype(block, x)
    if dtype is None:
        return None
    layers = (block.norm1, block.attn.qkv, block.attn.proj, block.norm2, block.mlp.fc1, block.mlp.fc2)
    weights = BlockWeights(*(parameter for layer in layers for parameter in (layer.weight, layer.bias)))
    return lean_block(x, weights, block.attn.num_heads, dtype, block.checkpoint)


def _product_dtype(block: Any, x: Tensor) -> torch.dtype | None:
    """Dtype of the matrix products of a block that can be run here."""
    if x.device.type != "cpu" or x.shape[1] > block.attn.plain_tokens or x.dtype != block.norm1.weight.dtype:
        return None
    if block.norm1.eps != LAYER_NORM_EPS or block.norm2.eps != LAYER_NORM_EPS:
        return None
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return None
    if block.training and not isinstance(block.drop_path, nn.Identity):
        return None
    if not torch.is_autocast_enabled("cpu"):
        return x.dtype
    dtype = torch.get_autocast_dtype("cpu")
    return dtype if dtype == torch.bfloat16 and x.dtype == torch.float32 else None


def lean_block(x: Tensor, weights: BlockWeights, heads: int, dtype: torch.dtype, checkpoint: bool = False) -> Tensor:
    """A pre-norm transformer block with exact GELU: `[B, N, D]` to `[B, N, D]`, both in the dtype of the layer norms.

    Args:
        x: tokens on the CPU.
        weights: the block's parameters.
        heads: attention heads.
        dtype: that of the matrix products; `x`'s own, or bfloat16.
        checkpoint: keep nothing but the input and compute the forward pass again in the backward pass.
    """
    if torch.is_grad_enabled() and (x.requires_grad or any(w.requires_grad for w in weights)):
        return _LeanBlock.apply(x, heads, dtype, checkpoint, *weights)
    with torch.autocast("cpu", enabled=False):
        return _forward(x, weights.to(dtype), heads, None, pad=False)


class _LeanBlock(torch.autograd.Function):
    """`lean_block` with its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, heads: int, dtype: torch.dtype, checkpoint: bool, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(x, *weights)
        ctx.heads, ctx.dtype = heads, dtype
        ctx.kept = []
        with torch.autocast("cpu", enabled=False):
            return _forward(x, BlockWeights(*weights).to(dtype), heads, None if checkpoint else ctx.kept)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, *saved = ctx.saved_tensors
        gradients = _Gradients(ctx.needs_input_grad[4:], saved[0].dtype)
        with torch.autocast("cpu", enabled=False):
            weights = BlockWeights(*saved).to(ctx.dtype)
            result = torch.empty_like(x, memory_format=torch.contiguous_format)
            for part in reversed(list(_slices(x, weights))):
                kept = ctx.kept.pop() if ctx.kept else _inner(x[part], weights, ctx.heads)[0]
                result[part] = _backward(gradient[part], x[part], kept, weights, ctx.heads, gradients)
        return result, None, None, None, *gradients.sums


class _Gradients:
    """Gradients of the weights, summed over slices."""

    def __init__(self, needed: Sequence[bool], dtype: torch.dtype) -> None:
        self.needed, self.dtype = needed, dtype
        self.sums: list[Tensor | None] = [None] * len(BlockWeights._fields)

    def add(self, name: str, value: Tensor) -> None:
        index = BlockWeights._fields.index(name)
        if self.needed[index]:
            held = self.sums[index]
            self.sums[index] = value.to(self.dtype) if held is None else held.add_(value)

    def linear(self, name: str, gradient: Tensor, rows: Tensor) -> None:
        """Adds those of a linear layer: `[R, out]` at its output, `[R, in]` its input."""
        if self.needed[BlockWeights._fields.index(f"{name}_weight")]:
            self.add(f"{name}_weight", _weight_gradient(gradient, rows))
        self.add(f"{name}_bias", gradient.sum(dim=0))


def _to_rows(x: Tensor, dtype: torch.dtype, pad: bool = True) -> Tensor:
    """`[b, N, C]` as `[R, C]` in `dtype`; rows beyond the `b * N` tokens are zero."""
    flat = x.flatten(0, 1)
    count = flat.shape[0]
    rows = padded_rows(count, dtype) if pad else count
    if rows == count:
        return flat.to(dtype)
    padded = torch.empty(rows, flat.shape[1], dtype=dtype)
    padded[:count] = flat
    padded[count:] = 0
    return padded


def _slices(x: Tensor, weights: BlockWeights) -> Iterator[slice]:
    size = max(1, SLICE_VALUES // (x.shape[1] * weights.fc1_weight.shape[0]))
    return (slice(start, start + size) for start in range(0, x.shape[0], size))


def _forward(x: Tensor, weights: BlockWeights, heads: int, keep: list[_Kept] | None, pad: bool = True) -> Tensor:
    """The block; `keep` takes what its backward pass needs, a slice each."""
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    for part in _slices(x, weights):
        kept, middle = _inner(x[part], weights, heads, pad)
        rows = _by_rows(lambda hidden: _linear(F.gelu(hidden), weights.fc2_weight, weights.fc2_bias), kept.hidden)
        torch.add(middle, to_tokens(rows, middle), out=out[part])
        if keep is not None:
            keep.append(kept)
    return out


def _inner(x: Tensor, weights: BlockWeights, heads: int, pad: bool = True) -> tuple[_Kept, Tensor]:
    """All of a slice's forward pass up to GELU, and the tokens `[b, N, D]` after the attention's residual."""
    dtype = weights.qkv_weight.dtype
    normed = _to_rows(_norm(x, weights.norm1_weight, weights.norm1_bias)[0], dtype, pad)
    qkv = _linear(normed, weights.qkv_weight, weights.qkv_bias)
    del normed
    attended = _to_rows(_attend(to_tokens(qkv, x), heads), dtype, pad)
    projected = _linear(attended, weights.proj_weight, weights.proj_bias)
    middle = x + to_tokens(projected, x)
    normed = _to_rows(_norm(middle, weights.norm2_weight, weights.norm2_bias)[0], dtype, pad)
    return _Kept(qkv, attended, projected, _linear(normed, weights.fc1_weight, weights.fc1_bias)), middle


def _backward(
    gradient: Tensor, x: Tensor, kept: _Kept, weights: BlockWeights, heads: int, gradients: _Gradients
) -> Tensor:
    """Gradient at a slice's input; those of the weights are added to `gradients`."""
    qkv, attended, projected, hidden = kept
    dtype = hidden.dtype
    middle = x + to_tokens(projected, x)
    at_out = _to_rows(gradient, dtype)
    gradients.linear("fc2", at_out, F.gelu(hidden))
    at_hidden = torch.ops.aten.gelu_backward(at_out @ weights.fc2_weight, hidden)
    normed = _norm(middle, weights.norm2_weight, weights.norm2_bias)
    gradients.linear("fc1", at_hidden, _to_rows(normed[0], dtype))
    at_normed = _by_rows(lambda rows: rows @ weights.fc1_weight, at_hidden)
    at_middle = _norm_backward(at_normed, middle, normed, "norm2", weights, gradients)
    del at_hidden, at_normed, normed
    at_middle += gradient
    at_proj = _to_rows(at_middle, dtype)
    gradients.linear("proj", at_proj, attended)
    at_qkv = _attend_backward(to_tokens(at_proj @ weights.proj_weight, x), qkv, heads)
    normed = _norm(x, weights.norm1_weight, weights.norm1_bias)
    gradients.linear("qkv", at_qkv, _to_rows(normed[0], dtype))
    at_normed = _by_rows(lambda rows: rows @ weights.qkv_weight, at_qkv)
    at_x = _norm_backward(at_normed, x, normed, "norm1", weights, gradients)
    return at_x.add_(at_middle)


def _by_rows(product: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`product(x)` of `[R, C]`, some rows at a time where that is faster."""
    count, width = x.shape
    if x.dtype != torch.bfloat16 or width < WIDE or count <= FEW_ROWS or torch.get_num_threads() == 1:
        return product(x)
    parts = -(-count // FEW_ROWS)
    return torch.cat([product(rows) for rows in x.split(padded_rows(-(-count // parts), x.dtype))])


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    if x.dtype == torch.bfloat16 and _adds_bias_in_product():
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return F.linear(x, weight, bias)


@cache
def _adds_bias_in_product() -> bool:
    """Whether the bfloat16 linear layer of PyTorch's compiler, which adds the bias within the product, works here.

    It is there on processors that cannot run it too, so it is tried.
    """
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    x, weight, bias = (torch.zeros(shape, dtype=torch.bfloat16, device="cpu") for shape in ((2, 4), (3, 4), (3,)))
    try:
        torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    except RuntimeError:  # oneDNN has no such product for this processor; nothing else can be wrong with these
        return False
    return True


def _norm(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Layer norm with its means and reciprocal deviations."""
    return torch.native_layer_norm(x, x.shape[-1:], weight, bias, LAYER_NORM_EPS)


def _norm_backward(
    gradient: Tensor,
    x: Tensor,
    normed: tuple[Tensor, Tensor, Tensor],
    name: str,
    weights: BlockWeights,
    gradients: _Gradients,
) -> Tensor:
    """Gradient at `x` `[b, N, D]` from the rows `[R, D]` at the layer norm's output."""
    weight, bias = getattr(weights, f"{name}_weight"), getattr(weights, f"{name}_bias")
    at_x, at_weight, at_bias = torch.ops.aten.native_layer_norm_backward(
        to_tokens(gradient, x).to(x.dtype), x, x.shape[-1:], normed[1], normed[2], weight, bias, [True, True, True]
    )
    gradients.add(f"{name}_weight", at_weight)
    gradients.add(f"{name}_bias", at_bias)
    return at_x


def _weight_gradient(gradient: Tensor, tokens: Tensor) -> Tensor:
    """`gradient^T tokens` of `[M, out]` and `[M, in]`.

    In bfloat16 the transposed operand is copied first where it is the narrow one beside a wide one: elsewhere the
    copy costs what the product gains.
    """
    if gradient.dtype == torch.bfloat16 and gradient.shape[1] < tokens.shape[1] > TRANSPOSED_WIDTH:
        return gradient.t().contiguous() @ tokens
    return gradient.t() @ tokens


def _score_slices(qkv: Tensor, heads: int) -> Iterator[slice]:
    size = max(1, SCORE_VALUES // (heads * qkv.shape[1] ** 2))
    return (slice(start, start + size) for start in range(0, qkv.shape[0], size))


def _by_head(x: Tensor, heads: int) -> Tensor:
    """`[b, N, D]` as `[b, heads, N, D / heads]`, a view."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _scaled_heads(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries (over the root of their channels), keys and values, `[b * heads, N, head_dim]` each."""
    parts = qkv.view(*qkv.shape[:2], 3, heads, -1).permute(2, 0, 3, 1, 4)  # [3, b, heads, N, head_dim]
    query, key, value = parts.reshape(3, -1, qkv.shape[1], parts.shape[-1])
    return query * query.shape[-1] ** -0.5, key, value


def _attend(qkv: Tensor, heads: int) -> Tensor:
    """Self-attention: `[b, N, 3 * D]` to `[b, N, D]`; the fused kernel is the faster one of this pass alone."""
    query, key, value = (_by_head(part, heads) for part in qkv.chunk(3, -1))
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


def _attend_backward(gradient: Tensor, qkv_rows: Tensor, heads: int) -> Tensor:
    """Gradient at `qkv_rows` `[R, 3 * D]` from that of the attention's output `[b, N, D]`."""
    rows = torch.empty_like(qkv_rows)
    rows[gradient.shape[0] * gradient.shape[1] :] = 0
    qkv, out = to_tokens(qkv_rows, gradient), to_tokens(rows, gradient)
    for part in _score_slices(qkv, heads):
        query, key, value = _scaled_heads(qkv[part], heads)
        at_out = _by_head(gradient[part], heads).reshape(query.shape)
        weights = torch.softmax(query @ key.transpose(1, 2), dim=-1)
        at_scores = torch._softmax_backward_data(at_out @ value.transpose(1, 2), weights, -1, weights.dtype)
        found = (
            (at_scores @ key).mul_(query.shape[-1] ** -0.5),
            at_scores.transpose(1, 2) @ query,
            weights.transpose(1, 2) @ at_out,
        )
        for place, value in zip(out[part].chunk(3, -1), found, strict=True):
            by_head = _by_head(place, heads)
            by_head.copy_(value.view(by_head.shape))
    return rows
