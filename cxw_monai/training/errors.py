"""Errors of a bundle run as one clear line."""

from __future__ import annotations

import re
import sys
import traceback
from pathlib import Path
from types import TracebackType

from cxw_monai.io import RadiographError
from cxw_monai.io.files.disk_errors import disk_message
from cxw_monai.io.files.printable import printable, printable_lines
from cxw_monai.io.results.folders import holds_output
from cxw_monai.weights.encoder import CheckpointError

from .non_finite import NonFiniteLossError
from .processes import is_main_process

__all__ = ["install_error_hook", "plain_message", "root_cause", "runs_bundle_command"]

PLAIN = (CheckpointError, RadiographError, NonFiniteLossError, FileExistsError, FileNotFoundError)
"""What a user can mend without seeing a traceback."""
PACKAGE = str(Path(__file__).parents[1])
LOADER = re.compile(r"DataLoader worker .*(killed by signal|exited unexpectedly)")
LOADER_FILE = "torch/utils/data/dataloader.py"
RAISED_IN_LOADER = re.compile(r"Caught \w+ in DataLoader worker")
FRAME = re.compile(r'  File "([^"]+)", line \d+')
"""A line of a traceback in a worker's message."""


def plain_message(error: BaseException) -> str | None:
    """What to show of an error that a user can mend without seeing a traceback; None for any other.

    These are `PLAIN`, a `ValueError` that this package raises on purpose, errors of the file system, and a loader's
    worker that was killed.
    """
    text = str(error)
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, (ConnectionError, EOFError)) and any(Path(f.filename).match(LOADER_FILE) for f in frames):
        text = f"DataLoader worker exited unexpectedly ({text or type(error).__name__})"  # killed as it handed over
    if LOADER.search(text):
        return (
            f"{text.strip().rstrip('.')}: a process that loads images was killed, often for lack of memory. Lower "
            "num_workers or batch_size, then continue with --resume true."
        )
    if RAISED_IN_LOADER.match(text):
        *above, last = text.strip().splitlines()
        raised = [
            (file[1], line.strip()) for file, line in zip(map(FRAME.match, above), above[1:], strict=False) if file
        ]
        ours = isinstance(error, ValueError) and bool(raised) and _on_purpose(*raised[-1])
        return last.partition(": ")[2] or last if ours or isinstance(error, PLAIN) else None
    if isinstance(error, OSError) and (said := disk_message(error)) is not None:
        return f"{said}, then continue with --resume true."
    if isinstance(error, PLAIN):
        return text
    ours = isinstance(error, ValueError) and bool(frames) and _on_purpose(frames[-1].filename, frames[-1].line or "")
    return text if ours else None


def _on_purpose(file: str, line: str) -> bool:
    """Whether an error comes from a `raise` of this package, not from a call that failed in one of its lines."""
    return file.startswith(PACKAGE) and line.startswith("raise ")


def root_cause(error: BaseException) -> BaseException:
    """The error of a chain that says most to a user.

    MONAI wraps what a config's component raises, and this package's own errors are raised from lower ones (of a parser,
    a decoder), which name no file: the first that has a `plain_message`, from the outside in, is the one to show. Where
    none has, the innermost.
    """
    while plain_message(error) is None:
        cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if cause is None:
            break
        error = cause
    return error


def runs_bundle_command() -> bool:
    """Whether this program is ``python -m monai.bundle``."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return spec is not None and spec.name.startswith("monai.bundle")


def install_error_hook() -> None:
    """Let an uncaught error end the program with one line `error: ...` that says what to do.

    Errors other than those a user can mend show their traceback first. The exit status is 1, or 2 where nothing was
    begun: a setting or a file was refused, or another run writes to the output. A program that isn't
    ``python -m monai.bundle`` but loads a bundle (a notebook, a server) keeps its own way with errors.
    """
    if not runs_bundle_command():
        return

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        cause = root_cause(error)
        if isinstance(error, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
            return
        message = plain_message(cause)
        if message is None:
            print(printable_lines("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr)
        print(f"error: {printable(cause if message is None else message)}", file=sys.stderr)
        if message is not None and is_main_process() and not holds_output():  # the other processes hold nothing
            raise SystemExit(2)  # Python ends with it

    sys.excepthook = show
