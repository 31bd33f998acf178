"""The package's one convention for a radiograph, and the one error for files that can't meet it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import numpy as np

from cxw_monai.io.files.printable import printable

from .pixel_map import PixelMap

__all__ = ["MAX_PIXELS", "RESAMPLE", "Radiograph", "RadiographError", "describe", "refuse_huge"]

MAX_PIXELS = 80_000_000
"""Largest image decoded by default, in pixels: twice a whole-spine film, and below Pillow's own bomb warning."""
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
    path: str | PathLike[str],
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
    """The ``meta`` of a :class:`Radiograph`."""
    return {
        "path": str(path),
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


def refuse_huge(path: str | PathLike[str], shape: Sequence[int], max_pixels: int) -> None:
    """Raise where a header declares more than ``max_pixels`` pixels.

    Raises:
        RadiographError: it does.
    """
    pixels = 1
    for size in shape:
        pixels *= int(size)
    if pixels > max_pixels:
        sizes = "x".join(str(int(size)) for size in shape)
        raise RadiographError(path, f"{sizes} is more than the limit of {max_pixels} pixels", RESAMPLE)


def __getattr__(name: str) -> Any:
    if name not in ("read_radiograph", "reader_options"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import read

    message = f"{__name__}.{name} is {read.__name__}.{name} since version 0.2; the old path will be gone in 0.3."
    warnings.warn(message, FutureWarning, stacklevel=2)
    return getattr(read, name)
