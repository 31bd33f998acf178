"""Checks of several processes: on one device, on several, and with split parameters."""

from __future__ import annotations

import datetime
import os
import queue
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from benchmarks.speed.processes import process_context
from cxw_monai.networks import WorldModel, WorldModelInputs
from cxw_monai.training import parameter_groups
from cxw_monai.training.sharding import shard_world_model, whole

from .outcome import CheckFailedError, NotApplicableError, compared
from .parts import inputs_of, loader_batch, placed, small_model

__all__ = ["gloo", "nccl", "sharded", "stepped"]

SECONDS = 240
COUNT = 4
TOLERANCE = 1e-6


def gloo(device: torch.device) -> str:
    """Two processes on one device, gradients averaged by gloo, end where one process with the whole batch does."""
    return _compare(device, {"backend": "gloo", "devices": [str(device)] * 2})


def nccl(device: torch.device) -> str:
    """The same by NCCL on two GPUs."""
    if device.type != "cuda" or torch.cuda.device_count() < 2:
        raise NotApplicableError(f"needs two GPUs, there are {torch.cuda.device_count()}")
    return _compare(device, {"backend": "nccl", "devices": ["cuda:0", "cuda:1"]})


def sharded(device: torch.device) -> str:
    """Split parameters (FSDP2): two processes on CPUs or on two GPUs, one on one GPU."""
    count = 2 if device.type == "cpu" else min(2, torch.cuda.device_count())
    devices = ["cpu"] * count if device.type == "cpu" else [f"cuda:{number}" for number in range(count)]
    backend = "gloo" if device.type == "cpu" else "nccl"
    remark = _compare(device, {"backend": backend, "devices": devices, "sharded": True})
    return f"{remark}, {count} process{'es' * (count > 1)}"


def _compare(device: torch.device, settings: Mapping[str, Any]) -> str:
    expected = stepped(placed(small_model().double(), device), _inputs(0, 1, device))
    return compared(_run(settings), whole(expected), TOLERANCE)


def _inputs(rank: int, count: int, device: torch.device) -> WorldModelInputs:
    """A process's part of the batch, in float64."""
    inputs = inputs_of(small_model(), loader_batch(COUNT))
    share = COUNT // count
    own = {name: value[rank * share : (rank + 1) * share] for name, value in vars(inputs).items() if value is not None}
    return WorldModelInputs(**own).to(device, torch.float64)


def stepped(network: nn.Module, inputs: WorldModelInputs) -> dict[str, Tensor]:
    """All weights after two steps of AdamW and moving average."""
    optimizer = torch.optim.AdamW(parameter_groups(network), lr=1e-3, fused=True)
    model: WorldModel = getattr(network, "module", network)
    for _ in range(2):
        optimizer.zero_grad()
        network(inputs).loss.backward()
        optimizer.step()
        model.update_target(0.9)
    return {name: value.detach().cpu() for name, value in whole(model.state_dict()).items()}


def _run(settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """Weights that the first of the processes ends with."""
    context = process_context("benchmarks.device.processes")
    with TemporaryDirectory() as folder:
        own = {**settings, "store": str(Path(folder) / "store"), "result": str(Path(folder) / "weights.pt")}
        errors = context.Queue()
        count = len(settings["devices"])
        processes = [context.Process(target=_process, args=(own, rank, errors)) for rank in range(count)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(SECONDS)
        late = [process for process in processes if process.is_alive()]
        for process in late:
            process.kill()
            process.join()
        try:
            raise CheckFailedError(errors.get_nowait())
        except queue.Empty:
            pass
        codes = [process.exitcode for process in processes]
        if late or any(codes):
            reason = f"not done after {SECONDS} s" if late else f"ended with {codes}"
            raise CheckFailedError(f"the processes have {reason}")
        return torch.load(own["result"], weights_only=True)


def _process(settings: Mapping[str, Any], rank: int, errors: Any) -> None:
    try:
        torch.set_num_threads(1)
        device = torch.device(settings["devices"][rank])
        if device.type == "cuda":
            torch.cuda.set_device(device)
        count = len(settings["devices"])
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        dist.init_process_group(
            settings["backend"],
            f"file://{settings['store']}",
            rank=rank,
            world_size=count,
            timeout=datetime.timedelta(seconds=SECONDS),
        )
        model = placed(small_model().double(), device)
        network = shard_world_model(model) if settings.get("sharded") else nn.parallel.DistributedDataParallel(model)
        weights = stepped(network, _inputs(rank, count, device))
        if rank == 0:
            torch.save(weights, settings["result"])
        dist.destroy_process_group()
    except Exception as error:  # told by the parent
        errors.put(f"process {rank}: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
        raise SystemExit(1) from error
