"""The files of a decoded data set, films or masks, and read access to them.

A store is a folder of

- ``pixels.bin``: the images one after the other, 1, 2 or 4 bytes per pixel, each at a multiple of 64 bytes;
- ``meta.jsonl``: the description of each image, one per line;
- ``images.bin``: a :data:`ROW` per image, with the places of both and a CRC-32 over them;
- ``items-<hash>.jsonl``: the data set's items, one per line; one such file for every version of the labels;
- ``index.json``: sizes, the checksum of ``images.bin``, the files left out, and a checksum of itself. It is written
  last: without it the store is unfinished, and everything whose checksum holds can be kept.

All but the small ``index.json`` are memory-mapped: an open store takes 9 bytes of memory per image, and processes share
what they read. An image is compared with its checksum when it is first used; processes that are forked later share that
knowledge. The folder may lie among those of other users: see :mod:`cxw_monai.io.files.own_files` for what is refused.

:class:`RadiographCache` holds films, :class:`cxw_monai.data.mask_store.MaskStore` masks;
:mod:`cxw_monai.data.store_writer` writes both.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from cxw_monai.io.files.own_files import OwnFolder, UnsafeFileError

__all__ = [
    *("FORMAT_VERSION", "INDEX", "META", "PIXELS", "ROW", "ROWS", "CacheError", "JsonRows", "RadiographCache", "Store"),
    *("are_whole", "cache_errors", "cache_folder", "index_checksum", "items_name", "line_at", "map_file"),
    "stored_size",
]

FORMAT_VERSION = 5
"""Part of the key: raise it when the layout or what the reader returns changes."""

ROW = np.dtype(
    [
        ("item", "<u4"),  # place among the sorted items
        ("crc", "<u4"),  # CRC-32 of the pixels, continued over the description's line
        ("offset", "<u8"),  # in pixels.bin, bytes
        ("meta", "<u8"),  # in meta.jsonl, bytes
        ("height", "<u4"),
        ("width", "<u4"),
        ("itemsize", "<u4"),  # bytes per pixel, 1, 2 or 4
    ]
)
"""What is known of an image; 36 bytes."""

PIXELS, META, ROWS, INDEX = "pixels.bin", "meta.jsonl", "images.bin", "index.json"
_ITEMS_NAME = re.compile(r"items-[0-9a-f]{16}\.jsonl")
_ITEM_FIELDS = ("image",)
_SKIPPED_FIELDS = {"path", "reason", "remedy"}


class CacheError(ValueError):
    """A cache that can't be built or read; the message says what to do. What was decoded is kept."""


def cache_folder(path: str | PathLike[str]) -> OwnFolder:
    """A cache's own folder."""
    return OwnFolder(path, "cache_dir")


@contextmanager
def cache_errors() -> Iterator[None]:
    """Turn the refusal of a file that another user may have planted or written into a :class:`CacheError`."""
    try:
        yield
    except UnsafeFileError as error:
        raise CacheError(str(error)) from None


def map_file(path: Path) -> mmap.mmap | bytes:
    """A file's content, shared and read-only; nothing where it is missing or empty.

    Raises:
        CacheError: another user may have planted or written it, or it can't be opened.
    """
    try:
        with cache_errors(), cache_folder(path.parent).open(path.name) as stream:
            empty = os.fstat(stream.fileno()).st_size == 0
            return b"" if empty else mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        return b""
    except OSError as error:
        reason = f"{path}: cannot be read ({error.strerror})"
        raise CacheError(f"{reason}; check its permissions, or set cache_dir to another folder") from None


class JsonRows(Sequence[Any]):
    """Lines of a JSONL file, parsed at each access.

    Args:
        path: the file, with at least one line.
        starts: where each line begins, bytes, ``[N]``.
        fields: what every line's dictionary must have.
        check: called with a line's number before the line is used; raises where the line isn't to be.
    """

    def __init__(
        self, path: Path, starts: np.ndarray, fields: Sequence[str], check: Callable[[int], None] | None = None
    ) -> None:
        self._path, self._starts, self._fields, self._check = path, starts, tuple(fields), check
        self._bytes = map_file(path)

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: Any) -> Any:
        """The dictionary of one line, or a list of them for a slice.

        Raises:
            CacheError: it isn't what was written.
        """
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        if self._check is not None:
            self._check(index)
        try:
            row = json.loads(self.line(index))
            if all(field in row for field in self._fields) and isinstance(row, dict):
                return row
        except (ValueError, TypeError, RecursionError):
            pass
        raise CacheError(f"{self._path}: line {int(index) + 1} was altered; {_remedy(self._path.parent)}")

    def line(self, index: int) -> bytes:
        """One line as it is stored."""
        return line_at(self._bytes, int(self._starts[index]))

    def __reduce__(self) -> tuple[type[JsonRows], tuple[Any, ...]]:
        return type(self), (self._path, np.array(self._starts), self._fields, self._check)


class Store:
    """Read access to a finished store.

    Files are mapped read-only: an instance can be inherited by, or pickled to, loader workers, which then share the
    same memory.

    Args:
        folder: the store's own folder.
        items: the file of the labels, ``items-<hash>.jsonl``; by default those that the store was built with.

    Attributes:
        items: one dictionary per image, sorted by ``image``; a lazy sequence.
        skipped: ``{"path", "reason", "remedy"}`` of each file that was left out.

    Raises:
        CacheError: the folder holds no finished store of this version, sizes or checksums show damage, or another user
            may have written it. Images are compared with their checksums when they are first used: that may raise it
            later.
    """

    CONTENT = "image"
    """What is stored, for errors."""

    META_FIELDS: tuple[str, ...] = ()
    """What every description must have."""

    def __init__(self, folder: str | PathLike[str], items: str | None = None) -> None:
        self.folder = Path(folder)
        index = _read_index(self.folder)
        self._items = items or index["items"]
        labels = map_file(self.folder / self._items)
        self._check_items(labels)
        self._contents = {name: map_file(self.folder / name) for name in (PIXELS, META, ROWS)}
        rows = self._contents[ROWS]
        sizes = {name: len(content) for name, content in self._contents.items()}
        if sizes != index["bytes"] or zlib.crc32(rows) != index["rows_crc"] or len(rows) % ROW.itemsize:
            raise CacheError(f"{folder}: the cache is damaged; {_AGAIN}")
        self._places = np.frombuffer(rows, ROW)
        starts = _line_starts(labels)
        if len(rows) and int(self._places["item"].max()) >= len(starts):
            raise CacheError(f"{folder}: {ROWS} and {self._items} don't belong together; {_AGAIN}")
        self.items: Sequence[dict[str, Any]] = JsonRows(
            self.folder / self._items, starts[self._places["item"]], _ITEM_FIELDS
        )
        self._meta = JsonRows(self.folder / META, self._places["meta"], self.META_FIELDS, self._check)
        self.skipped: list[dict[str, str]] = index["skipped"]
        self._known_whole = np.frombuffer(mmap.mmap(-1, max(1, len(self))), bool)  # shared with forked processes

    def __len__(self) -> int:
        return len(self._places)

    def shape(self, index: int) -> tuple[int, int]:
        """Rows and columns of one image, without reading it."""
        return int(self._places[index]["height"]), int(self._places[index]["width"])

    def image(self, index: int) -> np.ndarray:
        """One image: uint8, uint16 or uint32 ``[1, H, W]``; a read-only view.

        Raises:
            CacheError: it doesn't have its checksum (checked at the first use in a process).
        """
        self._check(index)
        row = self._places[index]
        pixels = np.frombuffer(self._contents[PIXELS], np.uint8, stored_size(row), int(row["offset"]))
        return pixels.view(f"<u{row['itemsize']}").reshape(1, int(row["height"]), int(row["width"]))  # [1, H, W]

    def description(self, index: int) -> dict[str, Any]:
        """What was stored with an image.

        Raises:
            CacheError: it, or its image, doesn't have its checksum (checked at the first use in a process).
        """
        return self._meta[index]

    def _check_items(self, content: mmap.mmap | bytes) -> None:
        if items_name(content) != self._items:
            raise CacheError(
                f"{self.folder / self._items}: damaged; build the cache again, which writes only this file"
            )

    def _check(self, index: int) -> None:
        if not self._known_whole[index]:
            if not _is_whole(self._places[index], self._contents[PIXELS], self._contents[META]):
                film = self.items[index]["image"]
                raise CacheError(f"{self.folder}: the stored {self.CONTENT} of {film} is damaged; {self._remedy()}")
            self._known_whole[index] = True

    def verify(self, progress: bool = False) -> None:
        """Read everything and compare it with the checksums.

        Raises:
            CacheError: images are damaged, and the first few are named, or the items are.
        """
        self._check_items(map_file(self.folder / self._items))
        whole = are_whole(self._places, self._contents[PIXELS], self._contents[META], progress)
        bad = [self.items[int(index)]["image"] for index in np.flatnonzero(~whole)[:5]]
        if bad:
            count = len(self) - int(whole.sum())
            named = ", ".join(bad) + (", ..." if count > len(bad) else "")
            raise CacheError(
                f"{self.folder}: {count} of {len(self)} stored {self.CONTENT}s are damaged ({named}); {self._remedy()}"
            )

    def _remedy(self) -> str:
        return _remedy(self.folder)

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "items": self._items}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]  # maps belong to a process: opened again


class RadiographCache(Store):
    """Decoded radiographs: ``image`` is uint8 or uint16, bone bright, of the full range of its type."""

    META_FIELDS = ("spacing_mm", "original_shape", "bits", "steps", "pixel_map")

    @property
    def meta(self) -> Sequence[dict[str, Any]]:
        """One dictionary per image: the reader's as JSON keeps it (tuples are lists, ``pixel_map`` a dictionary), with
        ``spacing_mm``, ``pixel_map`` and ``steps`` after the resize; a lazy sequence."""
        return self._meta

    def _remedy(self) -> str:
        how = f"--verify_cache true in a bundle, verify=True in Python, or after deleting {self.folder / INDEX}"
        return f"build the cache again with {how}: only what is damaged is decoded"


_AGAIN = "build it again with the same settings, which keeps every image that is whole"


def _remedy(folder: Path) -> str:
    """For what only a look at every image finds."""
    return f"delete {folder / INDEX} and run the same again: only what is damaged is made again"


def index_checksum(index: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(index, sort_keys=True).encode())


def _read_index(folder: Path) -> dict[str, Any]:
    """The index of a finished store, checked."""
    try:
        index = json.loads(bytes(map_file(folder / INDEX)))
        if index["version"] != FORMAT_VERSION:
            raise CacheError(f"{folder}: a cache of another version; delete it and build it again")
        crc = index.pop("crc")
        sound = crc == index_checksum(index) and set(index["bytes"]) == {PIXELS, META, ROWS}
        sound = sound and _ITEMS_NAME.fullmatch(index["items"]) is not None
        sound = sound and all(set(bad) == _SKIPPED_FIELDS for bad in index["skipped"])
    except CacheError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CacheError(f"{folder}: no finished cache ({INDEX}: {type(error).__name__}); {_AGAIN}") from None
    if not sound:
        raise CacheError(f"{folder / INDEX}: was altered; {_AGAIN}")
    return index


def items_name(content: mmap.mmap | bytes) -> str:
    return f"items-{hashlib.sha256(content).hexdigest()[:16]}.jsonl"


def _line_starts(content: mmap.mmap | bytes) -> np.ndarray:
    """Where each line begins, bytes."""
    ends = np.flatnonzero(np.frombuffer(content, np.uint8) == ord("\n"))
    return np.concatenate([[0], ends[:-1] + 1])


def line_at(content: mmap.mmap | bytes, start: int) -> bytes:
    """From ``start`` to the next newline."""
    return content[start : content.find(b"\n", start)]


def stored_size(row: np.void) -> int:
    """Bytes of an image."""
    return int(row["height"]) * int(row["width"]) * int(row["itemsize"])


def _is_whole(row: np.void, pixels: mmap.mmap | bytes, meta: mmap.mmap | bytes) -> bool:
    """Whether pixels and description of a row have its checksum."""
    offset, size = int(row["offset"]), stored_size(row)
    if row["itemsize"] not in (1, 2, 4) or offset + size > len(pixels) or not size:
        return False
    crc = zlib.crc32(memoryview(pixels)[offset : offset + size])
    return zlib.crc32(line_at(meta, int(row["meta"])), crc) == row["crc"]


def are_whole(rows: np.ndarray, pixels: mmap.mmap | bytes, meta: mmap.mmap | bytes, progress: bool) -> np.ndarray:
    """:func:`_is_whole` of each row: bool ``[N]``."""
    bar = tqdm(rows, "checking", unit="img", disable=not (progress and len(rows)))
    return np.fromiter((_is_whole(row, pixels, meta) for row in bar), bool, len(rows))
