"""Token masks of the world model: which tokens the context encoder sees and which ones the predictor must fill in.

The multi-block strategy is that of I-JEPA (arXiv 2301.08243, section 3) with all target blocks of a sample merged into
one set, as in CheXWorld (arXiv 2504.13820, supplement B). ``block`` and ``random`` are the baselines of I-JEPA's
table 6. Two things differ from the released code: by default truncation keeps a random subset, so that no row of the
crop is starved, and a token is never both context and target.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from .seeding import between

__all__ = ["TokenMaskSampler", "TokenMasks"]

_DEFAULTS: dict[str, dict[str, Any]] = {
    "multiblock": {
        "num_targets": 4,
        "target_scale": (0.15, 0.2),
        "target_aspect": (0.75, 1.5),
        "context_scale": (0.75, 1.0),
        "truncation": "random",
    },
    "block": {"target_scale": (0.6, 0.6), "target_aspect": (0.75, 1.5)},
    "random": {"mask_ratio": 0.6},
}
_TRUNCATIONS = ("random", "first")
_TRIES_PER_BLOCK = 20


@dataclass
class TokenMasks:
    """Masks of one batch of world view pairs.

    Args:
        context: int64 ``[B, Kc]``, visible tokens of view 1, row-major indices, ascending and unique in a row.
        target: int64 ``[B, Kt]``, tokens of view 1 to predict; none of them is in the context.
        permutation: int64 ``[B]``: sample ``i`` of view 2 uses the masks of row ``permutation[i]``.
    """

    context: Tensor
    target: Tensor
    permutation: Tensor


def _block_size(tokens: int, aspect: float) -> tuple[int, int]:
    """Height and width of a block of about ``tokens`` tokens with height over width of ``aspect``."""
    return round(math.sqrt(tokens * aspect)), round(math.sqrt(tokens / aspect))


def _possible_sizes(
    grid: tuple[int, int], scale: tuple[float, float], aspect: tuple[float, float]
) -> set[tuple[int, int]]:
    """All sizes that a block can take: one aspect from each interval on which the rounding is constant."""
    area = grid[0] * grid[1]
    ends = {*aspect, *(math.exp(math.log(value)) for value in aspect)}  # as drawn, to the last bit
    sizes: set[tuple[int, int]] = set()
    for tokens in range(int(area * scale[0]), int(area * scale[1]) + 1):
        steps = [(side + 0.5) ** 2 for side in range(max(grid) + 1)]
        bends = [step / max(tokens, 1) for step in steps] + [tokens / step for step in steps]
        points = sorted({*ends, *(bend for bend in bends if aspect[0] < bend < aspect[1])})
        between = [math.sqrt(low * high) for low, high in itertools.pairwise(points)]
        sizes.update(_block_size(tokens, value) for value in [*ends, *between])
    return sizes


class TokenMaskSampler:
    """Draws the token masks of a batch.

    Strategies:

    - ``multiblock``: the target is the union of ``num_targets`` blocks of one size at uniform positions, the context a
      large block at a uniform position minus the targets. A context that keeps ``min_keep`` tokens or fewer is drawn
      again; after every 20 failures one more target block may be overlapped, and what the context then shows is no
      target any more. All samples of a batch are cut to the smallest count (``truncation``).
    - ``block``: the target is one block, the context all the rest.
    - ``random``: the target is a random share ``mask_ratio`` of the tokens, the context all the rest.

    The sizes of the blocks are the same for the whole batch and a pure function of the step (on all ranks alike);
    everything else comes from the sampler's own generator, so ranks should differ in ``seed``. Settings that a
    strategy does not use must stay None; None elsewhere means the default.

    Args:
        grid: tokens per view, rows and columns; need not be square.
        strategy: "multiblock", "block" or "random".
        num_targets: target blocks per sample (multiblock: 4).
        target_scale: range of a target block's share of the grid (multiblock: (0.15, 0.2), block: (0.6, 0.6)).
        target_aspect: range of a target block's height over width, log-uniform (multiblock and block: (0.75, 1.5)).
        context_scale: range of the context block's share of the grid, in the shape of the grid (multiblock:
            (0.75, 1.0)).
        min_keep: a context has more tokens than this.
        multiple: numbers of context and target tokens are cut down to multiples of this, where as many are left (and
            more than `min_keep` of a context); with few different numbers, fewer kernels are compiled.
        truncation: "random" keeps a random subset, unbiased; "first" keeps the first indices, which starves the lower
            rows, as the released code does (multiblock: "random").
        mask_ratio: share of target tokens (random: 0.6).
        seed: of the generator.

    Raises:
        ValueError: for a setting out of range or without use in the strategy, and for a grid on which the settings
            cannot work.
    """

    def __init__(
        self,
        grid: tuple[int, int] = (14, 14),
        strategy: str = "multiblock",
        num_targets: int | None = None,
        target_scale: tuple[float, float] | None = None,
        target_aspect: tuple[float, float] | None = None,
        context_scale: tuple[float, float] | None = None,
        min_keep: int = 10,
        multiple: int = 1,
        truncation: str | None = None,
        mask_ratio: float | None = None,
        seed: int = 0,
    ) -> None:
        if strategy not in _DEFAULTS:
            raise ValueError(f"strategy must be one of {sorted(_DEFAULTS)}, got {strategy!r}.")
        self.grid, self.strategy, self.min_keep = cast("tuple[int, int]", tuple(grid)), strategy, min_keep
        self.multiple = multiple
        self.num_targets = self._resolved("num_targets", num_targets)
        self.target_scale = self._resolved("target_scale", target_scale)
        self.target_aspect = self._resolved("target_aspect", target_aspect)
        self.context_scale = self._resolved("context_scale", context_scale)
        self.truncation = self._resolved("truncation", truncation)
        self.mask_ratio = self._resolved("mask_ratio", mask_ratio)
        self._check_settings()
        self._check_grid()
        self.step = 0
        self._generator = torch.Generator().manual_seed(seed)

    def _resolved(self, name: str, value: Any) -> Any:
        """A setting, or its default; None where the strategy has no use for it."""
        if value is None:
            return _DEFAULTS[self.strategy].get(name)
        if name not in _DEFAULTS[self.strategy]:
            raise ValueError(f"{name} has no use in strategy {self.strategy!r}: leave it None, got {value!r}.")
        return tuple(value) if isinstance(value, list) else value

    def _check_settings(self) -> None:
        if len(self.grid) != 2 or min(self.grid) < 1:
            raise ValueError(f"grid must be two positive numbers of tokens (rows, columns), got {self.grid}.")
        if self.min_keep < 0:
            raise ValueError(f"min_keep must be at least 0, got {self.min_keep}.")
        if self.multiple < 1:
            raise ValueError(f"multiple must be at least 1, got {self.multiple}.")
        if self.num_targets is not None and self.num_targets < 1:
            raise ValueError(f"num_targets must be at least 1, got {self.num_targets}.")
        for name, highest in (("target_scale", 1), ("context_scale", 1), ("target_aspect", math.inf)):
            bounds = getattr(self, name)
            if bounds is not None and (len(bounds) != 2 or not 0 < bounds[0] <= bounds[1] <= highest):
                raise ValueError(f"{name} must be (low, high) with 0 < low <= high <= {highest}, got {bounds}.")
        if self.truncation is not None and self.truncation not in _TRUNCATIONS:
            raise ValueError(f"truncation must be one of {_TRUNCATIONS}, got {self.truncation!r}.")
        if self.mask_ratio is not None and not 0 < self.mask_ratio < 1:
            raise ValueError(f"mask_ratio must lie strictly between 0 and 1, got {self.mask_ratio}.")

    def _check_grid(self) -> None:
        """Raises where some step could draw a block that does not fit or leaves too small a context."""
        (rows, columns), area = self.grid, self.grid[0] * self.grid[1]
        if self.strategy == "random":
            masked = self._masked_tokens()
            if masked < 1:
                raise ValueError(f"mask_ratio {self.mask_ratio} masks no token of grid {self.grid}: raise it.")
            self._check_context(area - masked, "lower mask_ratio or min_keep, or use a larger grid")
            return
        targets = _possible_sizes(self.grid, self.target_scale, self.target_aspect)
        for height, width in sorted(targets):
            if not (1 <= height <= rows and 1 <= width <= columns):
                raise ValueError(
                    f"target_scale {self.target_scale} with target_aspect {self.target_aspect} can draw a block of "
                    f"{height}x{width} tokens, which does not fit in grid {self.grid}: narrow target_aspect, change "
                    "target_scale or use a larger grid."
                )
        contexts = {self.grid}
        if self.strategy == "multiblock":
            contexts = _possible_sizes(self.grid, self.context_scale, (rows / columns, rows / columns))
        left = min(ch * cw - min(th, ch) * min(tw, cw) for ch, cw in contexts for th, tw in targets)
        wider = "lower target_scale or min_keep" + (", raise context_scale" if self.strategy == "multiblock" else "")
        self._check_context(left, f"{wider}, or use a larger grid")

    def _check_context(self, tokens: int, remedy: str) -> None:
        if tokens <= self.min_keep:
            raise ValueError(
                f"Strategy {self.strategy!r} can leave {max(tokens, 0)} context tokens on grid {self.grid}, but a "
                f"context needs more than min_keep={self.min_keep}: {remedy}."
            )

    def _masked_tokens(self) -> int:
        return round(self.mask_ratio * self.grid[0] * self.grid[1])

    def block_sizes(self, step: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Sizes of the target and the context block at a step: a pure function of the step and the settings.

        A generator seeded with the step gives four uniform numbers: scale and aspect of the target block, then scale
        and aspect of the context block (whose aspect is fixed to the shape of the grid).

        Args:
            step: number of batches drawn before, >= 0.

        Returns:
            ``((target rows, target columns), (context rows, context columns))`` in tokens.

        Raises:
            ValueError: if the strategy has no blocks or the step is negative.
        """
        if self.strategy == "random":
            raise ValueError("strategy 'random' has no blocks, so no block_sizes.")
        if step < 0:
            raise ValueError(f"step must be at least 0, got {step}.")
        generator = torch.Generator().manual_seed(step)
        target_share, target_shape, context_share, _ = torch.rand(4, generator=generator).tolist()
        low, high = (math.log(bound) for bound in self.target_aspect)
        target = self._size(self.target_scale, target_share, math.exp(low + target_shape * (high - low)))
        if self.strategy == "block":
            return target, self.grid
        return target, self._size(self.context_scale, context_share, self.grid[0] / self.grid[1])

    def _size(self, scale: tuple[float, float], share: float, aspect: float) -> tuple[int, int]:
        rows, columns = self.grid
        height, width = _block_size(int(rows * columns * between(scale, share)), aspect)
        return min(height, rows), min(width, columns)

    def sample(self, batch_size: int) -> TokenMasks:
        """Draws the masks of the next batch and advances the step.

        Args:
            batch_size: number of world view pairs, B >= 1.

        Returns:
            Masks on the CPU; all rows have the same numbers of tokens.

        Raises:
            ValueError: if ``batch_size`` is below 1.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
        if self.strategy == "random":
            context, target = self._random_sets(batch_size)
        else:
            context, target = self._block_sets(batch_size)
        scores = None
        if self.truncation == "random" or (self.truncation is None and self.multiple > 1):
            # one field serves both sets, as they are disjoint
            scores = torch.rand(context.shape, generator=self._generator)
        masks = TokenMasks(
            context=self._cut_alike(context, scores, self.min_keep + 1),
            target=self._cut_alike(target, scores, 1),
            permutation=torch.randperm(batch_size, generator=self._generator),
        )
        self.step += 1
        return masks

    def _cut_alike(self, members: Tensor, scores: Tensor | None, least: int) -> Tensor:
        """Indices `[B, K]` of the sets `[B, N]`, cut to a common number, a multiple where that is `least` or more."""
        common = int(members.sum(dim=1).min())
        whole = common - common % self.multiple
        return _keep(members, scores, whole if whole >= least else common)

    def _random_sets(self, batch_size: int) -> tuple[Tensor, Tensor]:
        scores = torch.rand(batch_size, self.grid[0] * self.grid[1], generator=self._generator)
        chosen = scores.topk(self._masked_tokens(), dim=1, sorted=False).indices
        target = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, chosen, True)  # [B, N]
        return ~target, target

    def _block_sets(self, batch_size: int) -> tuple[Tensor, Tensor]:
        target_size, context_size = self.block_sizes(self.step)
        blocks = self._place(batch_size, self.num_targets or 1, target_size)
        target = _union(blocks)
        if self.strategy == "block":
            return ~target, target
        context = self._place_contexts(blocks, context_size)
        return context, target & ~context

    def _place(self, batch_size: int, count: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Blocks at uniform positions: indicators of their rows and columns, float ``[batch_size, count, extent]``."""
        spans = []
        for length, extent in zip(size, self.grid, strict=True):
            start = torch.randint(extent - length + 1, (batch_size, count, 1), generator=self._generator)
            place = torch.arange(extent)
            spans.append(((place >= start) & (place < start + length)).float())
        return spans[0], spans[1]

    def _place_contexts(self, blocks: tuple[Tensor, Tensor], size: tuple[int, int]) -> Tensor:
        """Context blocks minus the target blocks, each with more than ``min_keep`` tokens: ``[B, N]`` bool."""
        rows, columns = blocks
        context = torch.zeros(len(rows), self.grid[0] * self.grid[1], dtype=torch.bool)
        pending = torch.arange(len(rows))
        attempt = 0
        while len(pending) > 0:  # ends: the constructor has checked that avoiding the first block alone always works
            avoided = max(1, self.num_targets - attempt // _TRIES_PER_BLOCK)
            taken = _union((rows[pending, :avoided], columns[pending, :avoided]))
            candidate = _union(self._place(len(pending), 1, size)) & ~taken
            good = candidate.sum(dim=1) > self.min_keep
            context[pending[good]] = candidate[good]
            pending = pending[~good]
            attempt += 1
        return context

    def state_dict(self) -> dict[str, Any]:
        """State for a checkpoint: ``generator`` (uint8 tensor) and ``step`` (int); safe for ``weights_only=True``."""
        return {"generator": self._generator.get_state(), "step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores :meth:`state_dict`, so that the next batches are those that would have followed.

        Args:
            state: as returned by :meth:`state_dict` of a sampler with the same settings.

        Raises:
            ValueError: if a key is missing or unknown, or the step is not a number of batches.
        """
        if set(state) != {"generator", "step"}:
            raise ValueError(f"state must have the keys 'generator' and 'step', got {sorted(state)}.")
        if not isinstance(state["step"], int) or state["step"] < 0:
            raise ValueError(f"state: step must be an int of at least 0, got {state['step']!r}.")
        self._generator.set_state(state["generator"].cpu())
        self.step = state["step"]


def _union(blocks: tuple[Tensor, Tensor]) -> Tensor:
    """Tokens under any of a sample's blocks (row and column indicators ``[B, T, extent]``): ``[B, N]`` bool."""
    rows, columns = blocks
    return (rows.transpose(1, 2) @ columns > 0.5).flatten(1)  # the product counts the blocks over a token


def _keep(members: Tensor, scores: Tensor | None, keep: int) -> Tensor:
    """Cuts the sets ``[B, N]`` (bool) to K = ``keep`` members, which all have, and returns their indices ``[B, K]``.

    With scores in [0, 1), ``[B, N]``, the K members of the highest score stay, else the first K.
    """
    if keep == int(members.sum(dim=1).max()):
        kept = members
    elif scores is None:
        kept = members & (members.cumsum(dim=1) <= keep)
    else:
        chosen = scores.masked_fill(~members, -1.0).topk(keep, dim=1, sorted=False).indices
        kept = torch.zeros_like(members).scatter_(1, chosen, True)
    return kept.nonzero()[:, 1].view(-1, keep)
