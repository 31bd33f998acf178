"""One name for each film of a run, and one folder for its results.

A film's name is its path below the input, or its whole path where it lies elsewhere. What can't be shown, and the
percent sign, is written as in a URL (``%0A`` for a line end, ``%FF`` for a byte that is no character), so a name is one
line of UTF-8, no two films share one, and :func:`film_path` leads back to the file. It doesn't depend on the films
beside it.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from pathlib import PurePosixPath
from urllib.parse import unquote

from cxw_monai.io.files.identity import folded_name

__all__ = ["film_name", "film_path", "result_folders"]

_LONGEST = 120  # bytes of a folder's name; file systems take 255, some encrypted ones 143
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)  # files of that name in Windows


def film_name(path: str | PathLike[str], root: str | PathLike[str] | None = None) -> str:
    """A film's name in tables.

    Args:
        path: the film's file.
        root: the folder that the user named as the input; None for the whole path.

    Returns:
        The path below ``root``, or from the file system's root for a film elsewhere, with ``/`` between its parts.
    """
    whole = os.path.abspath(path)
    if root is not None:
        above = os.path.join(os.path.abspath(root), "")
        whole = whole[len(above) :] if whole.startswith(above) else whole
    return "/".join(_escaped(part) for part in whole.split(os.sep))


def film_path(name: str, root: str | PathLike[str] = "") -> str:
    """The file of a name that :func:`film_name` gave with the same ``root``."""
    parts = (unquote(part, "utf-8", "surrogateescape") for part in name.split("/"))
    return os.path.join(root, os.sep.join(parts))


def result_folders(
    sources: Iterable[str | PathLike[str]],
    root: str | PathLike[str] | None = None,
    reserved: Iterable[str] = (),
    kept: Mapping[str, str] | None = None,
) -> dict[str, PurePosixPath]:
    """A folder for the results of each film of a run.

    A film's folder is its name without the ending. Where several would have the same (``a.png`` and ``a.dcm``) all of
    them keep the ending, and where that isn't enough (``A.png`` and ``a.png``, one folder to some file systems) a hash
    of the name is added. Characters and names that some file systems refuse are written as in a URL, long names are cut
    and end with a hash. The outcome doesn't depend on the order of the films.

    Args:
        sources: paths of all films of the run.
        root: as for :func:`film_name`; None takes the folder that all films share.
        reserved: names that no part of a folder may have, in any case.
        kept: folder by film name of results that are there: their films keep them, and no other film gets them.

    Returns:
        Absolute path of a film (as ``os.path.abspath`` gives it) to a relative path without ``..``.
    """
    paths = sorted({os.path.abspath(path) for path in sources})
    if root is None and paths:
        root = os.path.commonpath([os.path.dirname(path) for path in paths])
    names = {path: film_name(path, root) for path in paths}
    ours = {name.casefold() for name in reserved}
    kept = kept or {}
    folders = {}
    for path, name in names.items():
        choices = [str(make(name, ours)) for make in _CHOICES]
        if kept.get(name) in choices:  # what a table says is no path to be trusted
            folders[path] = PurePosixPath(kept[name])
    taken = set(map(folded_name, kept.values()))
    for make in _CHOICES:
        wanted = {path: make(name, ours) for path, name in names.items() if path not in folders}
        keys = {path: folded_name(str(folder)) for path, folder in wanted.items()}
        uses = Counter(keys.values())
        found = [path for path, key in keys.items() if uses[key] == 1 and key not in taken]
        folders |= {path: wanted[path] for path in found}
        taken |= {keys[path] for path in found}
    return folders


def _escaped(part: str) -> str:
    """A part of a path with everything that can't be shown, ``%`` and the backslash as in a URL."""
    if part.isprintable() and "%" not in part and "\\" not in part:
        return part
    return "".join(char if char.isprintable() and char not in "%\\" else _percent(char) for char in part)


def _percent(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode("utf-8", "surrogateescape"))


def _plain(name: str, reserved: set[str]) -> PurePosixPath:
    """The folder of a film by its name without the ending."""
    above, _, last = name.rpartition("/")
    stem = last[: -len(".nii.gz")] if last.lower().endswith(".nii.gz") else os.path.splitext(last)[0]
    return _folder(f"{above}/{stem}" if "/" in name else stem, reserved)


def _hashed(name: str, reserved: set[str]) -> PurePosixPath:
    """A folder that no other film has on any file system."""
    return PurePosixPath(f"{_folder(name, reserved)}~{_hash(name)}")


def _folder(name: str, reserved: set[str]) -> PurePosixPath:
    parts = name.split("/")
    if name.startswith("/"):
        parts[:2] = [f"%2F{parts[1]}"]
    return PurePosixPath(*(_allowed(part, reserved) for part in parts))


_CHOICES: tuple[Callable[[str, set[str]], PurePosixPath], ...] = (_plain, _folder, _hashed)


def _allowed(part: str, reserved: set[str]) -> str:
    """A part of a name as one that every file system takes, that isn't hidden, and that leads nowhere else."""
    part = re.sub(r'[<>:"|?*]|^[. ]|[. ]$', lambda found: _percent(found[0]), part)
    if part.casefold() in reserved or _DEVICES.fullmatch(part):
        part = _percent(part[0]) + part[1:]
    if len(part.encode()) <= _LONGEST:
        return part
    whole = part.encode()[: _LONGEST - 20].decode(errors="ignore")
    return f"{re.sub('%.?$', '', whole)}~{_hash(part)}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
