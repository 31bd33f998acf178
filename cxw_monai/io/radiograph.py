"""The package's one convention for a radiograph, and the one error for files that can't meet it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import numpy as np

from cxw_monai.io.files.printable import printable

from .pixel_map import PixelMap

__all__ = [
    "AGAIN",
    "MAX_PIXELS",
    "RESAMPLE",
    "Radiograph",
    "RadiographError",
    "UnusableError",
    "describe",
    "errors_of",
    "refuse_huge",
]

MAX_PIXELS = 80_000_000
"""Largest image decoded by default, in pixels: twice a whole-spine film, and below Pillow's own bomb warning."""
AGAIN = "copy it again from its source"
RESAMPLE = "resample it, or read it with a larger max_pixels"


class RadiographError(ValueError):
    """A file that cannot be used as a radiograph.

    The message is one line, ``path: reason; remedy``, and holds nothing of the file's own text (no names, ids, dates).
    The path in it is :func:`~cxw_monai.io.files.printable.printable`.

    Args:
        path: the file.
        reason: what is wrong with it.
        remedy: what the user can do about it.
    """

    def __init__(self, path: str | PathLike[str], reason: str, remedy: str) -> None:
        self.path = str(path)
        self.reason = " ".join(reason.split())
        self.remedy = " ".join(remedy.split())
        super().__init__(printable(f"{self.path}: {self.reason}; {self.remedy}"))

    def __reduce__(self) -> tuple[type[RadiographError], tuple[str, str, str]]:
        # The default would rebuild the error from its message alone, and fail on the way out of a worker process.
        return type(self), (self.path, self.reason, self.remedy)


class UnusableError(ValueError):
    """A :class:`RadiographError` of a part of a reader that doesn't know the file's path; see :func:`errors_of`."""

    def __init__(self, reason: str, remedy: str = AGAIN) -> None:
        super().__init__(reason)
        self.remedy = remedy


@contextmanager
def errors_of(path: str | PathLike[str], damage: str, remedy: str = AGAIN) -> Iterator[None]:
    """Make a :class:`RadiographError` of whatever reading a file raises.

    Args:
        path: the file.
        damage: the reason for errors that a parser raises on a damaged file; ``{}`` in it becomes their type.
        remedy: what the user can do about those.
    """
    try:
        yield
    except RadiographError:
        raise
    except UnusableError as error:
        raise RadiographError(path, str(error), error.remedy) from error
    except Exception as error:  # parsers raise whatever the damage provokes (OSError, KeyError, zlib.error, ...)
        raise RadiographError(path, damage.format(type(error).__name__), remedy) from error


@dataclass
class Radiograph:
    """One grey image in the package's convention.

    Attributes:
        array: float32 ``[1, H, W]`` in [0, 1], bone bright (fluoroscopy: as declared, see ``steps``), rows downwards.
        meta: what is known of it; all but ``pixel_map`` are JSON values:

            - ``path`` (str): the source file.
            - ``spacing_mm`` ((row, column) or None): pixel spacing of ``array``; None where the file declares none.
            - ``spacing_from`` (str, of a DICOM only): the attributes that it comes from, or ``"unknown"``.
            - ``original_shape`` ((H, W)): rows and columns as read.
            - ``bits`` (int): bits per stored grey value.
            - ``photometric`` (str): DICOM's photometric interpretation, Pillow's mode or the NIfTI/NRRD data type.
            - ``intent`` (str or None): DICOM's ``FOR PRESENTATION`` or ``FOR PROCESSING``.
            - ``view``, ``laterality`` (str or None): as declared.
            - ``steps`` (list of str): what was applied, in order.
            - ``pixel_map`` (:class:`~cxw_monai.io.pixel_map.PixelMap`): from the stored pixel grid to ``array``.
    """

    array: np.ndarray
    meta: dict[str, Any] = field(default_factory=dict)


def describe(
    pixel_map: PixelMap,
    *,
    bits: int,
    photometric: str,
    steps: Sequence[str],
    spacing: tuple[float, float] | None = None,
    spacing_from: str | None = None,
    intent: str | None = None,
    view: str | None = None,
    laterality: str | None = None,
) -> dict[str, Any]:
    """The ``meta`` of a :class:`Radiograph`, without its ``path``."""
    return {
        "spacing_mm": spacing,
        **({} if spacing_from is None else {"spacing_from": spacing_from}),
        "original_shape": pixel_map.shape,
        "bits": bits,
        "photometric": photometric,
        "intent": intent,
        "view": view,
        "laterality": laterality,
        "steps": list(steps),
        "pixel_map": pixel_map,
    }


def refuse_huge(shape: Sequence[int], max_pixels: int) -> None:
    """Raise where a header declares more than ``max_pixels`` pixels.

    Raises:
        UnusableError: it does.
    """
    sizes = [int(size) for size in shape]
    if math.prod(sizes) > max_pixels:
        text = "x".join(map(str, sizes))
        raise UnusableError(f"{text} is more than the limit of {max_pixels} pixels", RESAMPLE)
