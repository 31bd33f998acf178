"""Work on many files in processes of which each may crash or hang without harm to the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection, get_all_start_methods, get_context, parent_process
from typing import Any

__all__ = ["Failed", "run_isolated"]

_CONTEXT = get_context("fork" if "fork" in get_all_start_methods() else "spawn")


@dataclass(frozen=True)
class Failed:
    """What comes back for a task that gave no result."""

    reason: str


@dataclass
class _Worker:
    """A process and what it is at."""

    function: Callable[[Any], Any]
    task: int | None = None
    since: float = 0.0
    pipe: Any = field(init=False)
    process: Any = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.pipe, theirs = _CONTEXT.Pipe()
        self.process = _CONTEXT.Process(target=_serve, args=(self.function, theirs), daemon=True)
        self.process.start()
        theirs.close()  # so that the end of the process ends the pipe

    def give(self, index: int, task: Any) -> None:
        if not self.process.is_alive():  # killed from outside between two tasks
            self.stop()
            self.start()
        self.task, self.since = index, time.monotonic()
        self.pipe.send(task)

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()

    def collect(self, limit: float) -> Any:
        """The result, a :class:`Failed`, or None while it works."""
        try:
            if self.pipe.poll():
                return self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode
            cause = f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"
            return Failed(f"reading it crashed the process ({cause})")
        return Failed(f"not read within {limit:g} s") if time.monotonic() - self.since > limit else None


def _serve(function: Callable[[Any], Any], pipe: Any) -> None:
    """Answer tasks until the parent closes the pipe or is gone."""
    while parent_process().is_alive():
        if not pipe.poll(1.0):
            continue
        try:
            task = pipe.recv()
        except EOFError:
            return
        try:
            result = function(task)
        except Exception as error:  # reported with its task; the message may hold text of the file
            result = Failed(f"reading it failed unexpectedly ({type(error).__name__})")
        pipe.send(result)


def run_isolated(
    function: Callable[[Any], Any], tasks: Sequence[Any], workers: int, limit: float
) -> Iterator[tuple[int, Any]]:
    """Call ``function`` on every task, each in one of a few processes.

    Args:
        function: of one task; module level. What it raises fails its task only.
        tasks: arguments that can be pickled.
        workers: number of processes, at least 1.
        limit: seconds for a task; a process that takes longer is killed and replaced.

    Yields:
        ``(index, result or Failed)`` in the order in which they come.
    """
    waiting = iter(range(len(tasks)))
    pool = [_Worker(function) for _ in range(min(workers, len(tasks)))]
    try:
        busy = [worker for worker in pool if _next(worker, waiting, tasks)]
        while busy:
            connection.wait([worker.pipe for worker in busy], timeout=min(limit, 1.0))
            for worker in list(busy):
                result = worker.collect(limit)
                if result is None:
                    continue
                index = worker.task
                if isinstance(result, Failed):
                    worker.stop()
                    worker.start()
                if not _next(worker, waiting, tasks):
                    busy.remove(worker)
                yield index, result
    finally:
        for worker in pool:
            worker.stop()


def _next(worker: _Worker, waiting: Iterator[int], tasks: Sequence[Any]) -> bool:
    """Give a worker its next task; whether there was one."""
    index = next(waiting, None)
    if index is None:
        return False
    worker.give(index, tasks[index])
    return True
