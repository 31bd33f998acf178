"""Films of smooth noise, small enough for tests by the dozen."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from cxw_monai.metrics.world.films import WorldFilms


def films_of(pixels: np.ndarray, rows: list[dict] | None = None) -> WorldFilms:
    """Films `[N, H, W]` in [0, 1], each of a patient of its own."""
    count, shape = len(pixels), pixels.shape[1:]
    stored = torch.from_numpy(np.rint(255 * pixels).astype(np.uint8))[:, None]
    rows = [{"image": f"{n}.png"} for n in range(count)] if rows is None else rows
    return WorldFilms(rows, np.arange(count), stored, [shape] * count, [None] * count, [])


@pytest.fixture(scope="session")
def noise_films() -> WorldFilms:
    """20 films of 64 x 64 px, for a network of 32 x 32."""
    blobs = gaussian_filter(np.random.default_rng(0).standard_normal((20, 64, 64)), (0, 4, 4))
    low, high = blobs.min(axis=(1, 2), keepdims=True), blobs.max(axis=(1, 2), keepdims=True)
    return films_of(0.1 + 0.8 * (blobs - low) / (high - low))
