"""Radiographs decoded once, at training size, in one memory-mapped store.

A cache is a folder ``<cache_dir>/<key>``, laid out as :mod:`cxw_monai.data.store` describes. The key is a hash of what
went in: paths, file sizes and times, settings, format version. Builders hold a lock: of several processes one builds
while the others wait. A build that was killed, or that ran out of disk or memory, resumes where it stopped: images that
are stored whole, by their checksums, aren't decoded again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from PIL import Image

from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.files.csv_files import write_rows
from cxw_monai.io.files.identity import file_state
from cxw_monai.io.formats.pictures import refuse_unless_file
from cxw_monai.io.formats.raster import is_raster_header
from cxw_monai.io.radiograph import Radiograph, RadiographError
from cxw_monai.io.read import read_radiograph, reader_options
from cxw_monai.io.results.film_names import film_name

from .store import FORMAT_VERSION, INDEX, CacheError, RadiographCache
from .store_writer import Made, StoreWriter, cache_lock, items_content, made, write_items

__all__ = ["CacheError", "CacheEstimate", "RadiographCache", "build_cache", "estimate_cache"]

_SAMPLE = 1000  # headers read at most; the mean of their sizes is then good to a few percent
_DESCRIPTION = 1000  # bytes of meta, item and row per film, about

_logger = logging.getLogger(__name__)


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
    labels = items_content(ordered)
    folder = Path(os.path.abspath(cache_dir)) / _key(paths, size, min_size, options)
    decode = partial(_decode, size=size, options={**options, "min_size": min_size})
    with cache_lock(folder):
        name = write_items(folder, labels)
        if not _is_finished(folder, paths, partial(made, make=decode, workers=workers), verify, progress):
            with StoreWriter(folder, len(paths), progress) as writer:
                _announce(writer, paths, size)
                skipped = writer.fill(paths, decode, workers, on_error, "caching" if progress else None)
                if not writer.done.any():
                    _write_report(report, skipped)
                    bad = RadiographError(**skipped[0])
                    raise ValueError(f"none of the {len(skipped)} images can be used; the first: {bad}")
                writer.finish(name, skipped)
        cache = RadiographCache(folder, name)  # a reused cache may have been built with older labels
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


def _key(paths: list[str], size: int, min_size: int, options: Mapping[str, Any]) -> str:
    """Hash of everything the stored pixels depend on."""
    digest = hashlib.sha256(json.dumps([FORMAT_VERSION, size, min_size, *sorted(options.items())]).encode())
    for path in paths:
        found = file_state(path)
        state = f"{found[0]} {found[1]}" if found else "absent"  # the reader will say what is wrong with it
        digest.update(os.fsencode(f"{path}\0{state}\0"))
    return digest.hexdigest()[:20]


def _is_finished(
    folder: Path, paths: list[str], decoded: Callable[[list[str]], Generator[Any]], verify: bool, progress: bool
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
        _logger.warning("%s: doesn't hold the films of this data set; decoding what is missing", folder)
        return False
    with closing(decoded([bad["path"] for bad in cache.skipped])) as results:
        if any(not isinstance(result, RadiographError) for result in results):
            _logger.info("%s: files left out before can be read now: adding them", folder)
            return False
    return True


def _announce(writer: StoreWriter, paths: list[str], size: int) -> None:
    """Log what the build will take; refuse it where the disk is too small."""
    left = [paths[index] for index in np.flatnonzero(~writer.done)]
    if len(left) < len(paths):
        _logger.info("%s: resuming: %d of %d films are stored whole", writer.folder, len(paths) - len(left), len(paths))
    estimate = estimate_cache(left, writer.folder, size)
    _logger.info("%s: caching %s", writer.folder, estimate)
    if estimate.bytes > estimate.free:
        raise CacheError(
            f"{writer.folder}: too little disk for the cache ({estimate}); free some, set cache_dir to a larger disk, "
            f"or lower the cache's size ({size} px)"
        )


def _decode(path: str, size: int, options: Mapping[str, Any]) -> Made | RadiographError:
    """Read, resize and quantise one file; errors are returned, so that their order is that of the files."""
    try:
        radiograph = read_radiograph(path, **options)
    except RadiographError as error:
        return error
    array, meta = _shrink(radiograph, size)
    meta = {**meta, "pixel_map": meta["pixel_map"].to_dict()}
    top, dtype = (255, "<u1") if meta["bits"] <= 8 else (65535, "<u2")
    return np.rint(array * np.float32(top)).astype(dtype), meta


def _shrink(radiograph: Radiograph, size: int) -> Made:
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


def _write_report(report: str | PathLike[str] | None, skipped: list[dict[str, str]]) -> None:
    """CSV of the images left out; only its header where there is none."""
    if report is None:
        return
    rows = [{"path": film_name(bad["path"]), "reason": bad["reason"]} for bad in skipped]
    with atomic_file(report, "w", newline="", encoding="utf-8") as stream:
        write_rows(stream, ("path", "reason"), rows)


@dataclass(frozen=True)
class CacheEstimate:
    """What a build will need: of how many films, about how many bytes, and how many are free there."""

    films: int
    bytes: int
    free: int

    def __str__(self) -> str:
        return f"{self.films} films, about {self.bytes / 1e9:.3g} GB on disk, {self.free / 1e9:.3g} GB free"


def estimate_cache(paths: Sequence[str | PathLike[str]], folder: str | PathLike[str], size: int) -> CacheEstimate:
    """Estimate a cache's size from the headers of up to 1,000 films, evenly spaced; nothing is decoded.

    Films without a readable header (damaged files, NIfTI) are counted as square 16-bit films.

    Args:
        paths: the films.
        folder: an existing folder on the disk that will hold the cache.
        size: the shorter side of a stored film, px.
    """
    step = max(1, len(paths) // _SAMPLE)
    sizes = [_stored_bytes(path, size) for path in paths[::step]]
    mean = float(np.mean(sizes)) if sizes else 0.0
    return CacheEstimate(len(paths), round(len(paths) * (mean + _DESCRIPTION)), shutil.disk_usage(folder).free)


def _stored_bytes(path: str | PathLike[str], size: int) -> int:
    """Bytes of one film as it will be stored."""
    height, width, bits = _header(path) or (size, size, 16)
    scale = min(1.0, size / min(height, width))
    return round(height * scale) * round(width * scale) * (1 if bits <= 8 else 2)


def _header(path: str | PathLike[str]) -> tuple[int, int, int] | None:
    """``(height, width, bits)`` as declared, or None where they can't be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            refuse_unless_file(path)
            with Path(path).open("rb") as stream:
                head = stream.read(132)
            if is_raster_header(head):
                with Image.open(path) as image:
                    return image.height, image.width, 16 if image.mode.startswith(("I", "F")) else 8
            names = ["Rows", "Columns", "BitsStored"]
            dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=names)
            height, width, bits = (int(dataset[name].value) for name in names)
    except Exception:  # parsers raise whatever the damage provokes; the reader will say what is wrong
        return None
    return (height, width, bits) if height and width else None
