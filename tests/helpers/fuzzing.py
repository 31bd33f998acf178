"""Reads damaged files in processes that may die, hang, or ask for too much."""

from __future__ import annotations

import faulthandler
import logging
import os
import resource
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cxw_monai.io import Radiograph, RadiographError

if TYPE_CHECKING:
    from damaged_files import Case

CPU_SECONDS, WALL_SECONDS = 20, 240  # of one file; the wall clock only ends a reader that sleeps
MEMORY = 1 << 30  # bytes that reading one file may really take
ADDRESS_SPACE = 3 << 30  # bytes that it may ask for
NOISE = 20  # warnings and log lines of one file

Read = Callable[[str], Radiograph]


@dataclass(frozen=True)
class Outcome:
    """What became of a case: ``valid``, ``refused``, or a failure (anything else) with its detail."""

    number: int
    name: str
    kind: str
    result: str
    detail: str = ""


def run(make: Callable[[int], Case], numbers: range, read: Read) -> Iterator[Outcome]:
    """Read every case of ``numbers`` in a child with bounded time and memory; a child that dies is replaced.

    Args:
        make: gives the case of a number.
        numbers: which cases.
        read: the reader.

    Yields:
        The outcome of each case, in order.
    """
    context, at = get_context("fork"), numbers.start
    with tempfile.TemporaryDirectory() as folder:
        while at < numbers.stop:
            ours, theirs = context.Pipe(duplex=False)
            child = context.Process(target=_child, args=(make, range(at, numbers.stop), read, theirs, folder))
            child.start()
            theirs.close()
            try:
                while at < numbers.stop:
                    outcome = ours.recv()
                    at += 1
                    yield outcome
            except EOFError:
                child.join()
                hung = -child.exitcode in (signal.SIGPROF, signal.SIGALRM)
                detail, case = f"the process ended with {child.exitcode}", make(at)
                yield Outcome(at, case.seed.name, case.kind, "hang" if hung else "crash", detail)
                at += 1
            finally:
                ours.close()
                child.kill()
                child.join()


def _child(make: Callable[[int], Case], numbers: range, read: Read, results: Connection, folder: str) -> None:
    """Read cases one after the other, within limits whose breach ends this process."""
    faulthandler.disable()  # a crash is reported, once
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESS_SPACE, used + ADDRESS_SPACE))
    with open(os.devnull, "w") as sink:
        os.dup2(sink.fileno(), 2)  # libtiff and libjpeg write there
    expected: dict[str, np.ndarray] = {}
    noise = _Noise()
    logging.getLogger().addHandler(noise)
    for number in numbers:
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        signal.alarm(WALL_SECONDS)
        case = make(number)
        results.send(Outcome(number, case.seed.name, case.kind, *_judge(case, read, folder, expected, noise)))


class _Noise(logging.Handler):
    """Counts log lines of WARNING and above."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1


def _judge(case: Case, read: Read, folder: str, expected: dict[str, np.ndarray], noise: _Noise) -> tuple[str, str]:
    """Read one case: ``(result, detail)``."""
    noise.count, before = 0, _peak_memory(reset=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            radiograph = _read(case.seed.name, case.content, read, folder)
        except RadiographError as error:
            found = "refused", error.reason
        except BaseException as error:
            found = "exception", repr(error)[:300]
        else:
            fault = _fault(radiograph)
            found = "invalid" if fault else "valid", fault
            if not fault and case.is_cut:
                if case.seed.name not in expected:
                    expected[case.seed.name] = _read(case.seed.name, case.seed.content, read, folder).array
                if not np.array_equal(radiograph.array, expected[case.seed.name]):
                    found = "half picture", "a cut file gave another picture than the whole one"
    taken = _peak_memory() - before
    if taken > MEMORY:
        return "memory", f"{taken >> 20} MB"
    if len(caught) + noise.count > NOISE:
        return "noise", f"{len(caught)} warnings, {noise.count} log lines"
    return found


def _peak_memory(reset: bool = False) -> int:
    """The most memory that this process has really had since the last reset, bytes; 0 where it can't be told."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def _read(name: str, content: bytes, read: Read, folder: str) -> Radiograph:
    path = Path(folder) / name
    path.write_bytes(content)
    try:
        return read(str(path))
    finally:
        path.unlink()


def _fault(radiograph: Radiograph) -> str:
    """What is wrong with a radiograph that should be valid; nothing where nothing is."""
    array, meta = radiograph.array, radiograph.meta
    if array.dtype != np.float32 or array.ndim != 3 or array.shape[0] != 1:
        return f"{array.dtype} {array.shape}"
    if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
        return f"values from {array.min()} to {array.max()}"
    if array.min() == array.max():
        return "constant"
    if meta["pixel_map"].shape != array.shape[1:]:
        return f"pixel map of {meta['pixel_map'].shape} for {array.shape}"
    spacing = meta["spacing_mm"]
    if spacing is not None and not (len(spacing) == 2 and np.isfinite(spacing).all() and min(spacing) > 0):
        return f"spacing {spacing}"
    return ""
