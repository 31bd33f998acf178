"""Radiographs decoded once, at training size, in one memory-mapped file.

A cache is a folder ``<cache_dir>/<key>`` that holds ``pixels.bin`` (all images one after the other) and ``index.json``
(offset, shape, dtype, item and description of each). The key is a hash of what went in: paths, file sizes and times,
settings, format version. A cache is built beside its place and renamed into it when it is whole, under a lock: a killed
build leaves nothing that could be taken for a cache, and of several processes one builds while the others wait.
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import os
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from functools import partial
from multiprocessing import get_all_start_methods, get_context
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from PIL import Image
from tqdm import tqdm

from cxw_monai.io.atomic import atomic_file
from cxw_monai.io.image import Radiograph, RadiographError
from cxw_monai.io.radiograph import read_radiograph

__all__ = ["RadiographCache", "build_cache"]

FORMAT_VERSION = 1
"""Part of the key: raise it when the layout or what the reader returns changes."""

_PIXELS, _INDEX = "pixels.bin", "index.json"
_ALIGNMENT = 64  # bytes; every image starts at a multiple

_logger = logging.getLogger(__name__)

_Decoded = tuple[np.ndarray, dict[str, Any]]


class RadiographCache:
    """Read access to a finished cache.

    The pixel file is mapped on first use in each process, read-only and shared, so an instance can be pickled to, or
    inherited by, loader workers.

    Args:
        folder: the cache's own folder, ``<cache_dir>/<key>``.

    Attributes:
        items: one dictionary per image, as given to :func:`build_cache`, sorted by ``image``.
        meta: one dictionary per image: the reader's, with ``spacing_mm`` and ``steps`` after the resize.
        skipped: ``{"path", "reason", "remedy"}`` of each file that was left out.

    Raises:
        ValueError: the folder holds no finished cache of this version.
    """

    def __init__(self, folder: str | PathLike[str]) -> None:
        self.folder = Path(folder)
        try:
            index = json.loads((self.folder / _INDEX).read_text(encoding="utf-8"))
            actual = (self.folder / _PIXELS).stat().st_size
        except (OSError, json.JSONDecodeError) as error:
            raise ValueError(f"{folder}: no finished cache ({type(error).__name__}); build it again") from error
        if index.get("version") != FORMAT_VERSION or index.get("bytes") != actual:
            raise ValueError(f"{folder}: a cache of another version or damaged; delete it and build it again")
        self.items: list[dict[str, Any]] = [entry["item"] for entry in index["entries"]]
        self.meta: list[dict[str, Any]] = [entry["meta"] for entry in index["entries"]]
        self.skipped: list[dict[str, str]] = index["skipped"]
        self._places = [(entry["offset"], tuple(entry["shape"]), entry["dtype"]) for entry in index["entries"]]
        self._pixels: np.memmap | None = None

    def __len__(self) -> int:
        return len(self._places)

    def image(self, index: int) -> np.ndarray:
        """One image: uint8 or uint16 ``[1, H, W]``, bone bright, the full range of its type; a read-only view."""
        if self._pixels is None:
            self._pixels = np.memmap(self.folder / _PIXELS, dtype=np.uint8, mode="r")
        offset, shape, dtype = self._places[index]
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return np.asarray(self._pixels[offset : offset + size]).view(dtype).reshape(shape)  # [1, H, W]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pixels": None}


def build_cache(
    items: Sequence[dict[str, Any]],
    cache_dir: str | PathLike[str],
    size: int = 512,
    on_error: str = "raise",
    min_size: int = 16,
    report: str | PathLike[str] | None = None,
    workers: int = 0,
    progress: bool = True,
) -> RadiographCache:
    """Decode radiographs once, or open the finished cache of the same files and settings.

    Each image is resized so that its shorter side is ``size`` (antialiased bicubic, never enlarged) and stored as uint8
    where its source has up to 8 bits, else as uint16. Images are stored in the order of their paths, whatever the order
    of ``items`` or the number of workers.

    Args:
        items: ``{"image": path, ...}``; other fields must be JSON values and come back in ``cache.items``.
        cache_dir: holds the caches, one folder per key.
        size: the shorter side in pixels.
        on_error: ``"raise"`` stops at the first bad image; ``"skip"`` leaves bad images out, with a log line each.
        min_size: shorter images are bad images.
        report: a CSV (``path,reason``) of the images left out; written only with ``on_error="skip"``.
        workers: decoding processes; 0 decodes in this one.
        progress: show a progress bar.

    Returns:
        The cache, of at least one image.

    Raises:
        RadiographError: a bad image, with ``on_error="raise"``.
        ValueError: an argument is wrong, an image is listed twice, or no image is left.
    """
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error must be 'raise' or 'skip', got {on_error!r}")
    if size < 1 or workers < 0:
        raise ValueError(f"size must be 1 or more and workers 0 or more, got size={size}, workers={workers}")
    ordered = _sorted_items(items)
    root = Path(os.path.abspath(cache_dir))
    root.mkdir(parents=True, exist_ok=True)
    key = _key(ordered, size, min_size)
    with FileLock(root / f"{key}.lock"):
        decode = partial(_decode, size=size, min_size=min_size)
        cache = _open_finished(root / key, decode)
        if cache is None:
            with (
                closing(_decoded(ordered, decode, workers)) as results,
                tqdm(results, "caching", len(ordered), unit="img", disable=not progress) as bar,
            ):
                cache = _write(root / key, zip(bar, ordered, strict=True), on_error, report)
        elif cache.skipped and on_error == "raise":
            raise RadiographError(**cache.skipped[0])
        elif on_error == "skip":
            _write_report(report, cache.skipped)
    fields = {item["image"]: item for item in ordered}
    cache.items = [fields[item["image"]] for item in cache.items]  # a reused cache may hold older labels
    return cache


def _sorted_items(items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Items by absolute path; each image once."""
    ordered = sorted(({**item, "image": os.path.abspath(item["image"])} for item in items), key=lambda i: i["image"])
    if not ordered:
        raise ValueError("no images to cache: the data set is empty")
    twice = [path for path, count in Counter(item["image"] for item in ordered).items() if count > 1]
    if twice:
        raise ValueError(f"{len(twice)} images are listed more than once ({twice[0]}, ...); list each image once")
    try:
        json.dumps(ordered)
    except TypeError as error:
        raise ValueError(f"an item holds a field that isn't a JSON value ({error})") from error
    return ordered


def _key(ordered: list[dict[str, Any]], size: int, min_size: int) -> str:
    """Hash of everything the stored pixels depend on."""
    digest = hashlib.sha256(json.dumps([FORMAT_VERSION, size, min_size]).encode())
    for item in ordered:
        try:
            status = os.stat(item["image"])
            state = [status.st_size, status.st_mtime_ns]
        except OSError:
            state = [-1, -1]  # the reader will say what is wrong with it
        digest.update(json.dumps([item["image"], *state]).encode())
    return digest.hexdigest()[:20]


def _open_finished(folder: Path, decode: Callable[[str], _Decoded | RadiographError]) -> RadiographCache | None:
    """The cache if there is a whole one that left out only what still can't be read (a decoder may be new)."""
    if not folder.exists():
        return None
    try:
        cache = RadiographCache(folder)
    except ValueError as error:
        _logger.warning("%s: rebuilding", error)
        return None
    if any(not isinstance(decode(bad["path"]), RadiographError) for bad in cache.skipped):
        _logger.info("%s: files left out before can be read now: rebuilding", folder)
        return None
    return cache


def _decode(path: str, size: int, min_size: int) -> _Decoded | RadiographError:
    """Read, resize and quantise one file; errors are returned, so that their order is that of the files."""
    try:
        radiograph = read_radiograph(path, min_size=min_size)
    except RadiographError as error:
        return error
    array, meta = _shrink(radiograph, size)
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
    meta = {**meta, "spacing_mm": spacing, "steps": [*meta["steps"], step]}
    return np.clip(np.asarray(resized), 0, 1)[None], meta  # [1, h, w]


def _decoded(
    ordered: list[dict[str, Any]], decode: Callable[[str], _Decoded | RadiographError], workers: int
) -> Iterator[_Decoded | RadiographError]:
    """Results in the order of the items, with a bounded number of them waiting."""
    paths = [item["image"] for item in ordered]
    if workers == 0:
        yield from map(decode, paths)
        return
    method = "fork" if "fork" in get_all_start_methods() else "spawn"  # as torch's loaders; no re-import of the caller
    pool = ProcessPoolExecutor(workers, mp_context=get_context(method))
    try:
        waiting = deque()
        for path in paths:
            waiting.append(pool.submit(decode, path))
            if len(waiting) >= 8 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _write(
    folder: Path,
    results: Iterator[tuple[_Decoded | RadiographError, dict[str, Any]]],
    on_error: str,
    report: str | PathLike[str] | None,
) -> RadiographCache:
    """Write the two files into a folder beside ``folder``, then rename it."""
    part = folder.with_suffix(".part")
    if part.exists():  # a killed build's; the lock is ours
        shutil.rmtree(part)
    part.mkdir()
    try:
        entries, skipped, total = _write_pixels(part / _PIXELS, results, on_error)
        if on_error == "skip":
            _write_report(report, skipped)
        if not entries:
            bad = RadiographError(**skipped[0])
            raise ValueError(f"none of the {len(skipped)} images can be used; the first: {bad}")
        index = {"version": FORMAT_VERSION, "bytes": total, "entries": entries, "skipped": skipped}
        (part / _INDEX).write_text(json.dumps(index), encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)  # renamed away unless the build failed
    return RadiographCache(folder)


def _write_pixels(
    path: Path, results: Iterator[tuple[_Decoded | RadiographError, dict[str, Any]]], on_error: str
) -> tuple[list[dict[str, Any]], list[dict[str, str]], int]:
    """Append every image to one file; ``(index entries, skipped files, bytes)``."""
    entries, skipped, offset = [], [], 0
    with path.open("wb") as stream:
        for result, item in results:
            if isinstance(result, RadiographError):
                if on_error == "raise":
                    raise result
                _logger.warning("skipped %s", result)
                skipped.append({"path": result.path, "reason": result.reason, "remedy": result.remedy})
                continue
            array, meta = result
            place = {"offset": offset, "shape": array.shape, "dtype": array.dtype.str}
            entries.append({**place, "item": item, "meta": meta})
            padding = -array.nbytes % _ALIGNMENT
            stream.write(array.tobytes() + bytes(padding))
            offset += array.nbytes + padding
        stream.flush()
        os.fsync(stream.fileno())
    return entries, skipped, offset


def _write_report(report: str | PathLike[str] | None, skipped: list[dict[str, str]]) -> None:
    """CSV of the images left out; only its header where there is none."""
    if report is None:
        return
    with atomic_file(report, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "reason"])
        writer.writerows([bad["path"], bad["reason"]] for bad in skipped)
