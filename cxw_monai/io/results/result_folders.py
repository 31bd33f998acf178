"""The marker of folders that hold results, so that whoever looks for films passes them by."""

from __future__ import annotations

import os
import stat
from os import PathLike
from pathlib import Path

from cxw_monai.io.files.atomic import atomic_file

__all__ = ["MARKER", "is_result_folder", "mark"]

MARKER = ".cxw_results"
"""Name of the file that marks the folder it lies in, with all below it."""

_TEXT = (
    "The files in this folder are results, not films: searches for films leave it out. Delete this file to end that.\n"
)


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
