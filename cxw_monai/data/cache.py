"""Radiographs decoded once, at training size, in one memory-mapped store.

A cache is a folder ``<cache_dir>/<key>``, laid out as :mod:`cxw_monai.data.cache_store` describes. The key is a hash of
what went in: paths, file sizes and times, settings, format version. Builders hold a lock: of several processes one
builds while the others wait. A build that was killed, or that ran out of disk or memory, is gone on with where it
stopped: images that are stored whole, by their checksums, aren't decoded again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from multiprocessing import get_all_start_methods, get_context
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.files.csv_files import CsvWriter
from cxw_monai.io.radiograph import Radiograph, RadiographError
from cxw_monai.io.read import read_radiograph, reader_options
from cxw_monai.io.results.film_names import film_name

from .cache_estimate import estimate_cache
from .cache_store import FORMAT_VERSION, INDEX, CacheError, RadiographCache, cache_errors, cache_folder
from .cache_writer import StoreWriter, write_items

__all__ = ["CacheError", "RadiographCache", "build_cache", "cache_lock", "disk_errors"]

_GO_ON = "what is done is kept: run the same again to go on from there"

_logger = logging.getLogger(__name__)

_Decoded = tuple[np.ndarray, dict[str, Any]]
_Decode = Callable[[str], "_Decoded | RadiographError"]


def build_cache(
    items: Sequence[dict[str, Any]],
    cache_dir: str | PathLike[str],
    size: int = 512,
    on_error: str = "raise",
    min_size: int = 16,
    report: str | PathLike[str] | None = None,
    workers: int = 0,
    progress: bool = True,
    verify: bool = False,
    reader: Mapping[str, Any] | None = None,
) -> RadiographCache:
    """Decode radiographs once, or open the finished cache of the same files and settings.

    Each image is resized so that its shorter side is ``size`` (antialiased bicubic, never enlarged) and stored as uint8
    where its source has up to 8 bits, else as uint16. Images are stored in the order of their paths, whatever the order
    of ``items`` or the number of workers. How much disk that will take is logged (INFO) before anything is decoded.

    Args:
        items: ``{"image": path, ...}``; other fields must be JSON values and come back in ``cache.items``.
        cache_dir: holds the caches, one folder per key.
        size: the shorter side in pixels.
        on_error: ``"raise"`` stops at the first bad image; ``"skip"`` leaves bad images out, with a log line each.
        min_size: shorter images are bad images.
        report: a CSV (``path,reason``) of the images left out; written only with ``on_error="skip"``.
        workers: decoding processes; 0 decodes in this one.
        progress: show progress bars.
        verify: read a finished cache whole, and decode again what doesn't have its checksum.
        reader: how films are read, see :func:`~cxw_monai.io.read.reader_options`.

    Returns:
        The cache, of at least one image.

    Raises:
        RadiographError: a bad image, with ``on_error="raise"``.
        CacheError: too little disk (before anything is decoded), the disk ran full, or a worker was killed. What was
            decoded is kept.
        ValueError: an argument is wrong, an image is listed twice, or no image is left.
    """
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error must be 'raise' or 'skip', got {on_error!r}")
    if size < 1 or workers < 0:
        raise ValueError(f"size must be 1 or more and workers 0 or more, got size={size}, workers={workers}")
    options = reader_options(**(reader or {}))
    ordered = _sorted_items(items)
    paths = [item["image"] for item in ordered]
    lines = _json_lines(ordered)
    folder = Path(os.path.abspath(cache_dir)) / _key(paths, size, min_size, options)
    decoder = partial(
        _decoded, decode=partial(_decode, size=size, options={**options, "min_size": min_size}), workers=workers
    )
    with cache_lock(folder):
        with disk_errors(folder):
            labels = write_items(folder, lines)
        if not _is_finished(folder, paths, decoder, verify, progress):
            with disk_errors(folder):
                writer = StoreWriter(folder, len(paths), progress)
            with writer:
                _announce(writer, paths, size)
                skipped = _fill(writer, paths, decoder, on_error, progress)
                if not writer.done.any():
                    _write_report(report, skipped)
                    bad = RadiographError(**skipped[0])
                    raise ValueError(f"none of the {len(skipped)} images can be used; the first: {bad}")
                with disk_errors(folder):
                    writer.finish(labels, skipped)
        cache = RadiographCache(folder, labels)  # a reused cache may have been built with older labels
    if cache.skipped and on_error == "raise":
        raise RadiographError(**cache.skipped[0])
    if on_error == "skip":
        _write_report(report, cache.skipped)
    return cache


def _sorted_items(items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Items by absolute path; each image once."""
    ordered = sorted(({**item, "image": os.path.abspath(item["image"])} for item in items), key=lambda i: i["image"])
    if not ordered:
        raise ValueError("no images to cache: the data set is empty")
    twice = [path for path, count in Counter(item["image"] for item in ordered).items() if count > 1]
    if twice:
        raise ValueError(f"{len(twice)} images are listed more than once ({twice[0]}, ...); list each image once")
    return ordered


def _json_lines(ordered: list[dict[str, Any]]) -> list[bytes]:
    """One line per item."""
    try:
        return [json.dumps(item).encode() for item in ordered]
    except TypeError as error:
        raise ValueError(f"an item holds a field that isn't a JSON value ({error})") from error


def _key(paths: list[str], size: int, min_size: int, options: Mapping[str, Any]) -> str:
    """Hash of everything the stored pixels depend on."""
    digest = hashlib.sha256(json.dumps([FORMAT_VERSION, size, min_size, *sorted(options.items())]).encode())
    for path in paths:
        try:
            status = os.stat(path)
            state = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            state = "absent"  # the reader will say what is wrong with it
        digest.update(os.fsencode(f"{path}\0{state}\0"))
    return digest.hexdigest()[:20]


def _is_finished(
    folder: Path, paths: list[str], decoder: Callable[..., Iterator[Any]], verify: bool, progress: bool
) -> bool:
    """Whether there is a whole cache that left out only what still can't be read (a decoder may be new)."""
    if not os.path.lexists(folder / INDEX):
        return False
    try:
        cache = RadiographCache(folder)
        if verify:
            cache.verify(progress)
    except CacheError as error:
        _logger.warning("%s: decoding again what is damaged", error)
        return False
    skipped = {bad["path"] for bad in cache.skipped}
    if len(cache) + len(cache.skipped) != len(paths) or not skipped <= set(paths):
        _logger.warning("%s: doesn't hold the films that were asked for; decoding what is missing", folder)
        return False
    with closing(decoder([bad["path"] for bad in cache.skipped])) as results:
        if any(not isinstance(result, RadiographError) for result in results):
            _logger.info("%s: files left out before can be read now: adding them", folder)
            return False
    return True


def _announce(writer: StoreWriter, paths: list[str], size: int) -> None:
    """Log what the build will take; refuse it where the disk is too small."""
    left = [paths[index] for index in np.flatnonzero(~writer.done)]
    if len(left) < len(paths):
        _logger.info("%s: going on: %d of %d films are stored whole", writer.folder, len(paths) - len(left), len(paths))
    estimate = estimate_cache(left, writer.folder, size)
    _logger.info("%s: caching %s", writer.folder, estimate)
    if estimate.bytes > estimate.free:
        raise CacheError(
            f"{writer.folder}: too little disk for the cache ({estimate}); free some, set cache_dir to a larger disk, "
            f"or lower the cache's size ({size} px)"
        )


def _fill(
    writer: StoreWriter, paths: list[str], decoder: Callable[..., Iterator[Any]], on_error: str, progress: bool
) -> list[dict[str, str]]:
    """Decode and store what is missing; the files left out."""
    skipped, left = [], np.flatnonzero(~writer.done).tolist()
    bar = tqdm(desc="caching", initial=len(paths) - len(left), total=len(paths), unit="img", disable=not progress)
    with closing(decoder([paths[index] for index in left])) as results, bar:
        for item, result in zip(left, results, strict=True):
            if not isinstance(result, RadiographError):
                with disk_errors(writer.folder):
                    writer.add(item, *result)
            elif on_error == "raise":
                _logger.info("%s: films before the bad one are kept; on_error='skip' goes on without it", writer.folder)
                raise result
            else:
                _logger.warning("skipped %s", result)
                skipped.append({"path": result.path, "reason": result.reason, "remedy": result.remedy})
            bar.update()
    return skipped


def _decode(path: str, size: int, options: Mapping[str, Any]) -> _Decoded | RadiographError:
    """Read, resize and quantise one file; errors are returned, so that their order is that of the files."""
    try:
        radiograph = read_radiograph(path, **options)
    except RadiographError as error:
        return error
    array, meta = _shrink(radiograph, size)
    meta = {**meta, "pixel_map": meta["pixel_map"].to_dict()}
    top, dtype = (255, "<u1") if meta["bits"] <= 8 else (65535, "<u2")
    return np.rint(array * np.float32(top)).astype(dtype), meta


def _shrink(radiograph: Radiograph, size: int) -> _Decoded:
    """Shorter side to ``size``; smaller images stay as they are."""
    array, meta = radiograph.array, radiograph.meta
    height, width = array.shape[1:]
    short = min(height, width)
    if short <= size:
        return array, meta
    new_height, new_width = (round(side * size / short) for side in (height, width))
    resized = Image.fromarray(array[0]).resize((new_width, new_height), Image.Resampling.BICUBIC)
    spacing = meta["spacing_mm"]
    if spacing is not None:
        spacing = (spacing[0] * height / new_height, spacing[1] * width / new_width)
    step = f"resize {height}x{width} to {new_height}x{new_width}"
    pixel_map = meta["pixel_map"].resize(new_height, new_width)
    meta = {**meta, "spacing_mm": spacing, "steps": [*meta["steps"], step], "pixel_map": pixel_map}
    return np.clip(np.asarray(resized), 0, 1)[None], meta  # [1, h, w]


def _decoded(paths: list[str], decode: _Decode, workers: int) -> Iterator[_Decoded | RadiographError]:
    """Results in the order of the paths, with a bounded number of them waiting."""
    if workers == 0:
        yield from map(decode, paths)
        return
    method = "fork" if "fork" in get_all_start_methods() else "spawn"  # as torch's loaders; no re-import of the caller
    pool = ProcessPoolExecutor(workers, get_context(method), initializer=_end_with, initargs=(os.getpid(),))
    waiting: deque[tuple[str, Future[_Decoded | RadiographError]]] = deque()
    try:
        for path in paths:
            waiting.append((path, pool.submit(decode, path)))
            if len(waiting) >= 8 * workers:
                yield waiting[0][1].result()
                waiting.popleft()
        while waiting:
            yield waiting[0][1].result()
            waiting.popleft()
    except BrokenProcessPool:
        lost = [path for path, future in waiting if not future.done() or future.exception()]
        raise CacheError(
            "a decoding process was killed, often for lack of memory, at one of these films: "
            f"{', '.join(lost[:workers])}; use fewer workers (now {workers}), or leave the film out; {_GO_ON}"
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
    """Make a cache's folder and hold its lock."""
    own = cache_folder(folder)
    with ExitStack() as held:
        with disk_errors(folder), cache_errors():
            own.make()
            held.enter_context(own.locked())
        yield


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Say what to do about a disk that can't be written."""
    try:
        yield
    except OSError as error:
        raise CacheError(
            f"{folder}: cannot be written ({error.strerror}); free some disk, check its permissions, or set cache_dir "
            f"to another folder; {_GO_ON}"
        ) from None


def _write_report(report: str | PathLike[str] | None, skipped: list[dict[str, str]]) -> None:
    """CSV of the images left out; only its header where there is none."""
    if report is None:
        return
    with atomic_file(report, "w", newline="", encoding="utf-8") as stream:
        writer = CsvWriter(stream)
        writer.writerow(["path", "reason"])
        writer.writerows([film_name(bad["path"]), bad["reason"]] for bad in skipped)
