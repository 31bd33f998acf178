"""How a check ends: it passes with a remark, fails, or has nothing to check here."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["CheckFailedError", "NotApplicableError", "compared", "require"]


class CheckFailedError(Exception):
    """What a check found is wrong."""


class NotApplicableError(Exception):
    """A check that this machine has no use for; the message says why."""


def require(fact: bool, message: str) -> None:
    """Fail the check where `fact` is false."""
    if not fact:
        raise CheckFailedError(message)


def compared(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], tolerance: float, relative: bool = False
) -> str:
    """Hold tensors of a device against those of the CPU.

    Args:
        found: by name, of any device.
        expected: the same names.
        tolerance: for the largest absolute difference, or with `relative` for the norm of the difference as a share of
            the norm of what is expected.

    Returns:
        The largest difference, for the table.

    Raises:
        CheckFailedError: one is too large, not finite, or has another shape or dtype than expected.
    """
    require(found.keys() == expected.keys() and len(found) > 0, f"found {sorted(found)}, expected {sorted(expected)}")
    worst, name_of_worst = -1.0, ""
    for name, value in found.items():
        want = expected[name]
        require(
            value.shape == want.shape and (relative or value.dtype == want.dtype),
            f"{name} is {value.dtype} {tuple(value.shape)}, expected {want.dtype} {tuple(want.shape)}",
        )
        ours, theirs = value.detach().cpu().double(), want.detach().cpu().double()
        difference = (ours - theirs).abs().max() if ours.numel() else torch.zeros(())
        if relative:
            difference = (ours - theirs).norm() / theirs.norm().clamp(min=1e-12)
        require(bool(torch.isfinite(difference)), f"{name} is not finite")
        if difference.item() > worst:
            worst, name_of_worst = difference.item(), name
    text = f"{'relative ' if relative else ''}difference {worst:.1e} ({name_of_worst}), tolerance {tolerance:.0e}"
    require(worst <= tolerance, text)
    return text
