"""What is known of one file of a folder, and the findings about it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

__all__ = ["CHECKS", "COLUMNS", "FilmRecord", "QualitySettings"]

CHECKS: dict[str, str] = {
    "unreadable": "the reader refused it; see the reason",
    "duplicate": "the same pixels as another file",
    "near_duplicate": "almost the same picture as another file",
    "inverted": "bone looks dark: polarity suspected wrong",
    "rotated": "suspected to lie on a side or stand on its head",
    "mirrored": "left and right suspected exchanged",
    "border": "burnt-in border around the picture",
    "not_frontal_chest": "suspected to be no frontal chest film, however it is turned",
    "too_small": "fewer pixels than wanted",
    "low_contrast": "nearly constant, or a narrow range of greys",
}
"""Names of the findings and what they mean."""


@dataclass(frozen=True)
class QualitySettings:
    """Limits of the checks whose limits aren't measured with the film model.

    Attributes:
        min_side: px of the shorter side, below which a film is too small.
        min_contrast: least span from the 1st to the 99th percentile of the grey values, as a fraction of the range.
        min_border: narrowest border that is reported, as a fraction of the height or width.
        near_distance: most bits of 256 in which near duplicates differ; -1 turns them off.
        file_seconds: longest time for a file.
        anatomy: what the films show: `chest` for frontal chests. Films of any other are not looked at with the model of
            chests: none is `inverted`, `rotated`, `mirrored` or `not_frontal_chest`.

    Raises:
        ValueError: a setting is out of range.
    """

    min_side: int = 224
    min_contrast: float = 0.2
    min_border: float = 0.02
    near_distance: int = 32
    file_seconds: float = 60.0
    anatomy: str = "chest"

    def __post_init__(self) -> None:
        for name, low, high in (
            ("min_side", 1, 100_000),
            ("min_contrast", 0, 1),
            ("min_border", 0, 1),
            ("near_distance", -1, 64),
            ("file_seconds", 0.01, 86_400),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} must lie in [{low}, {high}], got {value}")


@dataclass
class FilmRecord:
    """One row of the report. Cells are empty where a file could not be read.

    Attributes:
        image: the file's :func:`~cxw_monai.io.results.film_names.film_name`, below the folder where there is one.
        flags: names out of :data:`CHECKS`.
        reason: why it can't be read.
        rows, columns: px.
        row_mm, column_mm: pixel spacing, where the file declares one.
        contrast: span from the 1st to the 99th percentile of the grey values inside the border, in [0, 1].
        top, left, height, width: the part inside burnt-in borders, px.
        inverted, rotated, mirrored: log odds (:class:`~cxw_monai.quality.film_model.FilmScores`).
        unlike: log odds that it is no frontal chest film.
        treatment: for an inverted, rotated or mirrored film, what would put it right, such as ``invert, turn 90``
            (counter-clockwise).
        pixel_hash: 32 hexadecimal digits.
        perceptual_hash: 64 hexadecimal digits.
        duplicate_group, near_duplicate_group: number of the group of equal, or nearly equal, films (from 1).
    """

    image: str
    flags: list[str] = field(default_factory=list)
    reason: str = ""
    rows: int | None = None
    columns: int | None = None
    row_mm: float | None = None
    column_mm: float | None = None
    contrast: float | None = None
    top: int | None = None
    left: int | None = None
    height: int | None = None
    width: int | None = None
    inverted: float | None = None
    rotated: float | None = None
    mirrored: float | None = None
    unlike: float | None = None
    treatment: str = ""
    pixel_hash: str = ""
    perceptual_hash: str = ""
    duplicate_group: int | None = None
    near_duplicate_group: int | None = None

    def cells(self) -> dict[str, str]:
        """The row of the CSV; flags are joined by ``|``."""
        return {name: _cell(getattr(self, name)) for name in COLUMNS}

    def hash_bits(self) -> np.ndarray:
        """The perceptual hash as bool ``[256]``."""
        return np.unpackbits(np.frombuffer(bytes.fromhex(self.perceptual_hash), dtype=np.uint8)).astype(bool)


COLUMNS: tuple[str, ...] = tuple(item.name for item in fields(FilmRecord))
"""Columns of the CSV, in order."""


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return "|".join(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
