"""PNGs that a preparation makes: masks, and films of a format that isn't read or with bone dark.

What is there already, made of the same things in the same way, is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from cxw_monai.data.schema import Record
from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.files.identity import file_identity
from cxw_monai.io.radiograph import RadiographError

from .common import Job, LeftOut
from .masks import stored_mask

__all__ = ["MaskFile", "mask_of", "store_films", "stored_mask_of", "write_masks"]

_MASK_KEY, _FILM_SOURCE = "cxw_monai", "cxw_monai_source"  # PNG text fields


@dataclass(frozen=True)
class MaskFile:
    """A mask to write.

    Attributes:
        path: below the output folder, ``masks/<structure>/<name>.png``.
        make: gives the mask, bool or 0/non-zero, ``[H, W]`` of the image.
        key: text that changes when the mask would (its run lengths, its boxes and size): a mask that is there with the
            same key is kept.
    """

    path: str
    make: Callable[[], np.ndarray]
    key: str


def mask_of(record: Record, structure: str, name: str, make: Callable[[], np.ndarray], key: str) -> MaskFile:
    """The mask ``masks/<structure>/<name>.png`` of a record, entered in the record."""
    record.masks[structure] = path = f"masks/{structure}/{name}.png"
    return MaskFile(path, make, key)


def stored_mask_of(record: Record, structure: str, name: str, source: Path) -> MaskFile:
    """:func:`mask_of` a published mask image, put on the film's grid; it is made again when the image changes.

    Raises:
        RadiographError: it isn't a readable file.
    """
    make = partial(stored_mask, source, *record.size)
    return mask_of(record, structure, name, make, f"{file_identity(source).sha256} {record.size}")


def write_masks(job: Job, masks: Sequence[MaskFile]) -> None:
    """Writes the masks as 0/255 PNGs, several at a time; those that are there with the same key are kept.

    Damaged ones are left out: :meth:`Job.kept` takes them from their records.

    Raises:
        ValueError: a mask isn't ``[H, W]``.
    """
    for mask, error in job.each(masks, lambda mask: _write_mask(job.out / mask.path, mask), "masks"):
        if error is not None:
            job.left_out.append(LeftOut("mask", mask.path, f"{error.reason} ({error.path})", error.remedy))


def _write_mask(path: Path, mask: MaskFile) -> None:
    key = hashlib.sha256(mask.key.encode()).hexdigest()
    if _text_of(path, _MASK_KEY) == key:
        return
    pixels = np.asarray(mask.make()) != 0
    if pixels.ndim != 2:
        raise ValueError(f"{path}: a mask is [H, W], got the shape {pixels.shape}")
    _save(path, pixels.astype(np.uint8) * 255, _MASK_KEY, key)


def store_films(job: Job, films: Mapping[str, Record], make: Callable[[Path], np.ndarray], recipe: str) -> None:
    """Stores films as ``images/<name>`` (PNG) in the output folder and points their records there.

    Those that are there, made of the same file in the same way, are kept. Films that can't be read are left out
    (:meth:`Job.kept` drops them).

    Args:
        job: the preparation.
        films: record of the published file by the name of the new one.
        make: gives the grey values of the published file, uint8 or uint16 ``[H, W]``, bone bright.
        recipe: text that changes when ``make`` does something else.
    """

    def store(name: str) -> Path:
        path, source = job.out / "images" / name, Path(films[name].image)
        made_of = f"{recipe} {file_identity(source).sha256}"
        if _text_of(path, _FILM_SOURCE) != made_of:
            _save(path, make(source), _FILM_SOURCE, made_of, compress_level=3)
        return path

    for name, path in job.each(list(films), store, "films"):
        if isinstance(path, RadiographError):
            job.leave_out(path)
        else:
            films[name].image = str(path)


def _text_of(path: Path, field: str) -> str | None:
    """A text that a PNG was written with; None where there is no such file."""
    if not path.is_file():
        return None
    try:
        with Image.open(path, formats=("PNG",)) as image:
            return image.info.get(field)
    except Exception:  # a decoder may raise anything: it is made again
        return None


def _save(path: Path, pixels: np.ndarray, field: str, text: str, compress_level: int = -1) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text(field, text)
    with atomic_file(path) as stream:
        Image.fromarray(pixels).save(stream, format="PNG", pnginfo=info, compress_level=compress_level)
