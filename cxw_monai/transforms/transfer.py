"""Copies from the processor's memory to a device that nobody waits for."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["sent"]


def sent(value: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device, copied there beside the computation.

    CUDA copies without making the processor wait from page-locked memory only, so a tensor in other memory is brought
    there first. What is on the device already comes back as it is.

    Args:
        value: of any device.
        device: where it is needed.
    """
    if device.type == "cuda" and value.device.type == "cpu" and not value.is_pinned():
        value = value.pin_memory()
    return value.to(device, non_blocking=True)
