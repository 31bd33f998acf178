"""Parameter groups for AdamW."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

__all__ = ["layer_decay_groups", "parameter_groups"]

_BLOCK = re.compile(r"encoder\.blocks\.(\d+)\.")
_STEM = ("encoder.patch_embed.", "encoder.pos_embed")


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


def layer_decay_groups(network: Any, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    """Trainable parameters by depth, the learning rate falling towards the encoder's stem.

    With n = depth + 1, the encoder's stem and position table have number 0, its block k has k + 1, and everything else
    (final norm, decoder) has n; a parameter's learning rate is multiplied by `layer_decay ** (n - number)`. Source:
    BEiT (arXiv 2106.08254), which the fine-tuning of CheXWorld follows.

    Args:
        network: a module whose `encoder` has `blocks`.
        layer_decay: factor from one layer to the one below it, in (0, 1]; 1 for one learning rate.

    Returns:
        Groups for `torch.optim.AdamW`, two a number: with weight decay, and without it (biases and other 1-D
        parameters). `lr_scale` holds the multiplier, which a schedule must apply. A ViT-B with all of it trainable
        gives 28.

    Raises:
        ValueError: for a `layer_decay` outside (0, 1], or when nothing is trainable.
    """
    if not 0 < layer_decay <= 1:
        raise ValueError(f"layer_decay must lie in (0, 1], got {layer_decay}.")
    last = len(network.encoder.blocks) + 1
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        block = _BLOCK.match(name)
        number = int(block[1]) + 1 if block else 0 if name.startswith(_STEM) else last
        decays = parameter.ndim > 1
        settings = {"params": [], "decays": decays, "lr_scale": layer_decay ** (last - number)}
        group = groups.setdefault((number, decays), settings if decays else {**settings, "weight_decay": 0.0})
        group["params"].append(parameter)
    if not groups:
        raise ValueError("The network has no trainable parameters.")
    return [groups[key] for key in sorted(groups)]
