"""Run-length encodings of masks, as competitions publish them.

``"start length start length ..."``: runs of set pixels over the image read down its columns (``order="columns"``) or
along its rows. A start is a pixel's number (the first is 1) or, ``relative``, the distance from the end of the run
before, as in SIIM-ACR.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

__all__ = ["decode_rle"]

_ORDERS: dict[str, Literal["C", "F"]] = {"columns": "F", "rows": "C"}


def decode_rle(text: str, height: int, width: int, *, order: str, relative: bool = False) -> np.ndarray:
    """The mask of a run-length encoding.

    Args:
        text: numbers with blanks between; empty for an empty mask.
        height, width: of the image, in pixels.
        order: ``"columns"`` or ``"rows"``.
        relative: a start counts from the end of the run before (from 0 at the first pixel).

    Returns:
        bool ``[height, width]``.

    Raises:
        ValueError: an odd count, a length below 1, a run outside the image or, relative, a negative start.
    """
    numbers = np.array(text.split(), dtype=np.int64)
    if numbers.size % 2:
        raise ValueError(f"run lengths come in pairs, got {numbers.size} numbers")
    starts, lengths = numbers[::2].copy(), numbers[1::2]
    if (lengths < 1).any() or (relative and (starts < 0).any()):
        raise ValueError("run lengths must be positive, and starts not negative")
    if relative:
        starts = np.cumsum(starts) + np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)[: starts.size]
    else:
        starts -= 1
    size = height * width
    if numbers.size and (starts.min() < 0 or (starts + lengths).max() > size):
        raise ValueError(f"a run lies outside the {height} x {width} image (rows x columns)")
    edges = np.zeros(size + 1, dtype=np.int32)
    np.add.at(edges, starts, 1)
    np.add.at(edges, starts + lengths, -1)
    return (np.cumsum(edges[:-1]) > 0).reshape((height, width), order=_ORDERS[order])
