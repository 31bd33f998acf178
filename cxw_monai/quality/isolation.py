"""Work on many files in processes of which each may crash or hang without harm to the others.

Not pebble's pool (5.2): there, a process that is killed between two tasks ends the whole pool, and one that exits with
status 0 counts as working until its time is up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection, get_all_start_methods, get_context, parent_process
from typing import Any

__all__ = ["Failed", "run_isolated"]

_CONTEXT: Any = get_context("fork" if "fork" in get_all_start_methods() else "spawn")


@dataclass(frozen=True)
class Failed:
    """What comes back for a task that gave no result."""

    reason: str


class _Worker:
    """A process and the number of the task that it is at."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function, self.task, self._since = function, -1, 0.0
        self._start()

    def _start(self) -> None:
        self.pipe, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_serve, args=(self._function, theirs), daemon=True)
        self._process.start()
        theirs.close()  # so that the end of the process ends the pipe

    def stop(self) -> None:
        self._process.kill()
        self._process.join()
        self.pipe.close()

    def restart(self) -> None:
        self.stop()
        self._start()

    def give(self, index: int, task: Any) -> None:
        self.task, self._since = index, time.monotonic()
        try:
            self.pipe.send(task)
        except OSError:  # the process was killed between two tasks
            self.restart()
            self.pipe.send(task)

    def collect(self, limit: float) -> Any:
        """The result, a :class:`Failed`, or None while it works."""
        try:
            if self.pipe.poll():
                return self.pipe.recv()
        except (EOFError, OSError):
            self._process.join()
            code = self._process.exitcode
            cause = f"signal {-code}" if code < 0 else f"exit status {code}"
            return Failed(f"reading it crashed the process ({cause})")
        return Failed(f"not read within {limit:g} s") if time.monotonic() - self._since > limit else None


def _serve(function: Callable[[Any], Any], pipe: connection.Connection) -> None:
    """Answer tasks until the parent closes the pipe or is gone."""
    parent = parent_process()
    while parent is not None and parent.is_alive():
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
    waiting = iter(enumerate(tasks))
    pool = [_Worker(function) for _ in range(min(workers, len(tasks)))]
    try:
        busy = list(pool)
        for worker in busy:
            worker.give(*next(waiting))
        while busy:
            connection.wait([worker.pipe for worker in busy], timeout=min(limit, 1.0))
            for worker in list(busy):
                result, index = worker.collect(limit), worker.task
                if result is None:
                    continue
                if isinstance(result, Failed):
                    worker.restart()
                following = next(waiting, None)
                if following is None:
                    busy.remove(worker)
                else:
                    worker.give(*following)
                yield index, result
    finally:
        for worker in pool:
            worker.stop()
