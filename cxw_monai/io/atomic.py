"""Files that are either there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import IO, Any

__all__ = ["atomic_file"]


@contextmanager
def atomic_file(path: str | PathLike[str], mode: str = "wb", **how: Any) -> Iterator[IO[Any]]:
    """Open a file for writing that replaces `path` only when all is written and on the disk.

    A killed or failed writer leaves the old file, or none; a failed one leaves nothing else behind either.

    Args:
        path: the file; its folder is made.
        mode: `wb` or `w`.
        how: further arguments of `open`, such as `newline`.

    Raises:
        OSError: if the folder can't be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, mode, **how) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
