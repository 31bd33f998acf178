"""The writer that appends to a store of decoded radiographs, and what can be kept of a broken one."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from cxw_monai.io.files.own_files import OwnFolder

from .cache_store import (
    FORMAT_VERSION,
    INDEX,
    META,
    PIXELS,
    ROW,
    ROWS,
    are_whole,
    cache_errors,
    cache_folder,
    index_checksum,
    items_name,
    line_at,
    map_file,
    stored_size,
)

__all__ = ["StoreWriter", "write_items"]

_ALIGNMENT = 64  # bytes; every image starts at a multiple


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
        CacheError: another user may have planted or written what is there.
        OSError: the folder can't be written.
    """

    def __init__(self, folder: Path, count: int, progress: bool = False) -> None:
        self.folder, self._own = folder, cache_folder(folder)
        with cache_errors():
            self._own.make()
            self._own.remove(INDEX)
            self._open(count, progress)

    def _open(self, count: int, progress: bool) -> None:
        kept, ends = _whole_rows(self._own, count, progress)
        self._table = np.zeros(count, ROW)  # by item
        self._table[kept["item"]] = kept
        self.done = np.zeros(count, bool)
        self.done[kept["item"]] = True
        with ExitStack() as opened:
            names, sizes = (PIXELS, META, ROWS), (*ends, len(kept) * ROW.itemsize)
            streams = [opened.enter_context(self._own.open(name, "ab")) for name in names]
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
        index = {
            "version": FORMAT_VERSION,
            "bytes": {PIXELS: self._at, META: self._meta_at, ROWS: len(rows)},
            "rows_crc": zlib.crc32(rows),
            "items": items,
            "skipped": skipped,
        }
        with cache_errors():
            with self._own.replace(ROWS) as stream:
                stream.write(rows)
            with self._own.replace(INDEX) as stream:
                stream.write(json.dumps({**index, "crc": index_checksum(index)}).encode())


def write_items(folder: Path, lines: Iterable[bytes]) -> str:
    """Store the items, each a JSON line without its newline, in a file named by a hash of them; returns its name.

    Raises:
        CacheError: another user may have planted or written what is there.
        OSError: the folder can't be written.
    """
    content = b"".join(line + b"\n" for line in lines)
    name = items_name(content)
    if items_name(map_file(folder / name)) != name:
        with cache_errors(), cache_folder(folder).replace(name) as stream:
            stream.write(content)
    return name


def _whole_rows(own: OwnFolder, count: int, progress: bool) -> tuple[np.ndarray, tuple[int, int]]:
    """Rows that an unfinished store holds whole, and the ends of their pixels and descriptions, bytes.

    Rows that aren't whole are removed from the table, so that what is appended lies after what is kept.
    """
    content, pixels, meta = (bytes(map_file(own.path / ROWS)), *(map_file(own.path / name) for name in (PIXELS, META)))
    rows = np.frombuffer(content[: len(content) // ROW.itemsize * ROW.itemsize], ROW)  # the last may be cut
    rows = rows[rows["item"] < count]
    kept = rows[are_whole(rows, pixels, meta, progress)]
    kept = kept[np.sort(np.unique(kept["item"], return_index=True)[1])]
    if not len(kept):
        return kept, (0, 0)
    if len(kept) * ROW.itemsize != len(content):
        with own.replace(ROWS) as stream:
            stream.write(kept.tobytes())
    last, last_meta = kept[kept["offset"].argmax()], int(kept["meta"].max())
    meta_end = last_meta + len(line_at(meta, last_meta)) + 1
    end = int(last["offset"]) + stored_size(last)
    return kept, (end + -end % _ALIGNMENT, meta_end)


def _write_all(stream: Any, content: bytes) -> None:
    """Write all of it to a raw stream, which may take less at a time."""
    rest = memoryview(content)
    while rest:
        rest = rest[stream.write(rest) :]
