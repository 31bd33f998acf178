"""The processes of a distributed run: how many there are, which one writes, what they share.

`ignite.distributed` is not used for it: its `broadcast` rounds a number to float32 and takes no None, its `all_gather`
of an object is no list in one process, its first call may be a collective one (all host names, without `LOCAL_RANK`)
and it changes the environment under Slurm; all of it is a line of `torch.distributed` each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

__all__ = [
    "any_process",
    "barrier",
    "dist_size",
    "from_main_process",
    "gathered",
    "is_main_process",
    "join_processes",
    "rank",
    "unwrapped",
]


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


def dist_size() -> int:
    """Number of processes of this run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist_size() > 1 else 0


def is_main_process() -> bool:
    """Whether this process writes files."""
    return rank() == 0


def barrier() -> None:
    """Wait for all processes: a launcher ends all when one has ended, while the main one may still be writing."""
    if dist_size() > 1:
        dist.barrier()


def gathered(state: dict[str, Any]) -> list[dict[str, Any]]:
    """`state` of every process, in the order of ranks."""
    states: list[Any] = [state] * dist_size()
    if dist_size() > 1:
        dist.all_gather_object(states, state)
    return states


def from_main_process(value: Any) -> Any:
    """The main process's `value`, in every process."""
    values = [value]
    if dist_size() > 1:
        dist.broadcast_object_list(values, src=0)
    return values[0]


def any_process(flags: Sequence[bool], device: torch.device) -> list[bool]:
    """Which of the flags are set in any process; all processes get the same answer.

    Args:
        flags: equally many in every process.
        device: where the processes talk (NCCL needs the process's GPU).
    """
    if dist_size() == 1:
        return list(flags)
    shared = torch.tensor(flags, dtype=torch.int32, device=device)
    dist.all_reduce(shared, op=dist.ReduceOp.MAX)
    return shared.bool().tolist()


def unwrapped(network: nn.Module) -> Any:
    """The network inside a DistributedDataParallel wrapper, or itself."""
    return network.module if isinstance(network, DistributedDataParallel) else network
