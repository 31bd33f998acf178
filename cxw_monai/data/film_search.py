"""Finds the films in a folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

from cxw_monai.io.results.folders import is_result_folder

__all__ = ["IMAGE_EXTENSIONS", "find_images"]

IMAGE_EXTENSIONS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom", ".nii", ".nii.gz", ".nrrd")
"""Extensions that :func:`find_images` takes, in any case."""

_MASK_FOLDERS = {"masks", "finding_masks"}  # as public data sets and rendering write them
_SHOWN = 5  # folders named in the log
_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".7z", ".rar")

_logger = logging.getLogger(__name__)


def find_images(folder: str | PathLike[str]) -> list[dict[str, Any]]:
    """Search a folder and everything below it for radiographs.

    Taken: files with one of :data:`IMAGE_EXTENSIONS` (any case), and files without an extension (or named by a UID,
    whose last part is a number) that carry DICOM's ``DICM`` mark. Left out: hidden files and folders (a leading dot),
    folders named ``masks`` or ``finding_masks``, and folders that hold results of this package
    (:mod:`cxw_monai.io.results.folders`); one line in the log counts these. Links to folders are followed, each
    folder once, but not to one that holds the folder searched; a link to a file below that folder is no second film.

    Args:
        folder: where to search.

    Returns:
        ``{"image": absolute path}`` per file, sorted by the path below ``folder``.

    Raises:
        ValueError: ``folder`` isn't a folder.
    """
    root = Path(os.path.abspath(folder))
    if not root.is_dir():
        raise ValueError(f"{folder}: not a folder; give the folder that holds the radiographs")
    left_out: list[str] = []
    files = list(_walk(root, left_out))
    found = [path for path in files if _is_image(path)]
    if packed := [path for path in files if path.name.lower().endswith(_ARCHIVES)]:
        shown = ", ".join(repr(os.path.relpath(path, root)) for path in packed[:_SHOWN])
        _logger.warning("%s: %d archives are not looked into (%s); unpack them", root, len(packed), shown)
    if left_out:
        named = ", ".join(repr(os.path.relpath(path, root)) for path in left_out[:_SHOWN])
        more = ", ..." if len(left_out) > _SHOWN else ""
        _logger.warning("%s: left out %d folders of masks or results, no films: %s%s", root, len(left_out), named, more)
    if is_result_folder(root):
        _logger.warning("%s: holds results of cxw_monai; pictures among them are taken for films", root)
    found.sort(key=lambda path: path.relative_to(root).as_posix())
    return [{"image": str(path)} for path in found]


def _walk(root: Path, left_out: list[str]) -> Iterator[Path]:
    """Every file below ``root`` that isn't hidden, a mask or a result; folders of these are added to ``left_out``."""
    seen: set[str] = set()
    real_root = os.path.realpath(root)
    for parent, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen or (real != real_root and _lies_in(real_root, real)):
            folders.clear()
            continue
        seen.add(real)
        if Path(parent) != root and (os.path.basename(parent).lower() in _MASK_FOLDERS or is_result_folder(parent)):
            left_out.append(parent)
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = (Path(parent, name) for name in files if not name.startswith("."))
        yield from (path for path in paths if not (path.is_symlink() and _lies_in(os.path.realpath(path), real_root)))


def _lies_in(path: str, folder: str) -> bool:
    """Whether a path lies below a folder, both without links."""
    return path.startswith(os.path.join(folder, ""))


def _is_image(path: Path) -> bool:
    """By extension or, without one, by DICOM's mark."""
    if path.name.lower().endswith(IMAGE_EXTENSIONS):
        return True
    extension = path.suffix[1:]
    if (extension and not extension.isdigit()) or not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"
