"""Takes out of a CT what would be in every picture made from it: table, injected contrast, lesions of its own."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from .resample import bounding_box

__all__ = ["find_body", "remove_contrast", "remove_lung_masses"]

_BLOOD_HU, _BONE_HU = 45.0, 500.0


def find_body(hu: np.ndarray, voxel_mm: float) -> np.ndarray:
    """Finds the patient and leaves out table, blanket, clothes and cables.

    The largest part over -400 HU after sheets thinner than about 6 mm are opened away, slices filled.

    Args:
        hu: ``[X, Y, Z]`` Hounsfield units, isotropic voxels.
        voxel_mm: spacing.

    Returns:
        bool ``[X, Y, Z]``.

    Raises:
        ValueError: if nothing is over -400 HU.
    """
    thickness = max(1, round(3 / voxel_mm))
    solid = np.pad(hu > -400, ((0, 0), (0, 0), (thickness, thickness)), mode="edge")  # the scan's ends are no surface
    solid = ndimage.binary_opening(solid, iterations=thickness)[:, :, thickness:-thickness]
    parts, count = ndimage.label(solid)
    if not count:
        raise ValueError("ct: no body found (nothing over -400 HU); the CT must be in Hounsfield units")
    body = parts == 1 + np.bincount(parts.ravel())[1:].argmax()
    for k in range(body.shape[2]):
        body[:, :, k] = ndimage.binary_fill_holes(body[:, :, k])
    return ndimage.binary_dilation(body)


def remove_contrast(hu: np.ndarray, bones: np.ndarray, vessels: np.ndarray, voxel_mm: float) -> None:
    """Replaces injected contrast by plain blood, in place; metal goes too.

    Contrast is what is over 60 HU in labelled vessels and the heart, over 200 HU more than 3 mm away from labelled
    bone, over 1000 HU outside bone; over 1300 HU in bone (a vessel that touches it) becomes bone of 500 HU.

    Args:
        hu: ``[X, Y, Z]`` Hounsfield units; changed. Untouched where no vessel is labelled.
        bones: volume fraction of labelled bone.
        vessels: volume fraction of labelled vessels and heart.
        voxel_mm: spacing.
    """
    if not vessels.any():
        return
    bone = bones > 0.1
    reach = max(1, round(3 / voxel_mm))
    near_bone = ndimage.binary_dilation(bone, iterations=reach)
    near_vessel = ndimage.binary_dilation(vessels > 0.1, iterations=reach)
    hot = (hu > 60) & near_vessel & ~bone
    hot |= (hu > 200) & ~near_bone
    hot |= (hu > 1000) & ~bone
    hu[hot] = _BLOOD_HU
    hu[(hu > 1300) & bone] = _BONE_HU


def remove_lung_masses(hu: np.ndarray, lung: np.ndarray, voxel_mm: float) -> None:
    """Replaces solid masses at least 12 mm thick inside one lung by lung tissue, in place.

    A lesion that the CT already has would else be in every picture without a label. The gap is filled with the tissue
    next to it towards head or foot, so that its texture continues.

    Args:
        hu: ``[X, Y, Z]`` Hounsfield units; changed.
        lung: bool ``[X, Y, Z]``, the labelled lung.
        voxel_mm: spacing.
    """
    if not lung.any():
        return
    box = bounding_box(lung)
    inside, values = lung[box], hu[box]
    radius = max(1, round(6 / voxel_mm))
    core = ndimage.binary_opening(inside & (values > -450), iterations=radius)
    parts, count = ndimage.label(core)
    tissue = inside & (values < -600)
    if not tissue.any():
        return
    usual = float(np.median(values[tissue]))
    for number in range(1, count + 1):
        mass = ndimage.binary_dilation(parts == number, iterations=radius + round(3 / voxel_mm), mask=inside)
        span = bounding_box(mass)[2]
        shift = span.stop - span.start + 1
        up, down = (np.roll(values, s, axis=2) for s in (shift, -shift))
        filling = np.where(up < -600, up, np.where(down < -600, down, usual))
        values[mass] = filling[mass]
