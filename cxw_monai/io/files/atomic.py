"""Files that are either there whole or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import IO, Any

__all__ = ["atomic_file", "check_writable", "sync_descriptor"]


_BEGINNING = 48  # characters of the name, of up to 4 bytes: a file system takes 255 bytes with what is added


@contextmanager
def atomic_file(path: str | PathLike[str], mode: str = "wb", **how: Any) -> Iterator[IO[Any]]:
    """Open a file for writing that replaces `path` only when all is written and on the disk.

    A killed or failed writer leaves the old file, or none; a failed one leaves nothing else behind either.

    Args:
        path: the file; its folder is made.
        mode: `wb` or `w`.
        how: further arguments of `open`, such as `newline`.

    Raises:
        OSError: if the folder can't be written; it names ``path``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beginning = path.name[:_BEGINNING]
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{beginning}.", suffix=".part")
    try:
        with os.fdopen(handle, mode, **how) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException as error:
        cause: BaseException | None = error  # torch raises an error of its own on top of the disk's
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__context__
        if cause is not None and cause.errno is None:  # NumPy's says how much it wrote, and not why that wasn't all
            cause.errno = _why_not_written(temporary)
            cause.strerror = os.strerror(cause.errno)
        Path(temporary).unlink(missing_ok=True)
        if cause is not None and cause.filename in (None, temporary):
            cause.filename = str(path)
        raise


def _why_not_written(path: str) -> int:
    """The system's error number when more is written to a file that could not be written whole."""
    try:
        with open(path, "ab", buffering=0) as stream:
            for _ in range(3):  # what is left of the disk may take a part
                stream.write(bytes(2**16))
    except OSError as error:
        return error.errno or errno.EIO
    return errno.EIO


def check_writable(folder: str | PathLike[str]) -> None:
    """Make a folder and write to it, so that a long computation doesn't find out at its end that it can't.

    Raises:
        OSError: if the folder can't be made or written; it names the folder.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as stream:
            stream.write(b"\0")
            stream.flush()
    except OSError as error:
        error.filename = str(folder)
        raise


def sync_descriptor(folder: int | None) -> None:
    """Bring a rename to the disk: of an open folder, where the system can open (not Windows) and sync them."""
    if folder is None:
        return
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        sync_descriptor(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
