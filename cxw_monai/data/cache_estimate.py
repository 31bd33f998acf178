"""How large a cache will be, estimated from the headers of some of its films."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image

from cxw_monai.io.formats.pictures import refuse_unless_file
from cxw_monai.io.formats.raster import is_raster_header

__all__ = ["CacheEstimate", "estimate_cache"]

_SAMPLE = 1000  # headers read at most; the mean of their sizes is then good to a few percent
_DESCRIPTION = 1000  # bytes of meta, item and row per film, about


@dataclass(frozen=True)
class CacheEstimate:
    """What a build will need.

    Attributes:
        films: how many films.
        bytes: what they take on the disk, about.
        free: what is free there, bytes.
    """

    films: int
    bytes: int
    free: int

    def __str__(self) -> str:
        return f"{self.films} films, about {_gigabytes(self.bytes)} GB on disk, {_gigabytes(self.free)} GB free"


def estimate_cache(paths: Sequence[str | PathLike[str]], folder: str | PathLike[str], size: int) -> CacheEstimate:
    """Estimate a cache's size from the headers of up to 1,000 films, evenly spaced; nothing is decoded.

    Films whose header tells nothing (damaged files, NIfTI) are counted as square 16-bit films.

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


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.3g}"
