"""SIGTERM, the notice that a scheduler (Slurm, Kubernetes, torchrun) gives before it takes a machine away."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType

__all__ = ["Preemption", "shield_from_sigterm"]


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


def shield_from_sigterm() -> None:
    """Let a loader's worker, which calls this, outlive a SIGTERM that does not come from its parent.

    Slurm and torchrun send SIGTERM to every process of a run. A worker that ended by it would fail the step that the
    training process is about to finish and save. The parent itself ends its workers with SIGTERM, so that one counts.
    Where the system cannot tell who sent a signal (macOS), workers end as before.
    """
    if not hasattr(signal, "sigwaitinfo"):
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()


def _end_with_parent(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
