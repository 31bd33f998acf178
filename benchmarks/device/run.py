"""One resumable run of all checks and measurements of a device."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import ignite
import monai
import torch

import cxw_monai
from cxw_monai.io.files.atomic import atomic_file

from . import numbers, processes, speed, training
from .outcome import CheckFailedError, NotApplicableError

__all__ = ["Result", "Run", "format_table", "right_checks"]

PROJECT = Path(__file__).parents[2]
SIZES = ("tiny", "small", "base", "large")
BATCHES = {"tiny": (256, 1024), "small": (128, 512, 1024), "base": (64, 256, 512), "large": (32, 128, 256)}
LATER = "out of time: the same command with more --minutes continues here"


@dataclass(frozen=True)
class Result:
    """How one check or measurement ended.

    Attributes:
        name: unique in a run.
        kind: `right` or `fast`.
        status: `passed`, `failed`, `not applicable`, `measured`, or `not run`.
        detail: in words.
        figures: what was measured.
        seconds: wall time.
    """

    name: str
    kind: str
    status: str
    detail: str = ""
    figures: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0


def right_checks(device: torch.device, compiling: bool) -> dict[str, Callable[[], str]]:
    """Checks by name."""
    found: dict[str, Callable[[torch.device], str]] = {
        "forward and loss, float32": numbers.forward_fp32,
        "forward and loss, bfloat16": numbers.forward_bf16,
        "golden tensors, float64": numbers.golden_tensors,
        "plain loop, float64": numbers.plain_loop,
        "perturbations": numbers.perturbations,
        "crops on the device": numbers.crops,
        "weights after steps": training.step_weights,
        "resuming": training.resuming,
        "activation checkpointing": training.checkpointing,
        "torch.compile": training.compiled if compiling else _not_compiling,
        "waits in a step": training.waits,
        "memory over 200 steps": training.memory_growth,
        "two processes, gloo": processes.gloo,
        "two processes, NCCL": processes.nccl,
        "split parameters, FSDP2": processes.sharded,
    }
    return {name: _bound(check, device) for name, check in found.items()}


def _bound(check: Callable[[torch.device], str], device: torch.device) -> Callable[[], str]:
    return lambda: check(device)


def _not_compiling(device: torch.device) -> str:
    raise NotApplicableError(f"takes minutes on a {device.type}: ask for it with --compile")


class Run:
    """Checks, then measurements, each kept in a file of its own; what is there already isn't done again.

    Args:
        device: what to look at.
        output: folder of the results; those of another device, of other versions or other sources are left alone.
        minutes: no measurement begins after so many; checks are all made.
        compiling: look at `torch.compile` too.
        tell: called with a line before and after each.
    """

    def __init__(
        self,
        device: torch.device,
        output: str | Path,
        minutes: float = 8,
        compiling: bool = True,
        tell: Callable[[str], None] = print,
    ) -> None:
        self.device, self.output, self.minutes, self.compiling, self.tell = (
            device,
            Path(output),
            minutes,
            compiling,
            tell,
        )
        self.about = about(device)
        key = json.dumps([self.about, sources()], sort_keys=True)
        self.folder = self.output / hashlib.sha256(key.encode()).hexdigest()[:12]
        self.begun = time.monotonic()

    def __call__(self) -> list[Result]:
        """All results; they are also in `report.json`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        results = [
            self._kept(name, "right", check) for name, check in right_checks(self.device, self.compiling).items()
        ]
        results += self._measurements()
        report = {**self.about, "results": [asdict(result) for result in results]}
        self._write(self.output / "report.json", report)
        return results

    def _measurements(self) -> Iterator[Result]:
        on_cuda = self.device.type == "cuda"
        seconds = 3.0 if on_cuda else 0.2
        peak = self._kept("peak", "fast", lambda: speed.matrix_peak(self.device, 8192 if on_cuda else 1024, seconds))
        yield peak
        best = peak.figures[0]["value"] if peak.figures else None
        sizes = SIZES if on_cuda else SIZES[: 1 if self.minutes <= 8 else 2]
        for size in sizes:
            yield from self._steps(size, seconds, best)
        size, batch, workers = ("base", 256, None) if on_cuda else ("tiny", 2, 1)
        for cut in (True, False):
            name = f"loading, crops {'in the loader' if cut else 'on the device'}"
            yield self._kept(
                name, "fast", lambda cut=cut: speed.loading(self.device, size, batch, seconds, workers, cut)
            )
        for size in sizes:
            batch, calls = (256, 5) if on_cuda else (2, 1)
            yield self._kept(
                f"use of {size}",
                "fast",
                lambda size=size, batch=batch, calls=calls: speed.films_per_second(self.device, size, batch, calls),
            )

    def _steps(self, size: str, seconds: float, peak: float | None) -> Iterator[Result]:
        """Steps of one encoder, in growing batches until one doesn't fit, then the last that did, compiled."""
        fits = None
        most = 200 if self.device.type == "cuda" else 2
        for batch in BATCHES[size] if self.device.type == "cuda" else (2,):
            result = self._kept(
                f"steps of {size}, batch {batch}",
                "fast",
                lambda batch=batch: speed.steps(self.device, size, batch, seconds, peak, most),
            )
            yield result
            if result.status != "measured":
                break
            fits = batch
        if fits is not None and self.compiling:
            yield self._kept(
                f"steps of {size}, batch {fits}, compiled",
                "fast",
                lambda: speed.steps(self.device, size, fits, seconds, peak, most, compile=True, beside_plain=False),
            )

    def _kept(self, name: str, kind: str, work: Callable[[], Any]) -> Result:
        """The result of an earlier run, or a new one."""
        path = self.folder / f"{''.join(c if c.isalnum() else '_' for c in name)}.json"
        if path.is_file():
            kept = Result(**json.loads(path.read_text()))
            self.tell(f"{kept.status:14} {name} (from {path.parent.name})")
            return kept
        if kind == "fast" and time.monotonic() - self.begun > 60 * self.minutes:
            return Result(name, kind, "not run", LATER)
        self.tell(f"{'...':14} {name}")
        result = self._done(name, kind, work)
        self.tell(f"{result.status:14} {name}: {result.detail or f'{result.seconds:.1f} s'}")
        if result.status != "failed":
            self._write(path, asdict(result))
        return result

    def _done(self, name: str, kind: str, work: Callable[[], Any]) -> Result:
        start, figures, detail = time.perf_counter(), [], ""
        try:
            found = work()
            status = "passed" if kind == "right" else "measured"
            detail = found if isinstance(found, str) else ""
            figures = [] if isinstance(found, str) else [asdict(figure) for figure in found]
        except NotApplicableError as error:
            status, detail = "not applicable", str(error)
        except CheckFailedError as error:
            status, detail = "failed", str(error)
        except torch.OutOfMemoryError:
            status, detail = "not applicable", "does not fit into the device's memory"
        except Exception as error:  # the other checks are made all the same
            status, detail = "failed", f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
        speed.free(self.device)
        return Result(name, kind, status, detail, figures, round(time.perf_counter() - start, 2))

    @staticmethod
    def _write(path: Path, content: Any) -> None:
        with atomic_file(path, "w") as file:
            file.write(json.dumps(content, indent=2) + "\n")


def about(device: torch.device) -> dict[str, Any]:
    """Name of the device, and versions."""
    on_cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_cuda else processor(),
        "devices": torch.cuda.device_count() if on_cuda else 1,
        "cuda": torch.version.cuda if on_cuda else None,
        "torch": torch.__version__,
        "monai": monai.__version__,
        "ignite": ignite.__version__,
        "cxw_monai": cxw_monai.__version__,
        "python": platform.python_version(),
    }


def processor() -> str:
    """Name and instructions of the processor."""
    info, name = Path("/proc/cpuinfo"), platform.processor() or platform.machine()
    if info.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        name = names[0] if names else name
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"


def sources() -> str:
    """Hash of the package's and the benchmarks' sources."""
    digest = hashlib.sha256()
    for folder in (Path(cxw_monai.__file__).parent, PROJECT / "benchmarks"):
        for file in sorted(folder.rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def format_table(about: dict[str, Any], results: Sequence[Result]) -> str:
    """A line for each check, and one for each measured number."""
    versions = ", ".join(f"{name} {about[name]}" for name in ("torch", "cuda", "monai", "cxw_monai") if about[name])
    lines = [f"{about['device']}: {versions}", ""]
    lines += [f"{r.status:14} {r.name:28} {r.detail}".rstrip() for r in results if r.kind == "right"]
    lines.append("")
    for result in results:
        if result.kind == "fast":
            lines += [f"{figure['value']:12.4g} {figure['unit']:9} {figure['name']}" for figure in result.figures]
            if not result.figures:
                lines.append(f"{result.status:>22} {result.name}: {result.detail}")
    return "\n".join(lines)
