"""Radiographs with masks: decoded once, masks as bits beside the images, with randomness per (seed, epoch, film).

Masks are resized to exactly the cached image's shape and kept in one memory-mapped file in the cache's own folder: a
CRC-32 a film, then the films' records. A record is the bits of what is known, then one number a pixel whose bit s tells
whether structure s is there. Six structures of a 256 x 320 px film take 80 kB. A record is compared with its checksum
when it is first used.
"""

from __future__ import annotations

import copy
import hashlib
import json
import mmap
import os
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from monai.transforms import Randomizable
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from cxw_monai.data.cache import RadiographCache, build_cache, cache_lock, disk_errors
from cxw_monai.data.cache_store import CacheError, cache_errors, cache_folder, map_file
from cxw_monai.io.formats.pictures import read_mask
from cxw_monai.io.radiograph import RadiographError
from cxw_monai.io.results.film_names import film_name

__all__ = ["AnnotatedFilms", "SegmentationDataset", "annotated_films", "read_mask"]

FORMAT_VERSION = 2
"""Part of the key of a mask file: raise it when the layout or the resizing changes."""

Item = dict[str, Any]


class AnnotatedFilms:
    """Cached radiographs with the masks of some structures.

    Args:
        cache: the radiographs; None for no films.
        structures: names of the masks.
        masks: file that `annotated_films` wrote.

    Attributes:
        structures: names of the S structures.
        items: the manifest's fields of each film.

    Raises:
        CacheError: the file isn't of these films, or another user may have written it. Images and masks are compared
            with their checksums when they are first used: that may raise it later.
    """

    def __init__(self, cache: RadiographCache | None, structures: Sequence[str], masks: Path | None = None) -> None:
        self.cache, self.structures, self._path = cache, tuple(structures), masks
        self.items: Sequence[Item] = [] if cache is None else cache.items
        self._type = packed_type(len(self.structures))
        self._shifts = np.arange(len(self.structures), dtype=self._type)
        self._shapes = [] if cache is None else [cache.shape(index) for index in range(len(cache))]
        self._starts = np.cumsum([0, *(rows * columns + 1 for rows, columns in self._shapes)])
        self._known_whole = np.frombuffer(mmap.mmap(-1, max(1, len(self))), bool)  # shared with forked processes
        self._open()

    def _open(self) -> None:
        if self._path is None:
            return
        content, head = map_file(self._path), 4 * len(self)
        if len(content) != head + int(self._starts[-1]) * self._type.itemsize:
            raise self._altered("of another size than its films'")
        self._sums = np.frombuffer(content, "<u4", len(self))
        self._words = np.frombuffer(content, self._type, offset=head)

    def _altered(self, how: str) -> CacheError:
        return CacheError(f"{self._path}: {how}; delete this file and run the same again, which packs the masks anew")

    def __len__(self) -> int:
        return 0 if self.cache is None else len(self.cache)

    def image(self, index: int) -> np.ndarray:
        """uint8 or uint16 `[1, h, w]`, bone bright; a read-only view."""
        return self.cache.image(index)

    def _record(self, index: int) -> np.ndarray:
        record = self._words[self._starts[index] : self._starts[index + 1]]
        if not self._known_whole[index]:
            if zlib.crc32(record) != self._sums[index]:
                raise self._altered(f"the masks of {self.items[index]['image']} are damaged")
            self._known_whole[index] = True
        return record

    def known(self, index: int) -> np.ndarray:
        """Which structures were annotated on a film: bool `[S]`."""
        return (self._record(index)[0] >> self._shifts) & 1 != 0

    def label(self, index: int) -> np.ndarray:
        """Masks of a film: uint8 `[S, h, w]` of 0 and 1, 0 where the structure is unknown."""
        words = np.asarray(self._record(index)[1:]).reshape(1, *self._shapes[index])
        return ((words >> self._shifts[:, None, None]) & 1).astype(np.uint8)

    def spacing_mm(self, index: int) -> tuple[float, float] | None:
        """Row and column spacing of the cached image; None where the file declares none."""
        spacing = self.cache.meta[index]["spacing_mm"]
        return None if spacing is None else (float(spacing[0]), float(spacing[1]))

    def name(self, index: int) -> str:
        """The manifest's `id` of a film, or its file's name; its path where another film has the same."""
        name = self._short_name(index)
        return film_name(self.items[index]["image"]) if name in self._shared_names else name

    def _short_name(self, index: int) -> str:
        item = self.items[index]
        return str(item.get("id") or PurePosixPath(film_name(item["image"])).stem)

    @cached_property
    def _shared_names(self) -> set[str]:
        return {name for name, films in Counter(map(self._short_name, range(len(self)))).items() if films > 1}

    def patient(self, index: int) -> str | None:
        """The manifest's `patient_id` of a film."""
        patient = self.items[index].get("patient_id")
        return None if patient in (None, "") else str(patient)

    def __getstate__(self) -> dict[str, Any]:
        return {"cache": self.cache, "structures": self.structures, "masks": self._path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]  # maps belong to a process: opened anew


def packed_type(structures: int) -> np.dtype:
    """Smallest unsigned type with a bit a structure."""
    for bits in (8, 16, 32):
        if 1 <= structures <= bits:
            return np.dtype(f"<u{bits // 8}")
    raise ValueError(f"structures must be 1 to 32 names, got {structures}.")


def annotated_films(
    items: Sequence[Item],
    structures: Sequence[str],
    cache_dir: str | PathLike[str],
    size: int = 256,
    on_error: str = "raise",
    min_size: int = 16,
    report: str | PathLike[str] | None = None,
    workers: int = 0,
    progress: bool = True,
    reader: Mapping[str, Any] | None = None,
) -> AnnotatedFilms:
    """Decode films and masks once, or open what was decoded before.

    A mask's pixel at the cached size is 1 where at least half of its area is. Bad films are treated as `build_cache`
    treats them; a bad mask always stops with an error, for without it the film would teach something else.

    Args:
        items: films with `masks`, as `annotated_items` gives them.
        structures: names of the masks, in the order of the channels.
        cache_dir, size, on_error, min_size, report, workers, progress, reader: see `build_cache`.

    Returns:
        The films in the order of their paths; none for no items.

    Raises:
        RadiographError: a bad mask, or a bad film with `on_error="raise"`.
        CacheError: what `build_cache` or `AnnotatedFilms` refuses.
        ValueError: no structures or more than 32, or what `build_cache` refuses.
    """
    packed_type(len(structures))
    if not items:
        return AnnotatedFilms(None, structures)
    cache = build_cache(items, cache_dir, size, on_error, min_size, report, workers, progress, reader=reader)
    packer = _Packer(cache, structures)
    path = cache.folder / f"masks-{packer.key()}.bin"
    with cache_lock(cache.folder):
        if not os.path.lexists(path):
            _write_masks(path, packer, workers, progress)
    return AnnotatedFilms(cache, structures, path)


def _write_masks(path: Path, packer: _Packer, workers: int, progress: bool) -> None:
    sums = np.zeros(len(packer), "<u4")
    with disk_errors(path.parent), cache_errors(), cache_folder(path.parent).replace(path.name) as stream:
        stream.write(sums.tobytes())
        for index, record in enumerate(_packed(packer, workers, progress)):
            content = record.tobytes()
            sums[index] = zlib.crc32(content)
            stream.write(content)
        stream.seek(0)
        stream.write(sums.tobytes())


class _Packer(Dataset):
    """Packs the masks of each film; errors are returned, so that they come through worker processes whole."""

    def __init__(self, cache: RadiographCache, structures: Sequence[str]) -> None:
        self.cache, self.structures = cache, list(structures)
        self.type = packed_type(len(self.structures))

    def __len__(self) -> int:
        return len(self.cache)

    def __getitem__(self, index: int) -> np.ndarray | RadiographError:
        try:
            return self._record(index)
        except RadiographError as error:
            return error

    def _record(self, index: int) -> np.ndarray:
        shape = self.cache.shape(index)
        stored = tuple(self.cache.meta[index]["original_shape"])
        known, words = 0, np.zeros(shape, self.type)
        for number, name in enumerate(self.structures):
            files = self.cache.items[index]["masks"].get(name)
            if files is None:
                continue
            known |= 1 << number
            if files:
                union = np.logical_or.reduce([read_mask(file, stored) for file in files])
                words |= _shrunk(union, shape).astype(self.type) << self.type.type(number)
        return np.concatenate([np.array([known], self.type), words.ravel()])

    def key(self) -> str:
        """Hash of everything that the packed masks depend on."""
        digest = hashlib.sha256(json.dumps([FORMAT_VERSION, self.structures]).encode())
        for index in range(len(self)):
            masks = self.cache.items[index]["masks"]
            state = [[name, [[file, *_status(file)] for file in files]] for name, files in sorted(masks.items())]
            digest.update(json.dumps([self.cache.shape(index), state]).encode())
        return digest.hexdigest()[:20]


def _status(path: str) -> list[int]:
    try:
        status = os.stat(path)
    except OSError:
        return [-1, -1]  # the reader will say what is wrong with it
    return [status.st_size, status.st_mtime_ns]


def _shrunk(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A mask at the cached size: at least half of a pixel's area."""
    if mask.shape == tuple(shape):
        return mask
    area = Image.fromarray(mask.astype(np.uint8) * 255).resize((shape[1], shape[0]), Image.Resampling.BOX)
    return np.asarray(area) >= 128


def _packed(packer: _Packer, workers: int, progress: bool) -> Iterator[np.ndarray]:
    own = torch.Generator()  # a run must not depend on whether its masks were packed before
    loader = DataLoader(packer, batch_size=None, num_workers=workers, collate_fn=_unchanged, generator=own)
    for record in tqdm(loader, "caching masks", len(packer), unit="film", disable=not progress):
        if isinstance(record, RadiographError):
            raise record
        yield record


def _unchanged(record: Any) -> Any:
    return record


class SegmentationDataset(Dataset):
    """Films and masks through a transform, seeded per (seed, epoch, film).

    A sample's random numbers depend neither on the number of loader workers nor on what was drawn before, so that a
    resumed run draws what the uninterrupted one would have drawn.

    Args:
        films: the films.
        transform: takes `image` (uint8 or uint16 `[1, h, w]`), `label` (uint8 `[S, h, w]`), `known` (bool `[S]`) and
            `index`, and returns a dictionary with at least these, `image` and `label` as float tensors of one size. A
            MONAI `Randomizable` (a `Compose` is one) is given its random state before every call.
        seed: the run's seed, 0 or more.

    Raises:
        ValueError: `seed` is negative.
    """

    KEYS = ("image", "label", "known", "index")

    def __init__(self, films: AnnotatedFilms, transform: Callable[[Item], Item], seed: int = 0) -> None:
        if seed < 0:
            raise ValueError(f"seed must be 0 or more, got {seed}")
        self.films, self.transform, self.seed = films, transform, seed
        self._local = threading.local()

    def __len__(self) -> int:
        return len(self.films)

    def __getitem__(self, key: tuple[int, int] | int) -> dict[str, Tensor | int]:
        """The sample of `(epoch, index)`; a bare index means epoch 0.

        Raises:
            IndexError: no such film.
        """
        epoch, index = (int(part) for part in (key if isinstance(key, tuple) else (0, key)))
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is outside 0..{len(self) - 1}")
        if not hasattr(self._local, "transform"):  # its random state must not be shared between threads
            self._local.transform = copy.deepcopy(self.transform)
        transform = self._local.transform
        if isinstance(transform, Randomizable):
            sequence = np.random.SeedSequence([self.seed, epoch, index])
            transform.set_random_state(state=np.random.RandomState(np.random.MT19937(sequence)))
        films = self.films
        known = torch.from_numpy(films.known(index))
        sample = transform({"image": films.image(index), "label": films.label(index), "known": known, "index": index})
        return {name: sample[name] for name in self.KEYS}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_local"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._local = threading.local()
