"""Folders of results: marked, so that searches for films leave them out, and written to by one run at a time."""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

from filelock import FileLock, Timeout

from cxw_monai.io.files.atomic import atomic_file, check_writable

__all__ = [
    "LOCK",
    "MARKER",
    "OutputBusyError",
    "hold_output",
    "holds_output",
    "is_result_folder",
    "mark",
    "mark_own",
    "output_lock",
    "release_output",
]

MARKER = ".cxw_results"
"""Name of the file that marks the folder it lies in, with all below it."""

LOCK = ".cxw_lock"
"""Name of the file that is locked. It stays when the lock is gone, and means nothing then."""

_TEXT = (
    "The files in this folder are results, not films: searches for films leave it out. Delete this file to end that.\n"
)
_PATIENCE = 2.0  # s; processes that a killed run had started may hold its lock until they notice
_UNSUPPORTED = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}

_logger = logging.getLogger(__name__)
_held: dict[str, FileLock | None] = {}  # None where the file system has no locks


class OutputBusyError(ValueError):
    """Another run writes to the output folder."""


@contextmanager
def output_lock(folder: str | PathLike[str]) -> Iterator[None]:
    """Let no other run into an output folder, on this machine or, where the file system has locks, on another.

    The folder is made. The system holds the lock (``flock``): it ends with the process, however that ends, and leaves
    only an empty file. Without locks in the file system (some network mounts), the run continues with a warning.

    Raises:
        OutputBusyError: another run has it.
        OSError: the folder can't be made or written; it names the folder.
    """
    lock = _locked(folder)
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def hold_output(folder: str | PathLike[str]) -> None:
    """Take an :func:`output_lock` until :func:`release_output` or the end of this process.

    A process that has it already keeps it. A folder that is new or empty is marked as one of results.

    Raises:
        OutputBusyError, OSError: as :func:`output_lock`.
    """
    key = os.path.realpath(folder)
    if key not in _held:
        _held[key] = _locked(folder)
    mark_own(folder)


def holds_output() -> bool:
    """Whether this process holds a folder by :func:`hold_output`: a run was begun."""
    return bool(_held)


def release_output(folder: str | PathLike[str]) -> None:
    """Give a folder back that this process holds; any other stays as it is."""
    lock = _held.pop(os.path.realpath(folder), None)
    if lock is not None:
        lock.release()


def mark(folder: str | PathLike[str]) -> None:
    """Mark a folder as one of results; it is made if it isn't there.

    Raises:
        OSError: it can't be written; it names the marker.
    """
    if not is_result_folder(folder):
        with atomic_file(Path(folder) / MARKER, "w", encoding="utf-8") as stream:
            stream.write(_TEXT)


def is_result_folder(folder: str | PathLike[str]) -> bool:
    """Whether a folder itself is marked (its parents aren't looked at)."""
    try:
        return stat.S_ISREG(os.lstat(os.path.join(folder, MARKER)).st_mode)
    except OSError:  # not there, or not readable, which the search itself reports
        return False


def mark_own(folder: str | PathLike[str]) -> bool:
    """Mark a folder as one of results if it is new or empty; one with other files, films perhaps, stays as it is.

    Returns:
        Whether the folder is marked, now or before.

    Raises:
        OSError: it can't be written; it names the marker.
    """
    if is_result_folder(folder):
        return True
    if os.path.isdir(folder) and set(os.listdir(folder)) - {LOCK}:
        return False
    mark(folder)
    return True


def _locked(folder: str | PathLike[str]) -> FileLock | None:
    """A lock that is held; None where the file system has none."""
    check_writable(folder)
    lock = FileLock(Path(folder) / LOCK, timeout=_PATIENCE)
    try:
        lock.acquire(poll_interval=0.1)
    except Timeout:
        reason = f"{folder}: another run is writing there; wait for its end, or give another output folder"
        raise OutputBusyError(reason) from None
    except (OSError, NotImplementedError) as error:  # the latter of older versions of filelock
        if isinstance(error, OSError) and error.errno not in _UNSUPPORTED:
            raise
        _logger.warning("%s: its file system has no locks: see to it that no other run writes there", folder)
        return None
    return lock
