"""Separable, area-weighted resampling of label and grey volumes to a coarser grid along the same axes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage

__all__ = ["axis_weights", "bounding_box", "resample_block"]


def axis_weights(size: int, spacing: float, voxel: float) -> np.ndarray:
    """Weights that resample one axis.

    Triangle kernel, as wide as the coarser of the two spacings: linear interpolation when the output is finer, an
    anti-aliased mean when it is coarser.

    Args:
        size: input voxels.
        spacing: input spacing in mm.
        voxel: output spacing in mm; the first input voxel's outer face is kept in place.

    Returns:
        float32 ``[outputs, size]``; every row sums to 1.
    """
    outputs = max(2, int(np.ceil(size * spacing / voxel)))
    centres = (np.arange(outputs) + 0.5) * voxel / spacing - 0.5  # in input voxels
    width = max(1.0, voxel / spacing)
    centres = np.clip(centres, 0, size - 1)
    weights = np.clip(1 - np.abs(centres[:, None] - np.arange(size)) / width, 0, None)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def resample_block(
    block: np.ndarray, weights: Sequence[np.ndarray], region: tuple[slice, ...]
) -> tuple[np.ndarray, tuple[slice, ...]]:
    """Resamples a block of a volume that is zero outside the block.

    Args:
        block: float32 ``[x, y, z]``, the part of the input inside ``region``.
        weights: :func:`axis_weights` of the whole volume's three axes.
        region: place of the block in the input.

    Returns:
        The resampled block and its place in the output; outside it the output is zero.
    """
    parts, places = [], []
    for matrix, span in zip(weights, region, strict=True):
        used = np.flatnonzero(matrix[:, span].any(axis=1))
        place = slice(int(used[0]), int(used[-1]) + 1)
        parts.append(torch.from_numpy(np.ascontiguousarray(matrix[place, span])))
        places.append(place)
    data = torch.from_numpy(np.ascontiguousarray(block))
    for axis, part in enumerate(parts):
        data = torch.tensordot(part, data, dims=([1], [axis])).movedim(0, axis)
    return data.contiguous().numpy(), tuple(places)


def bounding_box(mask: np.ndarray, margin: int = 0) -> tuple[slice, ...]:
    """Smallest box that holds all true voxels.

    Args:
        mask: bool array with at least one true voxel.
        margin: voxels added on every side, as far as the array goes.

    Returns:
        One slice per axis.
    """
    boxes = ndimage.find_objects(mask.view(np.uint8))
    return tuple(
        slice(max(0, s.start - margin), min(n, s.stop + margin)) for s, n in zip(boxes[0], mask.shape, strict=True)
    )
