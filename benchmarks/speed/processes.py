"""What the benchmark's cases need of the operating system: processes that start alike, and their memory and time."""

from __future__ import annotations

import multiprocessing
import platform
from pathlib import Path

__all__ = ["peak_bytes", "process_context", "resident_bytes"]


def process_context(preload: str) -> multiprocessing.context.BaseContext:
    """Processes that start alike: forked from a server that has imported module `preload`, where there is one.

    Within a process that came from such a server, new ones come from the same.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([preload])
    return context


def resident_bytes(entry: str = "VmRSS") -> int | None:
    """`VmRSS` (resident now) or `VmHWM` (its peak) of this process; None where the platform does not tell.

    The peak of `getrusage` will not do under Linux: a new process inherits that of the one that started it.
    """
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
    return int(fields[entry].split()[0]) * 1024


def peak_bytes() -> int | None:
    """Peak of this process's resident memory; None where the platform does not tell."""
    peak = resident_bytes("VmHWM")
    if peak is not None or platform.system() == "Windows":
        return peak
    import resource  # not on Windows

    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
