"""The files of a decoded data set: read access, the writer that appends to them, and what can be kept of a broken one.

A store is a folder of

- ``pixels.bin``: the images one after the other, uint8 or uint16, each at a multiple of 64 bytes;
- ``meta.jsonl``: the description of each image, a line each;
- ``images.bin``: a :data:`ROW` per image, with the places of both and a CRC-32 over them;
- ``items-<hash>.jsonl``: the data set's items, a line each; one such file for every version of the labels;
- ``index.json``: sizes, the checksum of ``images.bin`` and the files left out. It is written last: without it the store
  is unfinished, and everything whose checksum holds can be kept.

All but the small ``index.json`` are memory-mapped: an open store takes 8 bytes of memory per image, and processes share
what they read.
"""

from __future__ import annotations

import hashlib
import json
import logging
import mmap
import os
import zlib
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from tqdm import tqdm

from cxw_monai.io.atomic import atomic_file

__all__ = ["FORMAT_VERSION", "ROW", "CacheError", "JsonRows", "RadiographCache", "StoreWriter", "write_items"]

FORMAT_VERSION = 3
"""Part of the key: raise it when the layout or what the reader returns changes."""

ROW = np.dtype(
    [
        ("item", "<u4"),  # place among the sorted items
        ("crc", "<u4"),  # CRC-32 of the pixels, gone on with over the description's line
        ("offset", "<u8"),  # in pixels.bin, bytes
        ("meta", "<u8"),  # in meta.jsonl, bytes
        ("height", "<u4"),
        ("width", "<u4"),
        ("itemsize", "<u4"),  # bytes per pixel, 1 or 2
    ]
)
"""What is known of an image; 36 bytes."""

PIXELS, META, ROWS, INDEX = "pixels.bin", "meta.jsonl", "images.bin", "index.json"
_ALIGNMENT = 64  # bytes; every image starts at a multiple

_logger = logging.getLogger(__name__)


class CacheError(ValueError):
    """A cache that can't be built or read; the message says what to do. What was decoded is kept."""


class JsonRows(Sequence[Any]):
    """Lines of a JSONL file, parsed when they are asked for.

    Args:
        path: the file, with at least one line.
        starts: where each line begins, bytes, ``[N]``.
    """

    def __init__(self, path: str | PathLike[str], starts: np.ndarray) -> None:
        self._path, self._starts = path, starts
        self._bytes = _mapped(path)

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: Any) -> Any:
        """The value of one line, or a list of them for a slice."""
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        return json.loads(_line(self._bytes, int(self._starts[index])))

    def __reduce__(self) -> tuple[type[JsonRows], tuple[Any, ...]]:
        return type(self), (self._path, np.array(self._starts))


class RadiographCache:
    """Read access to a finished store of decoded radiographs.

    Files are mapped read-only: an instance can be inherited by, or pickled to, loader workers, which then share the
    same memory.

    Args:
        folder: the cache's own folder, ``<cache_dir>/<key>``.
        items: the file of the labels, ``items-<hash>.jsonl``; by default those that the cache was built with.

    Attributes:
        items: one dictionary per image, as given to ``build_cache``, sorted by ``image``; a lazy sequence.
        meta: one dictionary per image: the reader's as JSON keeps it (tuples are lists, ``pixel_map`` a dictionary),
            with ``spacing_mm``, ``pixel_map`` and ``steps`` after the resize; a lazy sequence.
        skipped: ``{"path", "reason", "remedy"}`` of each file that was left out.

    Raises:
        CacheError: the folder holds no finished cache of this version, or sizes or index show damage.
    """

    def __init__(self, folder: str | PathLike[str], items: str | None = None) -> None:
        self.folder = Path(folder)
        again = "build it again with the same settings, which keeps every image that is whole"
        try:
            index = json.loads((self.folder / INDEX).read_text(encoding="utf-8"))
            if index["version"] != FORMAT_VERSION:
                raise CacheError(f"{folder}: a cache of another version; delete it and build it again")
            sizes = {name: (self.folder / name).stat().st_size for name in index["bytes"]}
            if sizes != index["bytes"] or zlib.crc32(_mapped(self.folder / ROWS)) != index["rows_crc"]:
                raise CacheError(f"{folder}: the cache is damaged; {again}")
            self._items = items or index["items"]
            self._places = np.memmap(self.folder / ROWS, ROW, mode="r")
            lines = self.folder / self._items
            self.items: Sequence[dict[str, Any]] = JsonRows(lines, _line_starts(lines)[self._places["item"]])
            self.meta: Sequence[dict[str, Any]] = JsonRows(self.folder / META, self._places["meta"])
        except CacheError:
            raise
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise CacheError(f"{folder}: no finished cache ({type(error).__name__}); {again}") from None
        self.skipped: list[dict[str, str]] = index["skipped"]
        self._pixels: np.memmap | None = None

    def __len__(self) -> int:
        return len(self._places)

    def image(self, index: int) -> np.ndarray:
        """One image: uint8 or uint16 ``[1, H, W]``, bone bright, the full range of its type; a read-only view."""
        if self._pixels is None:
            self._pixels = np.memmap(self.folder / PIXELS, np.uint8, mode="r")
        row = self._places[index]
        offset, size, height, width = (int(value) for value in (row["offset"], _size(row), row["height"], row["width"]))
        pixels = np.asarray(self._pixels[offset : offset + size])
        return pixels.view(f"<u{row['itemsize']}").reshape(1, height, width)  # [1, H, W]

    def verify(self, progress: bool = False) -> None:
        """Read everything and compare it with the checksums.

        Args:
            progress: show a progress bar.

        Raises:
            CacheError: images are damaged, and the first few are named, or the items are.
        """
        if _items_name(_mapped(self.folder / self._items)) != self._items:
            raise CacheError(
                f"{self.folder / self._items}: damaged; build the cache again, which writes only this file"
            )
        whole = _are_whole(self.folder, self._places, progress)
        bad = [self.items[int(index)]["image"] for index in np.flatnonzero(~whole)[:5]]
        if bad:
            count = len(self) - int(whole.sum())
            named = ", ".join(bad) + (", ..." if count > len(bad) else "")
            raise CacheError(
                f"{self.folder}: {count} of {len(self)} stored images are damaged ({named}); build the cache again "
                "with verify=True, which decodes only these"
            )

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "items": self._items}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]  # maps belong to a process: opened anew


class StoreWriter:
    """Appends images to a store, and goes on with an unfinished one.

    An image counts once its row is written, after its pixels and description; of what a kill or a full disk left, every
    image whose checksum holds is kept. Only one writer may be open (the caller holds a lock).

    Args:
        folder: the store; made where it doesn't exist.
        count: number of items; rows of others are dropped.
        progress: show a progress bar while kept images are checked.

    Attributes:
        done: whether each item's image is stored, bool ``[count]``.

    Raises:
        OSError: the folder can't be written.
    """

    def __init__(self, folder: Path, count: int, progress: bool = False) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / INDEX).unlink(missing_ok=True)
        kept, ends = _whole_rows(folder, count, progress)
        self._table = np.zeros(count, ROW)  # by item
        self._table[kept["item"]] = kept
        self.done = np.zeros(count, bool)
        self.done[kept["item"]] = True
        with ExitStack() as opened:
            names, sizes = (PIXELS, META, ROWS), (*ends, len(kept) * ROW.itemsize)
            streams = [opened.enter_context(open(folder / name, "ab", buffering=0)) for name in names]
            for stream, size in zip(streams, sizes, strict=True):
                stream.truncate(size)
            self._pixels, self._meta, self._rows = streams
            self._opened = opened.pop_all()
        self._at, self._meta_at = ends

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    def add(self, item: int, array: np.ndarray, meta: dict[str, Any]) -> None:
        """Store one image, uint8 or uint16 ``[1, H, W]``, with its description.

        Raises:
            OSError: the disk is full or can't be written.
        """
        pixels, line = array.tobytes(), json.dumps(meta).encode()
        crc = zlib.crc32(line, zlib.crc32(pixels))
        self._table[item] = (item, crc, self._at, self._meta_at, *array.shape[1:], array.itemsize)
        padding = bytes(-len(pixels) % _ALIGNMENT)
        _write_all(self._pixels, pixels + padding)
        _write_all(self._meta, line + b"\n")
        _write_all(self._rows, self._table[item].tobytes())
        self._at += len(pixels) + len(padding)
        self._meta_at += len(line) + 1
        self.done[item] = True

    def finish(self, items: str, skipped: list[dict[str, str]]) -> None:
        """Sort the rows by item and write the index.

        Args:
            items: what :func:`write_items` returned.
            skipped: the files left out.
        """
        for stream in (self._pixels, self._meta):
            os.fsync(stream.fileno())
        rows = self._table[self.done].tobytes()
        with atomic_file(self.folder / ROWS) as stream:
            stream.write(rows)
        index = {
            "version": FORMAT_VERSION,
            "bytes": {PIXELS: self._at, META: self._meta_at, ROWS: len(rows)},
            "rows_crc": zlib.crc32(rows),
            "items": items,
            "skipped": skipped,
        }
        with atomic_file(self.folder / INDEX, "w", encoding="utf-8") as stream:
            json.dump(index, stream)


def write_items(folder: Path, lines: Iterable[bytes]) -> str:
    """Store the items, each a JSON line without its newline, in a file named by a hash of them; returns its name."""
    content = b"".join(line + b"\n" for line in lines)
    name = _items_name(content)
    if _items_name(_mapped(folder / name)) != name:
        with atomic_file(folder / name) as stream:
            stream.write(content)
    return name


def _items_name(content: mmap.mmap | bytes) -> str:
    return f"items-{hashlib.sha256(content).hexdigest()[:16]}.jsonl"


def _line_starts(path: Path) -> np.ndarray:
    """Where each line of a file begins, bytes."""
    ends = np.flatnonzero(np.frombuffer(_mapped(path), np.uint8) == ord("\n"))
    return np.concatenate([[0], ends[:-1] + 1])


def _mapped(path: str | PathLike[str]) -> mmap.mmap | bytes:
    """A file's content, shared and read-only; nothing where it is missing or empty."""
    if not os.path.isfile(path) or not os.path.getsize(path):
        return b""
    with open(path, "rb") as stream:
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)


def _line(content: mmap.mmap | bytes, start: int) -> bytes:
    """From ``start`` to the next newline."""
    return content[start : content.find(b"\n", start)]


def _size(row: np.void) -> int:
    """Bytes of an image."""
    return int(row["height"]) * int(row["width"]) * int(row["itemsize"])


def _are_whole(folder: Path, rows: np.ndarray, progress: bool) -> np.ndarray:
    """Whether pixels and description of each row have its checksum: bool ``[N]``."""
    pixels, meta = memoryview(_mapped(folder / PIXELS)), _mapped(folder / META)
    whole = np.zeros(len(rows), bool)
    for index, row in enumerate(tqdm(rows, "checking", unit="img", disable=not (progress and len(rows)))):
        offset, end = int(row["offset"]), int(row["offset"]) + _size(row)
        if end <= len(pixels):
            whole[index] = zlib.crc32(_line(meta, int(row["meta"])), zlib.crc32(pixels[offset:end])) == row["crc"]
    return whole


def _whole_rows(folder: Path, count: int, progress: bool) -> tuple[np.ndarray, tuple[int, int]]:
    """Rows that an unfinished store holds whole, and the ends of their pixels and descriptions, bytes.

    Rows that aren't whole are removed from the table, so that what is appended lies after what is kept.
    """
    path = folder / ROWS
    content = path.read_bytes() if path.exists() else b""
    rows = np.frombuffer(content[: len(content) // ROW.itemsize * ROW.itemsize], ROW)  # the last may be cut
    rows = rows[rows["item"] < count]
    kept = rows[_are_whole(folder, rows, progress)]
    kept = kept[np.sort(np.unique(kept["item"], return_index=True)[1])]
    if not len(kept):
        return kept, (0, 0)
    if len(kept) * ROW.itemsize != len(content):
        with atomic_file(path) as stream:
            stream.write(kept.tobytes())
    last, last_meta = kept[kept["offset"].argmax()], int(kept["meta"].max())
    with (folder / META).open("rb") as stream:
        stream.seek(last_meta)
        meta_end = last_meta + len(stream.readline())
    end = int(last["offset"]) + _size(last)
    return kept, (end + -end % _ALIGNMENT, meta_end)


def _write_all(stream: Any, content: bytes) -> None:
    """Write all of it to a raw stream, which may take less at a time."""
    rest = memoryview(content)
    while rest:
        rest = rest[stream.write(rest) :]
