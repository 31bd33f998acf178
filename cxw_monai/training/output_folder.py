"""The output folder of a bundle's run: held by it alone, and told from folders of films."""

from __future__ import annotations

from os import PathLike

from cxw_monai.io.results import folders

from .processes import is_main_process

__all__ = ["hold_output", "release_output"]


def hold_output(folder: str | PathLike[str]) -> None:
    """Let no other run into an output folder until :func:`release_output` or the end of the process.

    A folder that is new or empty is marked as one of results, so that no search for films enters it. Of the processes
    of a distributed run, the main one does that.

    Args:
        folder: is made.

    Raises:
        OutputBusyError: another run is writing there.
        OSError: the folder can't be made or written; it names the folder.
    """
    if is_main_process():
        folders.hold_output(folder)
        folders.mark_own(folder)


def release_output(folder: str | PathLike[str]) -> None:
    """Give the folder back."""
    folders.release_output(folder)
