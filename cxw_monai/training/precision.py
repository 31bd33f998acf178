"""In which precision a device computes: bfloat16 where it does so in hardware, else float32.

A processor is asked three things, since each may differ from the others: whether oneDNN has bfloat16 products on it,
whether PyTorch's own kernels are those for AVX-512 (some of the bfloat16 ones need it), and whether it has bfloat16
instructions. Without them products of bfloat16 are emulated, up to a hundred times slower than those of float32, or
missing. With AVX512_BF16 alone training was half as fast as in float32 where it was measured; with AMX more than twice
as fast.
"""

from __future__ import annotations

import contextlib
import logging
import os
from functools import cache
from typing import Any, Literal

import torch

__all__ = ["Precision", "allow_tf32", "autocast", "bfloat16_support", "checked_amp", "supported_amp"]

logger = logging.getLogger(__name__)

AMPS = ("auto", "bfloat16", "none")
Support = Literal["fast", "slow", "none"]


def allow_tf32(allowed: bool = True) -> None:
    """Let CUDA devices round the factors of float32 products and convolutions to TF32 (10 bits of mantissa), or not.

    It is several times faster there, and changes nothing on CPUs or under bfloat16 autocast.
    """
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def checked_amp(amp: str) -> str:
    """`amp` itself.

    Raises:
        ValueError: when it is not `auto`, `bfloat16` or `none`.
    """
    if amp not in AMPS:
        hint = " float16 would need its losses scaled; give 'bfloat16'." if amp in ("float16", "fp16", "half") else ""
        raise ValueError(f"amp must be 'auto', 'bfloat16' or 'none', got {amp!r}.{hint}")
    return amp


def bfloat16_support(device: str | torch.device) -> Support:
    """How well a device computes bfloat16.

    Returns:
        `fast`: faster than float32. `slow`: in hardware, but not known to be faster. `none`: not at all, or emulated.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return "fast" if torch.cuda.is_bf16_supported(including_emulation=False) else "none"
    return _processor_support() if device.type == "cpu" else "none"


@cache
def _processor_support() -> Support:
    in_products = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    if not (torch.backends.mkldnn.is_available() and in_products()):
        return "none"
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        return "none"
    limit = _onednn_limit()
    if (limit is None or "AMX" in limit) and _asked("_is_amx_tile_supported") and _asked("_init_amx"):
        return "fast"
    has_instructions = limit is None or limit.startswith(("AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX512_CORE_AMX"))
    return "slow" if has_instructions and _asked("_is_avx512_bf16_supported") else "none"


def _asked(name: str) -> bool:
    return bool(getattr(torch.cpu, name, lambda: False)())


def _onednn_limit() -> str | None:
    """The newest instructions that oneDNN may use by the environment; PyTorch's own queries don't know it."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", os.environ.get("DNNL_MAX_CPU_ISA", "")).upper()
    return None if limit in ("", "ALL", "DEFAULT") else limit


def supported_amp(device: str | torch.device, amp: str) -> str:
    """What `amp` comes to on a device; the first time that float32 takes the place of bfloat16 it is logged.

    Args:
        device: where to compute.
        amp: `auto` takes bfloat16 where it is faster than float32, `bfloat16` where the device computes it in hardware.

    Returns:
        `bfloat16` or `none`, which is float32.

    Raises:
        ValueError: for another `amp`.
    """
    if checked_amp(amp) == "none":
        return "none"
    support = bfloat16_support(device)
    if support == "fast" or (amp == "bfloat16" and support == "slow"):
        return "bfloat16"
    _log_fallback(torch.device(device).type, amp)
    return "none"


@cache
def _log_fallback(kind: str, amp: str) -> None:
    """Log once that a device computes in float32: a warning where bfloat16 was asked for by name."""
    device = "this processor" if kind == "cpu" else f"this {kind} device"
    if amp == "auto":
        logger.info("Computing in float32: %s does not compute bfloat16 faster.", device)
    else:
        logger.warning(
            "bfloat16 was asked for, but %s does not compute it in hardware: computing in float32, which takes more "
            "memory. Give --amp none or auto where that is meant.",
            device,
        )


def autocast(device: str | torch.device, amp: str) -> contextlib.AbstractContextManager:
    """Autocast to what `amp` comes to on a device; see `supported_amp`."""
    if supported_amp(device, amp) == "none":
        return contextlib.nullcontext()
    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16)


class Precision:
    """The precision that a run computes in; among the saved parts of its checkpoints.

    A run that is resumed where another precision is computed continues, and warns that its numbers will differ.

    Args:
        amp: `auto`, `bfloat16` or `none`.

    Attributes:
        used: what the run computed in, `bfloat16` or `none`; None before its first step.

    Raises:
        ValueError: for another `amp`.
    """

    def __init__(self, amp: str = "auto") -> None:
        self.amp = checked_amp(amp)
        self.used: str | None = None

    def autocast(self, device: torch.device) -> contextlib.AbstractContextManager:
        """Autocast on the device of the run."""
        now = supported_amp(device, self.amp)
        if self.used not in (None, now):
            logger.warning(
                "Up to here this run was computed in %s, from here on in %s%s: its numbers will not be those of a run "
                "that was not interrupted. For those, %s.",
                *("float32" if name == "none" else name for name in (self.used, now)),
                "" if self.amp == "none" or now == "bfloat16" else ", since the device here does not compute bfloat16",
                "give --amp none" if self.used == "none" else "resume where bfloat16 is computed, with --amp bfloat16",
            )
        self.used = now
        return autocast(device, self.amp)

    def state_dict(self) -> dict[str, Any]:
        return {"amp": self.used}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.used = state["amp"]
