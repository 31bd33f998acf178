"""Files in folders that other users can reach: used only where nobody else can have written or planted them.

Rules, on systems with POSIX permissions:

- No link is followed to the folder itself or to a file in it (links on the way to the folder are the caller's own).
- Folder and files belong to the user or to root, and nobody else may write them. A folder of the user's own that others
  may write is closed to them (``chmod go-w``); a file that they may write is refused. Where a disk doesn't keep
  permissions (some network and Windows disks), this is unknown: a warning says so, once, and the files are used.
- Only regular files are opened, and nothing is appended to a file that has a second name (a hard link).
- New files appear whole, under a name that can't be foreseen until they are finished.

All is checked on open descriptors, so that nothing can be exchanged between check and use.
"""

from __future__ import annotations

import logging
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from os import PathLike
from pathlib import Path
from typing import IO

from filelock import FileLock

from .atomic import sync_descriptor

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["OwnFolder", "UnsafeFileError", "own_lock"]

_POSIX = os.name == "posix"
_SAFE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)  # no waiting at FIFOs
_SAFE |= getattr(os, "O_BINARY", 0)
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_FLAGS = {"rb": os.O_RDONLY, "ab": os.O_WRONLY | os.O_APPEND | os.O_CREAT}
_ODD = "is a link, or no regular file"
_DELETE = "delete it (not what it points to)"
_CLOSED = "other users could write it; it is closed to them now (chmod go-w)"
_NO_MODES = "this disk doesn't say who may write a file: share it only with people you trust"

_logger = logging.getLogger(__name__)


class UnsafeFileError(ValueError):
    """A file or folder that another user may have written or planted; the message names it and a way out."""


class OwnFolder:
    """A folder whose files only this user, or root, can have written.

    Args:
        path: the folder; it needn't exist yet.
        setting: the setting that chooses where it is, named in errors.
    """

    def __init__(self, path: str | PathLike[str], setting: str) -> None:
        self.path, self._setting = Path(path), setting

    def make(self) -> None:
        """Make the folder (0755 at most, whatever the umask) and the folders around it.

        Raises:
            UnsafeFileError: what is there can't be trusted.
            OSError: it can't be made.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.path.mkdir(0o755)
        except FileExistsError:
            with self._descriptor():
                pass

    @contextmanager
    def open(self, name: str, mode: str = "rb") -> Iterator[IO[bytes]]:
        """Open a file for reading (``rb``) or appending (``ab``, unbuffered; made where it isn't there).

        Raises:
            UnsafeFileError: the file or the folder can't be trusted.
            OSError: there is no such file, or it can't be opened.
        """
        path = self.path / name
        with self._descriptor() as (folder, keeps_modes):
            handle = _opened(path, _FLAGS[mode], folder, self._setting)
        with os.fdopen(handle, mode, buffering=-1 if mode == "rb" else 0) as stream:
            if _POSIX:
                self._check_file(path, os.fstat(handle), mode, keeps_modes)
            yield stream

    @contextmanager
    def replace(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file for writing that replaces ``name`` only when all is written and on the disk.

        Raises:
            UnsafeFileError: the folder can't be trusted.
            OSError: it can't be written.
        """
        temporary = f".{name}.{secrets.token_hex(8)}.part"
        with self._descriptor() as (folder, _):
            place = self._place(temporary, folder)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _SAFE
            handle = os.open(place, flags, 0o644, dir_fd=folder)
            try:
                with os.fdopen(handle, "w+b") as stream:
                    yield stream
                    stream.flush()
                    os.fsync(stream.fileno())
                os.replace(place, self._place(name, folder), src_dir_fd=folder, dst_dir_fd=folder)
                sync_descriptor(folder)
            except BaseException:
                os.unlink(place, dir_fd=folder)
                raise

    def remove(self, name: str) -> None:
        """Delete a file, or a link (not what it points to), if it is there."""
        with self._descriptor() as (folder, _):
            try:
                os.unlink(self._place(name, folder), dir_fd=folder)
            except FileNotFoundError:
                return

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder's lock, ``<folder>.lock`` beside it; none where the folder may only be read.

        Raises:
            UnsafeFileError: the folder or the lock can't be trusted.
            OSError: the lock can't be made, or the disk knows no locks.
        """
        if self.path.is_dir() and not os.access(self.path, os.W_OK):
            yield
        else:
            with own_lock(f"{self.path}.lock", self._setting):
                yield

    @contextmanager
    def _descriptor(self) -> Iterator[tuple[int | None, bool]]:
        """``(descriptor, whether the disk keeps permissions)`` of the checked folder; none outside POSIX systems."""
        if not _POSIX:
            yield None, False
            return
        try:
            handle = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | _SAFE)
        except OSError:
            if os.path.lexists(self.path) and not stat.S_ISDIR(os.lstat(self.path).st_mode):
                raise _refused(self.path, "is a link, or no folder", _DELETE, self._setting) from None
            raise
        try:
            yield handle, self._check_folder(handle)
        finally:
            os.close(handle)

    def _check_folder(self, handle: int) -> bool:
        """Whether the disk keeps permissions."""
        status = os.fstat(handle)
        _check_owner(self.path, status, self._setting)
        if not status.st_mode & _OTHERS_WRITE:
            return True
        if status.st_uid != os.geteuid():
            raise _refused(self.path, "may be written by other users", "have root run chmod go-w on it", self._setting)
        try:
            os.fchmod(handle, stat.S_IMODE(status.st_mode) & ~_OTHERS_WRITE)
            closed = not os.fstat(handle).st_mode & _OTHERS_WRITE
        except OSError:
            closed = False
        _warn_once(self.path, _CLOSED if closed else _NO_MODES)
        return closed

    def _check_file(self, path: Path, status: os.stat_result, mode: str, keeps_modes: bool) -> None:
        _check_owner(path, status, self._setting)
        if keeps_modes and status.st_mode & _OTHERS_WRITE:
            raise _refused(path, "may have been written by other users", "delete it", self._setting)
        if mode != "rb" and status.st_nlink > 1:
            raise _refused(
                path, "has a second name (a hard link), which would be written too", "delete it", self._setting
            )

    def _place(self, name: str, folder: int | None) -> str:
        return name if folder is not None else str(self.path / name)


@contextmanager
def own_lock(path: str | PathLike[str], setting: str) -> Iterator[None]:
    """Hold a lock on a file that is made where it isn't there, and never written.

    The system holds the lock: it ends with the process, however that ends.

    Raises:
        UnsafeFileError: it is a link, no regular file, or another user's.
        OSError: it can't be made, or the disk knows no locks.
    """
    path = Path(path)
    if fcntl is None:
        with FileLock(path):
            yield
        return
    with os.fdopen(_opened(path, os.O_RDWR | os.O_CREAT, None, setting), "rb+") as stream:
        _check_owner(path, os.fstat(stream.fileno()), setting)
        try:
            fcntl.flock(stream, fcntl.LOCK_EX)
        except OSError as error:
            raise OSError(error.errno, f"its disk has no file locks: {error.strerror}", str(path)) from error
        yield


def _opened(path: Path, flags: int, folder: int | None, setting: str) -> int:
    """Descriptor of a regular file; where ``folder`` is given, the name in it is opened."""
    place = str(path) if folder is None else path.name
    try:
        handle = os.open(place, flags | _SAFE, 0o644, dir_fd=folder)
    except OSError as error:
        error.filename = str(path)
        if _is_odd(place, folder):
            raise _refused(path, _ODD, _DELETE, setting) from None
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise _refused(path, _ODD, _DELETE, setting)
    return handle


def _check_owner(path: Path, status: os.stat_result, setting: str) -> None:
    if status.st_uid not in (os.geteuid(), 0):
        raise _refused(path, f"belongs to another user (number {status.st_uid})", "don't use it", setting)


def _refused(path: Path, reason: str, remedy: str, setting: str) -> UnsafeFileError:
    return UnsafeFileError(f"{path}: {reason}; {remedy}, or set {setting} to a folder of your own")


def _is_odd(place: str, folder: int | None) -> bool:
    """Whether something is there that is no regular file."""
    try:
        return not stat.S_ISREG(os.stat(place, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False


@cache
def _warn_once(path: Path, what: str) -> None:
    _logger.warning("%s: %s", path, what)
