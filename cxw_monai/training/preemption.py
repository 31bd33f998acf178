"""SIGTERM, the notice that a scheduler (Slurm, Kubernetes, torchrun) gives before it takes a machine away."""

from __future__ import annotations

import gc
import os
import signal
import threading
from types import FrameType, TracebackType

__all__ = ["Preemption", "prepare_worker"]


class Preemption:
    """Notes SIGTERM while it is entered, instead of ending the process in the middle of a step.

    Outside the main thread, which alone may handle signals, it does nothing.

    Attributes:
        requested: whether SIGTERM has come.
        exit_code: 143, which is 128 + SIGTERM: what a shell reports of a program ended by it, and what Kubernetes'
            `restartPolicy: ExitCode` starts again.
    """

    exit_code = 128 + signal.SIGTERM

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> Preemption:
        self._handles = threading.current_thread() is threading.main_thread()
        if self._handles:
            self._previous = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handles:
            signal.signal(signal.SIGTERM, self._previous)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True


def prepare_worker(worker: int = 0) -> None:
    """Let a loader's worker share its parent's memory and outlive a scheduler's SIGTERM; a `worker_init_fn`.

    A forked worker shares the pages of all that its parent holds, a million rows of a manifest among them, until it
    writes to them. Python's garbage collector would: it marks every object it visits. What was there before the fork is
    kept out of its reach.

    Slurm and torchrun send SIGTERM to every process of a run. A worker that ended by it would fail the step that the
    training process is about to finish and save. The parent itself ends its workers with SIGTERM, so that one counts.
    Where the system cannot tell who sent a signal (macOS), workers end as before.

    Args:
        worker: the worker's number, as the loader gives it.
    """
    gc.freeze()
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()


def _end_with_parent(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
