"""Tensors with what they are, in one safetensors file: small things that belong to a network, such as a decoder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from cxw_monai.io.files.atomic import atomic_file

from .files import CheckpointError, one_line

__all__ = ["read_tensors", "write_tensors"]

_ABOUT = "about"
_REMEDY = "delete it, and it is made again"


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write tensors and plain values about them.

    Args:
        path: of the file; its folder is made.
        tensors: by name.
        about: what JSON can hold.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with atomic_file(path) as stream:
        stream.write(save(plain, {_ABOUT: json.dumps(dict(about))}))


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `write_tensors` wrote: tensors and what is said about them.

    Raises:
        CheckpointError: the file is missing, damaged, or another one's.
    """
    if not Path(path).is_file():
        raise CheckpointError(path, "no such file", "check the path")
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})[_ABOUT])
            return {name: file.get_tensor(name) for name in file.keys()}, dict(about)  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError, TypeError, OSError) as error:
        raise CheckpointError(path, f"not what was written there ({one_line(error)})", _REMEDY) from error
