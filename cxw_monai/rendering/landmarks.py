"""Anatomical landmarks of a labelled chest, in patient millimetres."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

__all__ = ["LANDMARKS", "find_landmarks", "voxels_to_mm"]

# Directions in RAS+: x to the patient's right, y to the front, z to the head.
_LEFT, _RIGHT, _UP = (-1.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)
_LEFT_DOWN, _RIGHT_DOWN = (-1.0, 0.0, -1.0), (1.0, 0.0, -1.0)


def voxels_to_mm(index: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Maps voxel indices ``[..., 3]`` to patient mm by an affine ``[4, 4]``."""
    return np.asarray(index, dtype=float) @ affine[:3, :3].T + affine[:3, 3]


def _extreme(direction: tuple[float, float, float]) -> Callable[[np.ndarray], np.ndarray]:
    """Finder of the point of a structure that lies farthest in a direction (mean of its outermost 0.2 % voxels)."""

    def find(voxels: np.ndarray) -> np.ndarray:
        reach = voxels @ np.asarray(direction)
        count = max(1, len(voxels) // 500)
        return voxels[np.argpartition(reach, -count)[-count:]].mean(axis=0)

    return find


def _carina(voxels: np.ndarray) -> np.ndarray:
    """Middle of the lowest undivided level of the airway; its lowest point where it never divides."""
    low = voxels.min(axis=0).astype(int)
    grid = np.zeros(voxels.max(axis=0).astype(int) - low + 1, dtype=bool)
    grid[tuple((voxels.astype(int) - low).T)] = True
    divided = [ndimage.label(grid[:, :, k])[1] > 1 for k in range(grid.shape[2])]
    fork = max((k for k, two in enumerate(divided) if two and all(divided[max(0, k - 2) : k])), default=-1)
    level = min(fork + 1, grid.shape[2] - 1)
    return np.append(np.argwhere(grid[:, :, level]).mean(axis=0), level) + low


LANDMARKS: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "carina": ("trachea", _carina),
    "lung_apex_left": ("lung_left", _extreme(_UP)),
    "lung_apex_right": ("lung_right", _extreme(_UP)),
    "costophrenic_left": ("lung_left", _extreme(_LEFT_DOWN)),
    "costophrenic_right": ("lung_right", _extreme(_RIGHT_DOWN)),
    "heart_centroid": ("heart", lambda voxels: voxels.mean(axis=0)),
    "heart_apex": ("heart", _extreme(_LEFT_DOWN)),
    "aortic_arch": ("aorta", _extreme(_UP)),
    "clavicle_medial_left": ("clavicle_left", _extreme(_RIGHT)),
    "clavicle_medial_right": ("clavicle_right", _extreme(_LEFT)),
    "liver_dome": ("liver", _extreme(_UP)),
}
"""Landmark to the structure it is found on and its finder (voxels ``[N, 3]`` in RAS order to one point ``[3]``).
The costophrenic angle is the lung's extreme in the direction lateral-and-down, which for near-parallel frontal rays
projects to the lateral lower corner of the projected lung."""


def find_landmarks(occupancy: dict[str, np.ndarray], affine: np.ndarray) -> dict[str, np.ndarray]:
    """Finds the landmarks of all structures that are there.

    Args:
        occupancy: structure to its volume fraction per voxel, ``[X, Y, Z]`` in [0, 1], axes in RAS order.
        affine: voxel index to patient mm, ``[4, 4]``.

    Returns:
        Landmark to ``[3]`` patient mm; without those whose structure has no voxel over one half.
    """
    found = {}
    voxels = {name: np.argwhere(volume > 0.5).astype(np.float32) for name, volume in occupancy.items()}
    for name, (structure, finder) in LANDMARKS.items():
        if len(voxels.get(structure, ())):
            found[name] = voxels_to_mm(finder(voxels[structure]), affine)
    return found
