"""Masks of cached radiographs, at the films' cached size, in a store of their own inside the films' folder.

A stored image holds one number per pixel, whose bit s says whether structure s is there; its description names the
structures that were annotated on the film. Six structures of a 256 x 320 px film take 80 kB. The layout, the checksums
and what is refused are those of :mod:`cxw_monai.data.store`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from cxw_monai.io.files.identity import file_state
from cxw_monai.io.formats.pictures import read_mask
from cxw_monai.io.radiograph import RadiographError

from .store import INDEX, CacheError, RadiographCache, Store
from .store_writer import Made, StoreWriter, cache_lock, items_content, write_items

__all__ = ["MaskStore", "build_masks", "packed_type"]

MASK_VERSION = 3
"""Part of the key: raise it when the packing or the resizing changes."""

_logger = logging.getLogger(__name__)


class MaskStore(Store):
    """Packed masks, as :func:`build_masks` stores them."""

    CONTENT = "mask"
    META_FIELDS = ("known",)

    def known(self, index: int, structures: Sequence[str]) -> np.ndarray:
        """Which structures were annotated on a film: bool ``[S]``."""
        annotated = self.description(index)["known"]
        return np.array([name in annotated for name in structures], bool)

    def label(self, index: int, count: int) -> np.ndarray:
        """Masks of a film: uint8 ``[count, h, w]`` of 0 and 1, 0 where a structure is unknown."""
        words = self.image(index)  # [1, h, w]
        shifts = np.arange(count, dtype=words.dtype)
        return ((words >> shifts[:, None, None]) & 1).astype(np.uint8)


class _Job(NamedTuple):
    """Masks of one film to pack."""

    image: str
    files: dict[str, list[str]]
    stored: tuple[int, int]
    """Rows and columns of the film's file."""
    shape: tuple[int, int]
    """Rows and columns of the cached film."""

    def __str__(self) -> str:
        return f"the masks of {self.image}"


def packed_type(structures: int) -> np.dtype[Any]:
    """Smallest unsigned type with a bit per structure.

    Raises:
        ValueError: no structures, or more than 32.
    """
    for bits in (8, 16, 32):
        if 1 <= structures <= bits:
            return np.dtype(f"<u{bits // 8}")
    raise ValueError(f"structures must be 1 to 32 names, got {structures}.")


def build_masks(
    cache: RadiographCache, structures: Sequence[str], workers: int = 0, progress: bool = False
) -> MaskStore:
    """Pack the masks of cached films, or open what was packed before.

    A mask's pixel at the cached size is 1 where at least half of its area is. What was packed is kept when a run is
    killed, and what is damaged is packed again.

    Args:
        cache: films whose items have ``masks``: files per known structure, whose union is taken.
        structures: names of the masks, at most 32, in the order of their bits.
        workers: processes; 0 for this one.
        progress: show a progress bar.

    Raises:
        RadiographError: a mask can't be used. None is left out: the film would teach that nothing is there.
        CacheError: the disk can't be written, or another user may have written what is there.
        ValueError: no structures, or more than 32.
    """
    pack = partial(_pack, structures=tuple(structures), dtype=packed_type(len(structures)))
    folder = cache.folder / f"masks-{_key(cache, structures)}"
    with cache_lock(folder):
        if not _is_finished(folder, cache):
            with StoreWriter(folder, len(cache), progress) as writer:
                older = any(cache.folder.glob("masks-*.bin"))
                unused = "; masks-*.bin of version 0.1 there aren't used any more" if older else ""
                _logger.info("%s: packing the masks of %d films%s", folder, int((~writer.done).sum()), unused)
                jobs = [
                    _Job(item["image"], item["masks"], tuple(meta["original_shape"]), cache.shape(index))
                    for index, (item, meta) in enumerate(zip(cache.items, cache.meta, strict=True))
                ]
                writer.fill(jobs, pack, workers, title="caching masks" if progress else None)
                items = items_content({"image": job.image} for job in jobs)
                writer.finish(write_items(folder, items), [])
        return MaskStore(folder)


def _key(cache: RadiographCache, structures: Sequence[str]) -> str:
    """Hash of everything that the packed masks depend on; no film is read for it."""
    digest = hashlib.sha256(json.dumps([MASK_VERSION, list(structures)]).encode())
    for index, item in enumerate(cache.items):
        masks = [
            [name, [[file, *(file_state(file) or (-1, -1))] for file in files]]  # the reader says what is wrong with it
            for name, files in sorted(item["masks"].items())
        ]
        digest.update(json.dumps([cache.shape(index), masks]).encode())
    return digest.hexdigest()[:20]


def _is_finished(folder: Path, cache: RadiographCache) -> bool:
    if not os.path.lexists(folder / INDEX):
        return False
    try:
        store = MaskStore(folder)
    except CacheError as error:
        _logger.warning("%s: packing again what is damaged", error)
        return False
    count = len(cache)
    whole = len(store) == count and all(store.shape(index) == cache.shape(index) for index in range(count))
    if not whole:
        _logger.warning("%s: doesn't hold the masks of these films; packing what is missing", folder)
    return whole


def _pack(job: _Job, structures: Sequence[str], dtype: np.dtype[Any]) -> Made | RadiographError:
    """One number per pixel; errors are returned, so that their order is that of the films."""
    words = np.zeros(job.shape, dtype)
    try:
        for number, name in enumerate(structures):
            if job.files.get(name):
                union = np.logical_or.reduce([read_mask(file, job.stored) for file in job.files[name]])
                words |= _shrunk(union, job.shape).astype(dtype) << dtype.type(number)
    except RadiographError as error:
        return error
    return words[None], {"known": [name for name in structures if job.files.get(name) is not None]}  # [1, h, w]


def _shrunk(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A mask at the cached size: at least half of a pixel's area."""
    if mask.shape == shape:
        return mask
    area = Image.fromarray(mask.astype(np.uint8) * 255).resize((shape[1], shape[0]), Image.Resampling.BOX)
    return np.asarray(area) >= 128
