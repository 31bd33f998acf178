"""The checkpoint files of one run: written whole, checked when read, the last few kept.

`torch.distributed.checkpoint` is not used for it: it unpickles its metadata, has no checksums, and a folder of parts is
not there whole or not at all, as one file is.
"""

from __future__ import annotations

import logging
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.weights.files import CheckpointError, read_content

__all__ = ["CheckpointFiles", "read_checkpoint", "write_checkpoint"]

logger = logging.getLogger(__name__)

NAME = re.compile(r"checkpoint_epoch=(\d+)(?:_step=(\d+))?\.pt")
RESUME = "then continue with --resume true"


def write_checkpoint(content: Any, path: Path) -> None:
    """`torch.save` to a file that is there whole or not at all.

    Raises:
        CheckpointError: when it cannot be written, as on a full disk; what was at `path` before is untouched.
    """
    try:
        with atomic_file(path) as stream:
            torch.save(content, stream)
    except (OSError, RuntimeError) as error:  # torch reports its own failure on top of the disk's
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            raise
        reason = f"cannot be written ({cause.strerror or cause}) and is left out; checkpoints before it are whole"
        raise CheckpointError(path, reason, f"free or repair the disk, {RESUME}") from error


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint and compare every part of it with its checksum.

    `torch.save` stores a CRC-32 with each part of its zip file; `torch.load` does not look at them.

    Raises:
        CheckpointError: it is missing, cut off, altered, or not a checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(path, "no such file", "check the path")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, RuntimeError, ValueError, zlib.error) as error:
        reason = f"cut off or damaged ({type(error).__name__}: {error})"
        raise CheckpointError(path, reason, "resume from another checkpoint") from error
    if damaged is not None:
        raise CheckpointError(path, f"damaged: {damaged} has another checksum", "resume from another checkpoint")
    return read_content(path)


class CheckpointFiles:
    """The checkpoints in a folder.

    `checkpoint_epoch=<n>.pt` is the state after n epochs, `checkpoint_epoch=<n>_step=<m>.pt` that after n epochs and
    some of the next, m micro-batches in all.

    Args:
        folder: where they are.
        keep: how many stay; older ones are deleted. None keeps all.

    Raises:
        ValueError: when `keep` is not positive.
    """

    def __init__(self, folder: str | Path, keep: int | None = 2) -> None:
        if keep is not None and keep < 1:
            raise ValueError(f"keep must be at least 1, or None, got {keep}.")
        self.folder, self.keep = Path(folder), keep

    def path(self, iteration: int, epoch_length: int) -> Path:
        """File of the state after so many micro-batches."""
        epochs, more = divmod(iteration, epoch_length)
        return self.folder / f"checkpoint_epoch={epochs}{f'_step={iteration}' if more else ''}.pt"

    def all(self) -> list[Path]:
        """Checkpoints in the folder, oldest first."""
        found = [(NAME.fullmatch(path.name), path) for path in self.folder.glob("checkpoint_epoch=*.pt")]
        order = {path: (int(match[1]), int(match[2] or 0)) for match, path in found if match}
        return sorted(order, key=order.__getitem__)

    def write(self, content: Mapping[str, Any], path: Path) -> None:
        """Write a checkpoint, then delete those that are no longer kept."""
        write_checkpoint(dict(content), path)
        if self.keep is not None:
            for old in self.all()[: -self.keep]:
                old.unlink()

    def newest(self, set_aside: bool = True) -> tuple[Path, dict[str, Any]] | None:
        """The newest checkpoint that is whole, and what it holds; None where there are no checkpoints.

        Damaged ones are logged and set aside.

        Args:
            set_aside: false leaves all files as they are, and says nothing.

        Raises:
            CheckpointError: there are checkpoints, but none of them can be read.
        """
        found = self.all()
        for path in reversed(found):
            try:
                content = read_checkpoint(path)
            except CheckpointError as error:
                if set_aside:
                    logger.warning("%s: %s. Going back to the checkpoint before it.", path, error.reason)
                damaged = error
            else:
                if set_aside:
                    self.set_aside_after(path)
                return path, content
        if found:
            raise CheckpointError(damaged.path, f"{damaged.reason}, and no other is whole", "start again without it")
        return None

    def set_aside_after(self, path: Path) -> None:
        """Rename checkpoints newer than `path`: a run that is resumed there would take them for its own."""
        found = self.all()
        for newer in found[found.index(path) + 1 :] if path in found else []:
            aside = newer.with_suffix(".pt.aside")
            newer.replace(aside)
            logger.warning("%s is newer than where this run resumes: renamed to %s.", newer, aside.name)

    def remove_leftovers(self) -> None:
        """Delete what a process that was killed while it wrote has left."""
        for path in self.folder.glob(".*.pt.*.part"):
            path.unlink()
            logger.info("Deleted %s, left by a process that was killed while it wrote.", path)
