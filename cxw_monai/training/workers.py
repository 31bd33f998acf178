"""What a loader's worker does before its first sample."""

from __future__ import annotations

import gc

from .preemption import shield_from_sigterm

__all__ = ["prepare_worker"]


def prepare_worker(worker: int = 0) -> None:
    """Let a worker share its parent's memory and outlive a scheduler's SIGTERM; a `worker_init_fn`.

    A forked worker shares the pages of all that its parent holds, a million rows of a manifest among them, until it
    writes to them. Python's garbage collector would: it marks every object it visits. What was there before the fork is
    kept out of its reach.

    Args:
        worker: the worker's number, as the loader gives it.
    """
    gc.freeze()
    shield_from_sigterm()
