"""Parameter groups for AdamW."""

from __future__ import annotations

from typing import Any

from torch import nn

__all__ = ["parameter_groups"]


def parameter_groups(network: nn.Module, decay_tokens: bool = False) -> list[dict[str, Any]]:
    """Trainable parameters in a group with weight decay and one without.

    Args:
        network: its parameters with `requires_grad` are taken; target encoder and position tables have none.
        decay_tokens: decay learnt tokens (`mask_token`, `flip_token`) too, as the released code does. Biases and other
            1-D parameters (layer norms) never decay.

    Returns:
        Two groups for `torch.optim.AdamW`; the key `decays` says where a weight-decay schedule applies.

    Raises:
        ValueError: when nothing is trainable.
    """
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            token = name.endswith("_token") and not decay_tokens
            groups[parameter.ndim > 1 and not token].append(parameter)
    if not any(groups.values()):
        raise ValueError("The network has no trainable parameters.")
    decayed, plain = groups[True], groups[False]
    return [{"params": decayed, "decays": True}, {"params": plain, "decays": False, "weight_decay": 0.0}]
