"""Speed and memory of what pretraining spends its time on, each figure a median over repeats with its spread.

A :class:`Case` names a kind of measurement and its settings; ``MEASURES`` says which function runs a kind. Every case
runs in a process of its own (forked from one that has only imported the package, where the platform allows it), so
that its peak memory is its own. New cases are new functions there and new entries in :func:`default_cases`.

All cases run on the CPU.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import monai
import numpy as np
import PIL
import torch

from cxw_monai.training.precision import supported_amp

from .figures import Measurement
from .inference import measure_embedding, measure_segmentation
from .processes import peak_bytes, process_context, resident_bytes
from .startup import measure_data, measure_startup
from .steps import measure_processes, measure_step
from .views import measure_view_loading, measure_views

__all__ = [
    "AMPS",
    "MEASURES",
    "Case",
    "Measurement",
    "default_cases",
    "format_report",
    "measure",
    "run_benchmark",
]

AMPS = ("none", "bfloat16")
_MIB = 2**20


@dataclass(frozen=True)
class Case:
    """One measurement to make.

    Attributes:
        kind: a key of ``MEASURES``.
        settings: keyword arguments of its function, besides ``repeats``; JSON types.
        threads: threads of one operation; None for torch's default.
    """

    kind: str
    settings: dict[str, Any] = field(default_factory=dict)
    threads: int | None = None

    def __str__(self) -> str:
        return " ".join([self.kind, *(f"{name}={value}" for name, value in self.settings.items())])


MEASURES: dict[str, Callable[..., list[Measurement]]] = {
    "views": measure_views,
    "view_loading": measure_view_loading,
    "step": measure_step,
    "processes": measure_processes,
    "embedding": measure_embedding,
    "segmentation": measure_segmentation,
    "startup": measure_startup,
    "data": measure_data,
}
"""Function of each kind of case: ``repeats`` and the case's settings to measurements."""

_ELSEWHERE = ("step", "processes", "startup")
"""Kinds that work in processes of their own: the memory of the case's process says nothing about them."""


def default_cases(
    sizes: Sequence[str] = ("tiny", "small", "base"),
    amps: Sequence[str] = AMPS,
    quick: bool = False,
    bundle: str | None = None,
) -> list[Case]:
    """The cases of the table.

    Args:
        sizes: encoders, names that :func:`cxw_monai.networks.radiograph_vit` takes.
        amps: "none" (fp32) and "bfloat16" (autocast), which is left out where the processor does not compute it.
        quick: smaller batches and fewer calls, and without what grows.
        bundle: folder of the pretraining bundle; None leaves its start out.
    """
    amps = list(dict.fromkeys(supported_amp("cpu", amp) for amp in amps))
    batches = {"tiny": 4} if quick else {}
    calls = {"calls": 1 if quick else 5}
    cases = [Case("views", {"source": side, "batches": 1 if quick else 4}, threads=1) for side in (512, 1024)]
    loading = product((512,) if quick else (512, 1024), (False,) if quick else (False, True), (1,) if quick else (1, 2))
    cases += [Case("view_loading", {"source": s, "decode": d, "workers": w}, threads=1) for s, d, w in loading]
    for size in sizes:
        batch = batches.get(size, 2 if quick else 16)
        cases += [Case("step", {"size": size, "amp": amp, "batch": batch}) for amp in amps]
    if not quick:
        cases += [Case("processes", {"size": size, "amp": amps[-1]}) for size in sizes]
        cases += _growing_steps(amps[-1])
    for kind, size in product(("embedding", "segmentation"), sizes[:1] if quick else sizes):
        batch_sizes = (1,) if quick else (1, 16)
        cases += [Case(kind, {"size": size, "amp": amp, "batch": n, **calls}) for amp in amps for n in batch_sizes]
    if bundle is not None:
        cases.append(Case("startup", {"bundle": bundle}))
    return cases + [Case("data", {"rows": 10**power}) for power in range(2, 4 if quick else 7)]


def _growing_steps(amp: str) -> list[Case]:
    """Steps as image and batch grow, and with what trades time for memory."""
    alone = {"size": "tiny", "amp": amp, "beside_plain": False}
    cases = [Case("step", {**alone, "image_size": side, "batch": 8}) for side in (128, 224, 320, 448)]
    cases += [Case("step", {**alone, "batch": batch}) for batch in (4, 16, 64)]
    options = ({"checkpoint": True}, {"compile": True}, {"cross_targets": "masked"})
    return cases + [Case("step", {"size": "small", "amp": amp, "batch": 16, **option}) for option in options]


def measure(case: Case, repeats: int) -> dict[str, Any]:
    """Run a case in this process.

    Args:
        case: what to measure; its ``threads`` are set and put back.
        repeats: at least 1.

    Returns:
        ``{"case", "threads", "measurements": [summary, ...], "peak_mib", "start_mib"}`` of JSON types. The peak is that
        of the whole process, ``start_mib`` what it held before (the imported libraries); None where unknown, and
        for training steps, whose figures hold the peak of each side.

    Raises:
        ValueError: for an unknown kind or fewer than one repeat.
    """
    if case.kind not in MEASURES:
        raise ValueError(f"kind must be one of {sorted(MEASURES)}, got {case.kind!r}.")
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}.")
    before, start = torch.get_num_threads(), resident_bytes()
    threads = case.threads or before
    torch.set_num_threads(threads)
    try:
        found = [measurement.summary() for measurement in MEASURES[case.kind](repeats, **case.settings)]
    finally:
        torch.set_num_threads(before)
    memory = {
        name: None if value is None or case.kind in _ELSEWHERE else round(value / _MIB)
        for name, value in (("peak_mib", peak_bytes()), ("start_mib", start))
    }
    return {"case": asdict(case), "threads": threads, "measurements": found, **memory}


def _child(sender: Connection, case: Case, repeats: int) -> None:
    """Body of a case's process: sends its result, or the error as text."""
    try:
        sender.send(measure(case, repeats))
    except Exception as error:  # reported by the parent, which runs the other cases
        sender.send(f"{type(error).__name__}: {error}")


def _measure_apart(case: Case, repeats: int, context: multiprocessing.context.BaseContext) -> dict[str, Any]:
    """Run a case in a new process; a result with ``error`` where that failed or was killed."""
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, case, repeats))
    process.start()
    sender.close()
    try:
        result = receiver.recv()
    except EOFError:
        result = None
    process.join()
    if isinstance(result, dict):
        return result
    reason = result or f"the process ended with code {process.exitcode} (-9: killed, usually for want of memory)"
    return {"case": asdict(case), "threads": case.threads, "measurements": [], "error": reason}


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def machine() -> dict[str, Any]:
    """CPU, cores, load before the run and versions, of JSON types."""
    return {
        "cpu": _cpu_model(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "monai": monai.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
    }


def run_benchmark(
    cases: Sequence[Case], repeats: int = 5, progress: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Run cases one after the other, each in a new process.

    Args:
        cases: what to measure.
        repeats: timed repeats a figure.
        progress: called with a line before and after each case.

    Returns:
        ``{"machine", "repeats", "results": [...]}`` of JSON types, the results as :func:`measure` gives them, with
        ``seconds``; one that failed has no measurements and an ``error``.
    """
    tell = progress or (lambda _: None)
    report: dict[str, Any] = {"machine": machine(), "repeats": repeats, "results": []}
    context = process_context(__name__)
    for number, case in enumerate(cases, start=1):
        tell(f"[{number}/{len(cases)}] {case}")
        start = time.perf_counter()
        result = _measure_apart(case, repeats, context)
        result["seconds"] = round(time.perf_counter() - start, 2)
        report["results"].append(result)
        tell(f"[{number}/{len(cases)}] {result.get('error', 'done')} ({result['seconds']:.1f} s)")
    return report


def format_report(report: dict[str, Any]) -> str:
    """The table of a report of :func:`run_benchmark`: one row a figure."""
    about = report["machine"]
    lines = [("measurement", "median", "[min, max]", "unit", "threads", "peak MiB (at start)")]
    for result in report["results"]:
        peak, start = result.get("peak_mib"), result.get("start_mib")
        memory = "-" if peak is None else f"{peak} ({'?' if start is None else start})"
        for found in result["measurements"]:
            spread = f"[{found['min']:.4g}, {found['max']:.4g}]"
            lines.append(
                (found["name"], f"{found['median']:.4g}", spread, found["unit"], str(result["threads"]), memory)
            )
        if "error" in result:
            case = Case(**result["case"])
            lines.append((str(case), "failed", result["error"], "", "", ""))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    rows = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines]
    head = f"{about['cpu']} ({about['cpu_capability']}), {about['cores']} cores, load {about['load_average']}, "
    return "\n".join([f"{head}torch {about['torch']}, {report['repeats']} repeats", *rows])
