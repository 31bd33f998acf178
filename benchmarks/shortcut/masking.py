"""Films without a region, or with nothing else: the inputs of the masking test.

Sourget et al., Mask of Truth (arXiv 2412.04030), whose zero fill is joined by two that are no edge of black.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

__all__ = ["FILLS", "VARIANTS", "variant"]

VARIANTS = ("full", "no_region", "no_box", "only_region", "only_box")
"""The whole film; without the region, or its bounding box; with nothing but these."""

FILLS = ("mean", "blur", "zero")
"""What stands where something was taken out: the film's mean grey, the film blurred, or black."""

BLUR = 0.08  # standard deviation, as a share of the film's longer side


def variant(film: np.ndarray, region: np.ndarray, name: str, fill: str) -> np.ndarray:
    """One film of the test.

    Args:
        film: float `[H, W]` in [0, 1].
        region: bool `[H, W]`, not empty.
        name: one of `VARIANTS`.
        fill: one of `FILLS`.

    Returns:
        float32 `[H, W]` in [0, 1].

    Raises:
        ValueError: an unknown name or fill, shapes that differ, or an empty region.
    """
    if name not in VARIANTS or fill not in FILLS:
        raise ValueError(f"expected one of {VARIANTS} and of {FILLS}, got {name!r} and {fill!r}.")
    if film.shape != region.shape or film.ndim != 2:
        raise ValueError(f"film and region must be of one size, got {film.shape} and {region.shape}.")
    if not region.any():
        raise ValueError("the region is empty; leave such films out.")
    if name == "full":
        return film.astype(np.float32)
    where = _box(region) if name.endswith("box") else region
    kept = ~where if name.startswith("no") else where
    return np.where(kept, film, _filled(film, fill)).astype(np.float32)


def _box(region: np.ndarray) -> np.ndarray:
    """The region's bounding box, its last row and column too."""
    rows, columns = (np.flatnonzero(region.any(axis=axis)) for axis in (1, 0))
    box = np.zeros_like(region)
    box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    return box


def _filled(film: np.ndarray, fill: str) -> np.ndarray:
    if fill == "blur":
        return gaussian_filter(film, BLUR * max(film.shape), mode="nearest")
    return np.full_like(film, film.mean() if fill == "mean" else 0)
