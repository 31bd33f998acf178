"""Which films are the same: exactly, pixel by pixel, or nearly, after another size, compression or brightness."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from scipy.fft import dctn
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .film_model import averaged

__all__ = ["HASH_BITS", "near_groups", "perceptual_hash", "pixel_hash"]

HASH_BITS = 256
_SIDE, _WAVES = 64, 16
_BLOCK = 4096  # rows compared at once


def pixel_hash(image: np.ndarray) -> str:
    """A digest of the size and the grey values at 16 bits, the same for every lossless container.

    Args:
        image: ``[H, W]`` in [0, 1].

    Returns:
        32 hexadecimal digits.
    """
    grey = np.rint(np.clip(image, 0, 1) * 65535).astype("<u2")
    digest = hashlib.blake2b(repr(grey.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(grey).data)
    return digest.hexdigest()


def perceptual_hash(image: np.ndarray) -> np.ndarray:
    """Signs of the film's lowest 16x16 cosine waves (a DCT hash).

    64 bits, the common size, are too few for chests, which are all alike: different patients come as near as copies.
    Brightness and contrast leave the signs as they are.

    Args:
        image: ``[H, W]`` in [0, 1], without borders; stretched to a square.

    Returns:
        bool ``[256]``; the first, of the mean grey, is always false.
    """
    signs = dctn(averaged(image, _SIDE), norm="ortho")[:_WAVES, :_WAVES].ravel() > 0
    signs[0] = False
    return signs


def near_groups(hashes: Sequence[np.ndarray] | np.ndarray, distance: int) -> np.ndarray:
    """Groups of hashes that differ in few bits.

    All pairs are compared, as products of blocks of +-1 matrices: 1e5 films are 5e9 pairs.

    Args:
        hashes: bool ``[N, bits]``.
        distance: most differing bits of two neighbours; a group is all that is linked by neighbours.

    Returns:
        int ``[N]``: the number of each one's group, 0 on; one that has no neighbour is alone in its group.
    """
    signs = np.where(np.asarray(hashes, dtype=bool), np.float32(1), np.float32(-1))  # [N, bits]
    count = len(signs)
    if count == 0:
        return np.zeros(0, dtype=np.int64)
    least = signs.shape[1] - 2 * distance  # the product of two hashes is bits - 2 * distance
    rows, columns = [], []
    for start in range(0, count, _BLOCK):
        for other in range(start, count, _BLOCK):
            first, second = np.nonzero(signs[start : start + _BLOCK] @ signs[other : other + _BLOCK].T >= least)
            rows.append(first + start)
            columns.append(second + other)
    edges = np.concatenate(rows), np.concatenate(columns)
    graph = coo_array((np.ones(len(edges[0]), dtype=bool), edges), shape=(count, count))
    return connected_components(graph, directed=False)[1]
