"""The writer that appends to a store of films or masks, resumes an unfinished one, and works in several processes."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing, contextmanager
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from tqdm import tqdm

from cxw_monai.io.files.own_files import OwnFolder
from cxw_monai.io.radiograph import RadiographError

from .store import (
    FORMAT_VERSION,
    INDEX,
    META,
    PIXELS,
    ROW,
    ROWS,
    CacheError,
    are_whole,
    cache_errors,
    cache_folder,
    index_checksum,
    items_name,
    line_at,
    map_file,
    stored_size,
)

__all__ = ["Made", "StoreWriter", "cache_lock", "disk_errors", "items_content", "made", "write_items"]

Made = tuple[np.ndarray, dict[str, Any]]
"""An image ``[1, H, W]`` of 1, 2 or 4 bytes per pixel, and its description."""

_ALIGNMENT = 64  # bytes; every image starts at a multiple
_logger = logging.getLogger(__name__)

_RESUME = "what is done is kept: run the same again to resume"


class StoreWriter:
    """Appends images to a store, and resumes an unfinished one.

    An image counts once its row is written, after its pixels and description; of what a kill or a full disk left, every
    image whose checksum holds is kept. Only one writer may be open (the caller holds a lock).

    Args:
        folder: the store; made where it doesn't exist.
        count: number of items; rows of others are dropped.
        progress: show a progress bar while kept images are checked.

    Attributes:
        done: whether each item's image is stored, bool ``[count]``.

    Raises:
        CacheError: another user may have planted or written what is there, or the folder can't be written.
    """

    def __init__(self, folder: Path, count: int, progress: bool = False) -> None:
        self.folder, self._own = folder, cache_folder(folder)
        with disk_errors(folder):
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

    def fill(
        self,
        jobs: Sequence[Any],
        make: Callable[[Any], Made | RadiographError],
        workers: int = 0,
        on_error: str = "raise",
        title: str | None = None,
    ) -> list[dict[str, str]]:
        """Make and store the images that are missing, in the order of the items.

        Args:
            jobs: what ``make`` needs, per item; its text names it in errors.
            make: gives an image, or the error that says why there is none.
            workers: processes; 0 for this one.
            on_error: ``"raise"`` stops at the first error; ``"skip"`` logs it.
            title: of the progress bar; None for no bar.

        Returns:
            ``{"path", "reason", "remedy"}`` of each error that was skipped.

        Raises:
            RadiographError: of a job, with ``on_error="raise"``.
            CacheError: the disk is full or can't be written, or a process was killed. What was stored is kept.
        """
        skipped, left = [], np.flatnonzero(~self.done).tolist()
        bar = tqdm(desc=title, initial=len(jobs) - len(left), total=len(jobs), unit="img", disable=title is None)
        with closing(made([jobs[item] for item in left], make, workers)) as results, bar:
            for item, result in zip(left, results, strict=True):
                if not isinstance(result, RadiographError):
                    with disk_errors(self.folder):
                        self._add(item, *result)
                elif on_error == "raise":
                    _logger.info("%s: images before the bad one are kept", self.folder)
                    raise result
                else:
                    _logger.warning("skipped %s", result)
                    skipped.append({"path": result.path, "reason": result.reason, "remedy": result.remedy})
                bar.update()
        return skipped

    def _add(self, item: int, array: np.ndarray, meta: dict[str, Any]) -> None:
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
        """Sort the rows by item and write the index: with what :func:`write_items` returned, and the files left out."""
        rows = self._table[self.done].tobytes()
        index = {
            "version": FORMAT_VERSION,
            "bytes": {PIXELS: self._at, META: self._meta_at, ROWS: len(rows)},
            "rows_crc": zlib.crc32(rows),
            "items": items,
            "skipped": skipped,
        }
        with disk_errors(self.folder):
            for stream in (self._pixels, self._meta):
                os.fsync(stream.fileno())
            with self._own.replace(ROWS) as stream:
                stream.write(rows)
            with self._own.replace(INDEX) as stream:
                stream.write(json.dumps({**index, "crc": index_checksum(index)}).encode())


def write_items(folder: Path, content: bytes) -> str:
    """Store :func:`items_content` in a file named by a hash of it; returns its name.

    Raises:
        CacheError: another user may have planted or written what is there, or the folder can't be written.
    """
    name = items_name(content)
    if items_name(map_file(folder / name)) != name:
        with disk_errors(folder), cache_folder(folder).replace(name) as stream:
            stream.write(content)
    return name


def items_content(items: Iterable[dict[str, Any]]) -> bytes:
    """The items as they are stored, one JSON line each.

    Raises:
        ValueError: a field isn't a JSON value.
    """
    try:
        return b"".join(json.dumps(item).encode() + b"\n" for item in items)
    except TypeError as error:
        raise ValueError(f"an item holds a field that isn't a JSON value ({error})") from error


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


def made(
    jobs: Sequence[Any], make: Callable[[Any], Made | RadiographError], workers: int
) -> Generator[Made | RadiographError]:
    """``make`` of each job, in their order, with a bounded number of results waiting.

    Args:
        jobs: each named by its text in errors.
        make: must be picklable for ``workers`` above 0.
        workers: processes; 0 for this one.

    Raises:
        CacheError: a process was killed.
    """
    if workers == 0:
        yield from map(make, jobs)
        return
    method = "fork" if "fork" in get_all_start_methods() else "spawn"  # as torch's loaders; no re-import of the caller
    pool = ProcessPoolExecutor(workers, get_context(method), initializer=_end_with, initargs=(os.getpid(),))
    waiting: deque[tuple[Any, Future[Made | RadiographError]]] = deque()
    try:
        for job in jobs:
            waiting.append((job, pool.submit(make, job)))
            if len(waiting) >= 8 * workers:
                yield waiting[0][1].result()
                waiting.popleft()
        while waiting:
            yield waiting[0][1].result()
            waiting.popleft()
    except BrokenProcessPool:
        lost = [str(job) for job, future in waiting if not future.done() or future.exception()]
        raise CacheError(
            "a decoding process was killed, often for lack of memory, at one of these films: "
            f"{', '.join(lost[:workers])}; use fewer workers (now {workers}), or leave the film out; {_RESUME}"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with(builder: int) -> None:
    """Let a worker end after its builder was killed: it would wait for ever, and hold the lock that it inherited."""

    def watch() -> None:
        while os.getppid() == builder:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def cache_lock(folder: Path) -> Iterator[None]:
    """Make a store's folder and hold its lock."""
    own = cache_folder(folder)
    with ExitStack() as held:
        with disk_errors(folder):
            own.make()
            held.enter_context(own.locked())
        yield


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Say what to do about a disk that can't be written, and about what another user may have planted."""
    try:
        with cache_errors():
            yield
    except OSError as error:
        raise CacheError(
            f"{folder}: cannot be written ({error.strerror}); free some disk, check its permissions, or set cache_dir "
            f"to another folder; {_RESUME}"
        ) from None
