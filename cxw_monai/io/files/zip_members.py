"""What a zip from a stranger may hold: files of its own folder, under names that are one file on every system."""

from __future__ import annotations

import lzma
import re
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import IO

from .identity import folded_name

__all__ = ["DamagedZipError", "MemberError", "checked_members", "opened_zip", "unpack_member"]

_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, NotImplementedError, RuntimeError),
    *(ValueError, OSError, OverflowError),
)  # what zipfile raises of damaged, encrypted or unknown archives

_LONGEST = 255  # bytes of one part of a name, on most file systems
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)(\..*)?", re.IGNORECASE)
_NOT_IN_NAMES = re.compile(r'[\x00-\x1f\x7f:\\<>"|?*]')
_KNOWN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_ENCRYPTED = 0x1 | 0x40 | 0x2000


class MemberError(ValueError):
    """A member of a zip that isn't unpacked; the message names it and says why."""


class DamagedZipError(MemberError):
    """A zip, or a member of it, that can't be read."""


@contextmanager
def opened_zip(path: str | PathLike[str]) -> Iterator[zipfile.ZipFile]:
    """Open a zip for reading.

    Raises:
        DamagedZipError: it isn't one, or its directory is damaged.
    """
    try:
        archive = zipfile.ZipFile(path)
    except _DAMAGE as error:
        raise DamagedZipError(str(error) or type(error).__name__) from error
    with archive:
        yield archive


def checked_members(archive: zipfile.ZipFile, most_bytes: int) -> list[zipfile.ZipInfo]:
    """The files of a zip, without its folders, if all of them can be unpacked safely.

    Args:
        archive: opened for reading.
        most_bytes: that the files may have, unpacked.

    Raises:
        MemberError: a name that leads out of the folder, isn't a name on some system, or is there twice (in another
            case or Unicode form too); a link or device; an encrypted file; or too much.
    """
    members = archive.infolist()
    places: dict[str, zipfile.ZipInfo] = {}
    size = 0
    for member in members:
        _check_name(member)
        _check_kind(member)
        size += member.file_size
        if size > most_bytes:
            total = sum(each.file_size for each in members)
            raise MemberError(f"{total} bytes unpacked, more than {most_bytes}, up to {_shown(member.filename)}")
        place = folded_name(member.filename.rstrip("/"))
        if place in places and not (member.is_dir() and places[place].is_dir()):
            raise MemberError(f"holds {_shown(member.filename)} twice (also {_shown(places[place].filename)})")
        places[place] = member
    files = [member for member in members if not member.is_dir()]
    for member in members:
        for parent in PurePosixPath(folded_name(member.filename)).parents:
            if (above := places.get(str(parent))) is not None and not above.is_dir():
                raise MemberError(f"holds {_shown(above.filename)} as a file and as a folder")
    return files


def unpack_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, folder: str | PathLike[str]) -> None:
    """Unpack one checked member below a folder, over nothing that is there.

    Raises:
        DamagedZipError: it is damaged.
        FileExistsError: its file is there.
        OSError: the folder can't be written.
    """
    place = Path(folder, *PurePosixPath(member.filename).parts)
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("xb") as file:
        try:
            source = archive.open(member)
        except _DAMAGE as error:
            raise _damaged(member, error) from error
        with source:
            shutil.copyfileobj(_Source(source, member), file)
        if file.tell() != member.file_size:
            raise _damaged(member, EOFError(f"{file.tell()} of {member.file_size} bytes"))


class _Source:
    """A member's stream that distinguishes its own errors from those of the disk that is written."""

    def __init__(self, stream: IO[bytes], member: zipfile.ZipInfo) -> None:
        self._stream, self._member = stream, member

    def read(self, size: int = -1, /) -> bytes:
        """Bytes, at most ``size``."""
        try:
            return self._stream.read(size)
        except _DAMAGE as error:
            raise _damaged(self._member, error) from error


def _damaged(member: zipfile.ZipInfo, error: BaseException) -> DamagedZipError:
    return DamagedZipError(f"{_shown(member.filename)}: {str(error) or type(error).__name__}")


def _check_name(member: zipfile.ZipInfo) -> None:
    name = member.orig_filename
    parts: Sequence[str] = name.removesuffix("/").split("/")
    if name.startswith("/") or ".." in parts or _NOT_IN_NAMES.search(name):
        raise MemberError(f"holds {_shown(name)}, outside a bundle's folder or no name on some systems")
    for part in parts:
        odd = part in ("", ".") or part.endswith((".", " ")) or _RESERVED.fullmatch(part)
        if odd or len(part.encode("utf-8", "surrogatepass")) > _LONGEST:
            raise MemberError(f"holds {_shown(name)}: {_shown(part)} is no name on some systems")


def _check_kind(member: zipfile.ZipInfo) -> None:
    name, kind = _shown(member.filename), stat.S_IFMT(member.external_attr >> 16)
    if kind == stat.S_IFLNK:
        raise MemberError(f"holds the link {name}")
    if kind not in (0, stat.S_IFDIR if member.is_dir() else stat.S_IFREG):
        raise MemberError(f"holds {name}, which is no regular file")
    if member.flag_bits & _ENCRYPTED:
        raise MemberError(f"holds {name}, which is encrypted")
    if member.compress_type not in _KNOWN:
        raise MemberError(f"holds {name}, compressed in an unknown way ({member.compress_type})")


def _shown(name: str) -> str:
    return repr(name if len(name) <= _LONGEST else f"{name[:100]}...{name[-100:]}")
