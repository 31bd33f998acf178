"""Whether a file is still the one that results were made from, and whether two names are those of one file."""

from __future__ import annotations

import errno
import hashlib
import os
import unicodedata
from os import PathLike
from typing import NamedTuple

__all__ = ["FileIdentity", "file_identity", "file_state", "folded_name"]


class FileIdentity(NamedTuple):
    """A file's content and state."""

    size: int  # bytes
    modified_ns: int  # ns since 1970
    sha256: str  # of the content, 64 hexadecimal digits


def file_state(path: str | PathLike[str]) -> tuple[int, int] | None:
    """Size and time of change of a file; None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def file_identity(path: str | PathLike[str]) -> FileIdentity:
    """Read a regular file to its end.

    Raises:
        OSError: it can't be read, or isn't a regular file (a pipe would never end).
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError(errno.EINVAL, "Not a regular file", os.fspath(path))
    with open(path, "rb") as stream:
        found, digest = os.fstat(stream.fileno()), hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    return FileIdentity(found.st_size, found.st_mtime_ns, digest.hexdigest())


def folded_name(name: str) -> str:
    """What is the same for names that some file system takes for one: without case, in one Unicode form."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
