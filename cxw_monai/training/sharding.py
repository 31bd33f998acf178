"""Networks that are too large for one device: every process holds a part of each parameter (PyTorch's FSDP2).

Checkpoints don't show it: they hold whole tensors under the names of an unsharded run, so that a run may be resumed
sharded or not, and everything that reads `model.pt` or `encoder.pt` stays as it is. `torch.distributed.checkpoint` is
not used for it: its optimiser states go by parameter names, which older checkpoints do not have, reading one before the
first step makes one, and it is nine times slower on a network that is not sharded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from cxw_monai.networks import Block, WorldModel

__all__ = ["full", "load_model", "load_optimizer", "shard_world_model", "whole"]


def shard_world_model(network: WorldModel) -> WorldModel:
    """Split parameters, gradients and optimiser state of a world model over all processes.

    Blocks are gathered when they are computed, and freed after it; encoder, target encoder and predictor gather what
    they have besides. The process group must have been made, and the network be on its device.

    Returns:
        `network` itself; the optimiser must be made after this.
    """
    for part in (network.encoder, network.target_encoder, network.predictor):
        for module in part.modules():
            if isinstance(module, Block):
                fully_shard(module)
        fully_shard(part)
    register_fsdp_forward_method(network.target_encoder, "intermediate_layers")
    fully_shard(network)
    return network


def full(value: Tensor) -> Tensor:
    """A tensor that may be sharded, gathered on its device; all processes must call it alike."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def whole(state: Any) -> Any:
    """A state whose sharded tensors have been gathered into the CPU's memory; all processes must call it alike.

    Args:
        state: nested dictionaries and lists, such as a state dict; what isn't sharded comes back as it is.
    """
    if isinstance(state, DTensor):
        return full(state).cpu()
    if isinstance(state, dict):
        return {name: whole(value) for name, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(whole(value) for value in state)
    return state


def load_model(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """`load_state_dict` from whole tensors, which all processes hold alike, sharded or not."""
    own = network.state_dict()
    network.load_state_dict({name: _split_like(value, own.get(name)) for name, value in state.items()})


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """`load_state_dict` from whole tensors, which all processes hold alike, sharded or not."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    split = {
        number: {name: _split_like(value, parameters[number]) for name, value in values.items()}
        for number, values in state["state"].items()
        if number < len(parameters)
    }
    optimizer.load_state_dict({**state, "state": split})


def _split_like(value: Any, like: Tensor | None) -> Any:
    """A whole tensor, split as `like` is where that is sharded and of the same shape; else `value` itself."""
    if not isinstance(like, DTensor) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
