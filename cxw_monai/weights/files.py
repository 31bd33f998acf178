"""The one way of weights from a file into a network: nothing is unpickled, and nothing gets in unchecked.

1. `read_content` reads the file. It admits tensors and plain containers only, and no file that unpacks to more.
2. `state_dict_of` takes the tensors out of it. Each is what it claims to be: whole, of a floating type, finite.
3. `build` makes the network of its settings without memory first and compares names and shapes; only a network that the
   tensors fit is made. `load_state` does the same for a network that is there already.

Whatever is wrong is a `CheckpointError`.
"""

from __future__ import annotations

import argparse
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import torch
from safetensors import safe_open
from torch import Tensor, nn

from cxw_monai.io.files.printable import printable
from cxw_monai.networks import RadiographViT
from cxw_monai.networks.positions import table_grid

__all__ = [
    "CheckpointError",
    "build",
    "finite_outputs",
    "load_state",
    "one_line",
    "read_content",
    "state_dict_of",
]

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_COUNTERS = "num_batches_tracked"  # the one kind of whole numbers in the networks
_LONGEST = 80  # characters of a name out of a file
_FETCH = "fetch or save it again"
_GIVE = "give model.pt, encoder.pt or a .safetensors of a run, or a bundle's name, folder or zip"
_NO_WEIGHTS = "not a readable checkpoint (neither a torch checkpoint nor safetensors)"
_OTHER_RUN = "take the weights of another epoch or run"
_SETTINGS = "give the settings and the weights of one model"

Module = TypeVar("Module", bound=nn.Module)


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or does not fit; names the file, the reason and the remedy."""

    def __init__(self, path: str | Path, reason: str, remedy: str) -> None:
        reason = printable(reason, 500)
        super().__init__(f"{printable(path)}: {reason}; {remedy}")
        self.path, self.reason, self.remedy = Path(path), reason, remedy


def one_line(error: Exception) -> str:
    """An error's kind and message in one line."""
    text = printable(" ".join(str(error).split()).rstrip("."), 300)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def read_content(path: str | Path) -> dict[str, Any]:
    """Read a `.safetensors` file or a torch checkpoint without executing anything from it.

    Args:
        path: file to read.

    Returns:
        The stored object: a dictionary of tensors, or a dictionary that holds one (key `model`, `state_dict`).

    Raises:
        CheckpointError: when the file is missing, broken, not a dictionary, or holds objects other than tensors, plain
            containers and `argparse.Namespace`.
    """
    path = Path(path)
    if not path.is_file():
        of_a_bundle = path.parent.name == "models" and (path.parent.parent / "configs").is_dir()
        remedy = "this bundle holds no weights: name those of a training (--ckpt RUN/model.pt)"
        raise CheckpointError(path, "no such file", remedy if of_a_bundle else "check the path")
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except Exception as error:  # its own, and what unknown types and odd headers provoke
            reason = f"not a safetensors file ({one_line(error)})"
            raise CheckpointError(path, reason, "fetch or convert it again") from error
    try:
        with path.open("rb") as stream, torch.serialization.safe_globals([argparse.Namespace]):
            _refuse_inflated(stream, path)
            loaded = torch.load(stream, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # a damaged pickle raises anything from UnicodeDecodeError to AssertionError
        raise _unreadable(path, error) from error
    if not isinstance(loaded, Mapping):
        raise CheckpointError(path, f"holds a {type(loaded).__name__}", "a dictionary of tensors is expected")
    return dict(loaded)


def _refuse_inflated(stream: BinaryIO, path: Path) -> None:
    """Torch stores parts uncompressed, one after the other: a zip of more bytes than its file is made to fill memory.

    Raises:
        CheckpointError: it is such a zip.
    """
    try:
        with zipfile.ZipFile(stream) as content:
            size = sum(member.file_size for member in content.infolist())
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        size = 0  # none, or damaged: torch reports it
    whole = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    if size > whole:
        reason = f"not a readable checkpoint ({size} bytes in a file of {whole})"
        raise CheckpointError(path, reason, "don't use this file")


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    """What `torch.load` failed on, in one line and without its advice to load unsafely."""
    with path.open("rb") as stream:
        if not stream.read(2).startswith((b"PK", b"\x80")):  # a zip of torch's, or a pickle of its first versions
            return CheckpointError(path, _NO_WEIGHTS, _GIVE)
    foreign = re.search(r"GLOBAL ([\w.]+)", str(error))
    if foreign:
        reason = f"refused, for it holds more than tensors and could run code ({printable(foreign[1], _LONGEST)})"
        return CheckpointError(path, reason, "save a plain state dict or safetensors instead")
    reason = one_line(error).split(". ")[0]
    if isinstance(error, pickle.UnpicklingError):
        reason = "neither a torch checkpoint nor safetensors"
    return CheckpointError(path, f"not a readable checkpoint ({reason})", _FETCH)


def state_dict_of(loaded: Mapping[str, Any], path: str | Path) -> dict[str, Tensor]:
    """The checked state dict inside what `read_content` gave, without a `module.` prefix.

    Raises:
        CheckpointError: when there is none, or a tensor in it can't be a network's: of whole or complex numbers, with
            NaN or infinite values, without the numbers that its shape claims.
    """
    for key in ("model", "state_dict", "network"):
        if isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
            break
    entries = {name: value for name, value in loaded.items() if isinstance(name, str) and isinstance(value, Tensor)}
    state = {name.removeprefix("module."): value for name, value in entries.items()}
    if not state:
        raise CheckpointError(path, "holds no tensors", "expected a state dict, or one under 'model' or 'state_dict'")
    if len(state) < len(entries):
        raise CheckpointError(path, "holds the same names with and without 'module.'", _FETCH)
    for name, value in state.items():
        if (found := _kind_fault(name, value)) is not None:
            raise CheckpointError(path, f"{printable(name, _LONGEST)} {found}", "save it as float32 and dense")
        if (found := _value_fault(name, value)) is not None:
            raise CheckpointError(path, f"{printable(name, _LONGEST)} {found}", _OTHER_RUN)
    return state


def _kind_fault(name: str, value: Tensor) -> str | None:
    """What keeps a tensor from being a plain one of a network, if anything does."""
    if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized or value.is_nested:
        return "is not a plain tensor"
    if value.numel() == 0:
        return f"is empty, of shape {tuple(value.shape)}"
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return f"claims the shape {tuple(value.shape)} with {value.untyped_storage().nbytes()} bytes"
    if name.endswith(_COUNTERS) and value.dtype == torch.int64:
        return None
    return None if value.dtype in FLOATS else f"holds {str(value.dtype).removeprefix('torch.')} values, not floats"


def _value_fault(name: str, value: Tensor) -> str | None:
    """Values with which a network answers NaN, if there are any. Networks compute in float32."""
    if value.dtype not in FLOATS:
        return None
    values = value.detach().to(torch.float32)
    finite = torch.isfinite(values)
    if not finite.all():
        return f"holds {int((~finite).sum())} of {values.numel()} values that are NaN or infinite"
    if name.endswith("running_var") and values.min() < 0:
        return f"holds a negative variance ({values.min().item():g})"
    if name.endswith("image_std") and values.min() <= 0:
        return f"holds a standard deviation of {values.min().item():g}"
    return None


def build(make: Callable[[], Module], state: Mapping[str, Tensor], path: str | Path) -> Module:
    """A network with a file's weights, in evaluation mode on the CPU.

    Args:
        make: makes the network with fresh weights, from checked settings. It is called on the meta device first, where
            no size takes memory.
        state: of `state_dict_of`, under the network's own names.
        path: for messages.

    Raises:
        CheckpointError: the settings make no network, or not that of the tensors.
    """
    try:
        with torch.device("meta"):
            outline = make()
    except (ValueError, RuntimeError) as error:
        raise CheckpointError(path, f"its settings make no network ({one_line(error)})", _SETTINGS) from error
    _compare(outline, state, path, _SETTINGS)
    network = make()
    network.load_state_dict(state)
    return network.eval()


def load_state(network: nn.Module, state: Mapping[str, Tensor], path: str | Path, remedy: str) -> None:
    """Load weights into a network that is there, strictly; a refused load leaves it as it was.

    Raises:
        CheckpointError: names, shapes or the positions' grid do not fit; the message lists them.
    """
    _compare(network, state, path, remedy)
    network.load_state_dict(state)


def _compare(network: nn.Module, state: Mapping[str, Tensor], path: str | Path, remedy: str) -> None:
    own = network.state_dict()
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    differences = {"missing": sorted(own.keys() - state.keys()), "unexpected": sorted(state.keys() - own.keys())}
    found = [f"{what}: {_first(names)}" for what, names in (differences | {"other shape": shapes}).items() if names]
    if found := found or _other_grids(network, state):
        raise CheckpointError(path, f"of another geometry ({'; '.join(found)})", remedy)


def _first(names: Iterable[str], count: int = 3) -> str:
    names = list(names)
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(printable(name, _LONGEST) for name in names[:count]) + more


def _other_grids(network: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Position tables with as many tokens as an encoder in the network, but of another grid or counted otherwise."""
    found = []
    for name, encoder in network.named_modules():
        if not isinstance(encoder, RadiographViT):
            continue
        table, (rows, columns) = state[f"{name}.pos_embed" if name else "pos_embed"], encoder.grid
        cells = encoder.position_grid[0] / rows, encoder.position_grid[1] / columns
        for counted in dict.fromkeys((cells, (1.0, 1.0))):
            grid = table_grid(table, counted)
            if grid is not None:
                break
        if grid is not None and (grid, counted) != (encoder.grid, cells):
            other = "" if counted == cells else " of another pretraining's patch"
            found.append(f"positions of {grid[0]} x {grid[1]} tokens{other}, not of {rows} x {columns}")
    return found


def finite_outputs(outputs: Tensor, path: str | Path) -> Tensor:
    """A network's outputs, which finite weights can still make NaN.

    Raises:
        CheckpointError: some of them aren't finite.
    """
    if not torch.isfinite(outputs).all():
        raise CheckpointError(path, "the network answers with NaN or infinite values", _OTHER_RUN)
    return outputs
