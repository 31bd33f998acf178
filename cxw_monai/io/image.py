"""The package's one convention for a radiograph, and the one error for files that can't meet it."""

from __future__ import annotations

from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import numpy as np

__all__ = ["MAX_PIXELS", "Radiograph", "RadiographError"]

MAX_PIXELS = 80_000_000
"""Largest image decoded by default, in pixels: twice a whole-spine film, and below Pillow's own bomb warning."""


class RadiographError(ValueError):
    """A file that cannot be used as a radiograph.

    The message is one line, ``path: reason; remedy``, and holds nothing of the file's own text (no names, ids, dates).

    Args:
        path: the file.
        reason: what is wrong with it.
        remedy: what the user can do about it.
    """

    def __init__(self, path: str | PathLike[str], reason: str, remedy: str) -> None:
        self.path = str(path)
        self.reason = " ".join(reason.split())
        self.remedy = " ".join(remedy.split())
        super().__init__(f"{self.path}: {self.reason}; {self.remedy}")

    def __reduce__(self) -> tuple[type[RadiographError], tuple[str, str, str]]:
        # The default would rebuild the error from its message alone, and fail on the way out of a worker process.
        return type(self), (self.path, self.reason, self.remedy)


@dataclass
class Radiograph:
    """One grey image in the package's convention.

    Attributes:
        array: float32 ``[1, H, W]`` in [0, 1], bone bright, rows downwards.
        meta: what is known of it:

            - ``path`` (str): the source file.
            - ``spacing_mm`` ((row, column) or None): pixel spacing of ``array``; None where the file declares none.
            - ``original_shape`` ((H, W)): the decoded pixel grid.
            - ``bits`` (int): bits per stored grey value.
            - ``photometric`` (str): DICOM's photometric interpretation, Pillow's mode or NIfTI's data type.
            - ``steps`` (list of str): what was applied, in order.
            - ``view``, ``laterality`` (str or None): as declared.
    """

    array: np.ndarray
    meta: dict[str, Any] = field(default_factory=dict)
