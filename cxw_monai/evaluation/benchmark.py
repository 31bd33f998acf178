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
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import monai
import numpy as np
import PIL
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from monai.inferers import SimpleInferer
from PIL import Image
from torch import Tensor

from cxw_monai.engines import PretrainingSchedules, PretrainingStep, parameter_groups
from cxw_monai.engines.iteration import autocast
from cxw_monai.networks import RadiographEmbedder, WorldModel, WorldModelPredictor, radiograph_vit
from cxw_monai.transforms import RandActiond, RandWorldViewPaird, TokenMaskSampler

from .view_pipelines import PackageViews, PillowViews, synthetic_film

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


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure_views(
    repeats: int, source: int = 512, size: int = 224, films: int = 16, batches: int = 4
) -> list[Measurement]:
    """View pairs a second from decoded films, against the Pillow pipeline on the same draws.

    Args:
        repeats: paired repeats; each times both sides, one after the other.
        source: side of a film, px.
        size: side of a view, px.
        films: films in memory, which is also the batch.
        batches: batches a repeat.
    """
    grey = [synthetic_film(source, number) for number in range(films)]
    colour = [Image.fromarray(film[0]).convert("RGB") for film in grey]
    ours, theirs = PackageViews(size), PillowViews(size)
    ours(grey), theirs(colour)
    rates: dict[str, list[float]] = {"ours": [], "pillow": []}
    for _ in range(repeats):
        rates["ours"].append(films * batches / _seconds(lambda: [ours(grey) for _ in range(batches)]))
        rates["pillow"].append(films * batches / _seconds(lambda: [theirs(colour) for _ in range(batches)]))
    ratios = [a / b for a, b in zip(rates["ours"], rates["pillow"], strict=True)]
    name = f"views {source}->{size}"
    return [
        Measurement(f"{name}, package", "pairs/s", rates["ours"]),
        Measurement(f"{name}, Pillow RGB", "pairs/s", rates["pillow"]),
        Measurement(f"{name}, package over Pillow", "x", ratios),
    ]


def _view_batch(batch: int, image_size: int) -> dict[str, Tensor]:
    """A batch as the loader gives it."""
    views, actions = RandWorldViewPaird(size=image_size), RandActiond()
    views.set_random_state(0)
    actions.set_random_state(0)
    films = [synthetic_film(2 * image_size, number) for number in range(batch)]
    return torch.utils.data.default_collate([actions(views({"image": film})) for film in films])


def _trainer(model: WorldModel, batches: list[dict[str, Tensor]], amp: str) -> SupervisedTrainer:
    """The trainer of the bundle without its handlers; settings that it does not name are the defaults."""
    schedules = PretrainingSchedules(steps_per_epoch=len(batches), epochs=1, lr=2e-4)
    masks = TokenMaskSampler(grid=model.encoder.grid)
    return SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=batches,
        network=model,
        optimizer=torch.optim.AdamW(parameter_groups(model), lr=2e-4, weight_decay=0.05, fused=True),
        loss_function=None,
        iteration_update=PretrainingStep(masks, schedules, amp=amp),
        inferer=SimpleInferer(),
        decollate=False,
    )


def measure_step(
    repeats: int,
    size: str = "tiny",
    amp: str = "none",
    batch: int = 16,
    image_size: int = 224,
    patch_size: int = 16,
    predictor_dim: int = 384,
    predictor_depth: int = 6,
) -> list[Measurement]:
    """Radiographs a second through training steps: perturbation, masks, forward, backward, clip, AdamW, EMA.

    Everything else is the default of :class:`WorldModel` (three objectives, all tokens of the other view predicted).
    The first step, which allocates the optimiser's state and computes the collapse monitors, is not timed.
    """
    torch.manual_seed(0)
    encoder = radiograph_vit(size, image_size=image_size, patch_size=patch_size)
    predictor = WorldModelPredictor(
        encoder.grid, encoder.embed_dim, predictor_dim, predictor_depth, num_heads=encoder.num_heads
    )
    data = _view_batch(batch, image_size)
    trainer = _trainer(WorldModel(encoder, predictor), [data] * (repeats + 1), amp)
    starts, rates = [], []
    trainer.add_event_handler(Events.ITERATION_STARTED, lambda: starts.append(time.perf_counter()))
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda: rates.append(batch / (time.perf_counter() - starts[-1]))
    )
    trainer.run()
    return [Measurement(f"training step {size} {_named(amp)} batch {batch}", "images/s", rates[1:])]


def measure_embedding(
    repeats: int, size: str = "tiny", amp: str = "none", batch: int = 1, image_size: int = 224, calls: int = 5
) -> list[Measurement]:
    """Milliseconds a call of the embedding network, each repeat the mean of ``calls``."""
    torch.manual_seed(0)
    network = RadiographEmbedder(radiograph_vit(size, image_size=image_size)).eval()
    image = torch.rand(batch, 1, image_size, image_size)
    with torch.inference_mode(), autocast(image.device, amp):
        network(image)
        times = [_seconds(lambda: [network(image) for _ in range(calls)]) / calls for _ in range(repeats)]
    return [Measurement(f"embedding {size} {_named(amp)} batch {batch}", "ms", [1e3 * t for t in times])]


MEASURES: dict[str, Callable[..., list[Measurement]]] = {
    "views": measure_views,
    "step": measure_step,
    "embedding": measure_embedding,
}
"""Function of each kind of case: ``repeats`` and the case's settings to measurements."""


def _named(amp: str) -> str:
    return {"none": "fp32", "bfloat16": "bf16"}.get(amp, amp)


def default_cases(
    sizes: Sequence[str] = ("tiny", "base"), amps: Sequence[str] = AMPS, quick: bool = False
) -> list[Case]:
    """The cases of the table.

    Args:
        sizes: encoders, names that :func:`cxw_monai.networks.radiograph_vit` takes.
        amps: "none" (fp32) and "bfloat16" (autocast).
        quick: smaller batches and fewer calls.
    """
    batches = {"tiny": 4, "base": 2} if quick else {"tiny": 16, "small": 16}
    other = 2 if quick else 8
    batch_count = 1 if quick else 4
    cases = [Case("views", {"source": side, "batches": batch_count}, threads=1) for side in (512, 1024)]
    for size in sizes:
        cases += [Case("step", {"size": size, "amp": amp, "batch": batches.get(size, other)}) for amp in amps]
    for size in sizes:
        cases += [Case("embedding", {"size": size, "amp": amp, "calls": 1 if quick else 10}) for amp in amps]
    return cases


def _resident_bytes(entry: str) -> int | None:
    """``VmRSS`` (resident now) or ``VmHWM`` (its peak) of this process; None where the platform does not tell.

    The peak of ``getrusage`` will not do under Linux: a new process inherits that of the one that started it.
    """
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
    return int(fields[entry].split()[0]) * 1024


def _peak_bytes() -> int | None:
    peak = _resident_bytes("VmHWM")
    if peak is not None or platform.system() == "Windows":
        return peak
    import resource  # not on Windows

    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measure(case: Case, repeats: int) -> dict[str, Any]:
    """Run a case in this process.

    Args:
        case: what to measure; its ``threads`` are set and put back.
        repeats: at least 1.

    Returns:
        ``{"case", "threads", "measurements": [summary, ...], "peak_mib", "start_mib"}`` of JSON types. The peak is that
        of the whole process, ``start_mib`` what it held before (the imported libraries); None where unknown.

    Raises:
        ValueError: for an unknown kind or fewer than one repeat.
    """
    if case.kind not in MEASURES:
        raise ValueError(f"kind must be one of {sorted(MEASURES)}, got {case.kind!r}.")
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}.")
    before, start = torch.get_num_threads(), _resident_bytes("VmRSS")
    threads = case.threads or before
    torch.set_num_threads(threads)
    try:
        found = [measurement.summary() for measurement in MEASURES[case.kind](repeats, **case.settings)]
    finally:
        torch.set_num_threads(before)
    memory = {
        name: None if value is None else round(value / _MIB)
        for name, value in (("peak_mib", _peak_bytes()), ("start_mib", start))
    }
    return {"case": asdict(case), "threads": threads, "measurements": found, **memory}


def _child(sender: Connection, case: Case, repeats: int) -> None:
    """Body of a case's process: sends its result, or the error as text."""
    try:
        sender.send(measure(case, repeats))
    except Exception as error:  # reported by the parent, which goes on with the other cases
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


def _context() -> multiprocessing.context.BaseContext:
    """Processes that start alike: forked from a server that has imported this module, where there is one."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


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
    context = _context()
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
