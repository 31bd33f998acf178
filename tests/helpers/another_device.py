"""A device that isn't the CPU, for machines without one: what goes wrong on it goes wrong on any accelerator.

PyTorch's slot for outside backends is registered under the name `gpu`. Tensors there have no values (`FakeTensor`): an
operation on one of them and one of the CPU fails, and so does all for which a real device is waited for: reading a
value (`item`, `nonzero`, a mask as an index), bringing a tensor back to the CPU, and an index that lies on the CPU.
What the CPU computes is real.

The name holds for the whole process: use it in one of its own (`tests.helpers.forks`).
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

__all__ = ["AnotherDevice", "WaitError"]

COPIES = ("copy_", "_foreach_copy_")
INDEXED = ("index", "index_put", "index_put_", "_unsafe_index")


class WaitError(RuntimeError):
    """The device would have been waited for."""


class _Backend(ModuleType):
    """What `torch.gpu` must have."""

    def __init__(self) -> None:
        super().__init__("gpu")
        self.is_available = self.is_initialized = self._is_in_bad_fork = lambda: False
        self.device_count, self.current_device = (lambda: 1), (lambda: 0)
        self.get_amp_supported_dtype = lambda: [torch.bfloat16]


class AnotherDevice(TorchDispatchMode):
    """A context in which `device` can be used."""

    def __init__(self) -> None:
        super().__init__()
        if not hasattr(torch, "gpu"):
            _setup_privateuseone_for_python_backend("gpu", _Backend())
        self.device = torch.device("gpu:0")
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=...) begins on the CPU
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, torch.Tensor)]
        there = [one for one in given if isinstance(one, FakeTensor) and one.device.type == "gpu"]
        to = torch.device(kwargs["device"]).type if kwargs.get("device") is not None else None
        name = func.overloadpacket.__name__
        if not there and to != "gpu":
            return func(*args, **kwargs)
        if there and (to == "cpu" or (name in COPIES and given[0].device.type == "cpu")):
            raise WaitError(f"{func} brings a tensor of the device to the CPU")
        if there and name in INDEXED and any(one.device.type == "cpu" and one.ndim for one in given):
            raise WaitError(f"{func} has an index on the CPU")
        with self.fake:
            return func(*args, **kwargs)
