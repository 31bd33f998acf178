"""Errors of a bundle run as one clear line."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from types import TracebackType

from cxw_monai.checkpoints import CheckpointError
from cxw_monai.io import RadiographError

from .iteration import NonFiniteLossError

__all__ = ["install_error_hook", "root_cause"]

PLAIN = (CheckpointError, RadiographError, NonFiniteLossError, FileExistsError, FileNotFoundError)
"""What a user can mend without seeing a traceback."""
PACKAGE = str(Path(__file__).parents[1])


def is_plain(error: BaseException) -> bool:
    """Whether the message is enough: one of `PLAIN`, or a `ValueError` that this package raises on purpose."""
    if isinstance(error, PLAIN):
        return True
    frames = traceback.extract_tb(error.__traceback__)
    return isinstance(error, ValueError) and bool(frames) and frames[-1].filename.startswith(PACKAGE)


def root_cause(error: BaseException) -> BaseException:
    """The first error of a chain: MONAI wraps what a config's component raises."""
    while (cause := error.__cause__ or (None if error.__suppress_context__ else error.__context__)) is not None:
        if isinstance(error, PLAIN):
            break
        error = cause
    return error


def install_error_hook() -> None:
    """Let an uncaught error end the program with one line `error: ...` that says what to do.

    Errors other than those a user can mend show their traceback first.
    """

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        cause = root_cause(error)
        if isinstance(error, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
            return
        if not is_plain(cause):
            traceback.print_exception(kind, error, trace)
        print(f"error: {cause}", file=sys.stderr)

    sys.excepthook = show
