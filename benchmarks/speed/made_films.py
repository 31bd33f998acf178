"""Films that the benchmarks make up."""

from __future__ import annotations

import numpy as np
import torch

__all__ = ["synthetic_film"]


def synthetic_film(side: int, seed: int) -> np.ndarray:
    """A smooth random film with grain, uint8 ``[1, side, side]``."""
    rng = np.random.default_rng([side, seed])
    coarse = torch.from_numpy(rng.random((1, 1, 12, 12), dtype=np.float32))
    film = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic")[0].numpy()
    film = film + rng.normal(0, 0.02, film.shape)
    return (np.clip(film, 0, 1) * 255).astype(np.uint8)
