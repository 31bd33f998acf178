"""What the benchmark's measurements share: a figure with its repeats, timing, and the name of a precision."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from cxw_monai.training.precision import supported_amp

__all__ = ["Measurement", "seconds", "short_name"]


@dataclass(frozen=True)
class Measurement:
    """One figure: what was measured, its unit, and a value a repeat."""

    name: str
    unit: str
    values: list[float]

    def summary(self) -> dict[str, Any]:
        """``name``, ``unit``, ``median``, ``min``, ``max`` and the ``values``."""
        spread = {"median": median(self.values), "min": min(self.values), "max": max(self.values)}
        return {"name": self.name, "unit": self.unit, **spread, "values": self.values}


def seconds(work: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    """Time of one call, by default wall time."""
    start = clock()
    work()
    return clock() - start


def short_name(device: str | torch.device, amp: str) -> str:
    """``fp32`` or ``bf16``: what a device really computes in."""
    return {"none": "fp32", "bfloat16": "bf16"}[supported_amp(device, amp)]
