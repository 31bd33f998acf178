"""The start of a distributed run's process."""

from __future__ import annotations

import torch
import torch.distributed as dist

__all__ = ["join_processes"]


def join_processes(device: torch.device) -> bool:
    """Join the processes that torchrun started, by NCCL on CUDA and gloo elsewhere; once.

    Args:
        device: this process's.

    Returns:
        True, for what must come after it.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return True
