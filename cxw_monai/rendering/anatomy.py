"""The working volume: a labelled CT, resampled once to isotropic voxels, less table, clothes and injected contrast."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from .cleaning import find_body, remove_contrast, remove_lung_masses
from .landmarks import find_landmarks, voxels_to_mm
from .resample import axis_weights, bounding_box, resample_block
from .source import LabelledCT
from .structures import BONE_PATTERN, STRUCTURES, VESSEL_PATTERN, ids_matching

__all__ = ["MU_WATER_PER_MM", "Anatomy", "build_anatomy"]

MU_WATER_PER_MM = 0.0193
"""Linear attenuation of water at 70 keV, near the mean energy of a filtered 120 kVp chest beam, in 1/mm
(NIST XCOM, https://physics.nist.gov/PhysRefData/Xcom/html/xcom1.html). One energy: no beam hardening."""

_FIELD_MARGIN = 1.15  # side of the picture over the larger of the lungs' width and height


@dataclass
class Anatomy:
    """A chest that virtual patients are made from.

    Attributes:
        density: float32 ``[X, Y, Z]``, attenuation over that of water, ``1 + HU / 1000`` clipped at 0; axes in RAS
            order; zero on the x and y faces.
        occupancy: float32 ``[X, Y, Z, S]``, volume fraction of each structure of :data:`STRUCTURES`; laid out in
            memory as ``[Z, Y, X, S]``, which the projector reads fastest.
        affine: voxel index to patient mm in RAS+, ``[4, 4]``.
        voxel_mm: spacing, equal in all axes.
        bones: bool ``[X, Y, Z]``.
        isocentre: ``[3]`` patient mm, the middle of the lungs' bounding box (of the body's, where lungs are missing).
        field_of_view_mm: side of a picture that holds the chest, in the isocentre plane.
        landmarks: name to ``[3]`` patient mm.
        present: names of the structures the labels contain.
    """

    density: np.ndarray
    occupancy: np.ndarray
    affine: np.ndarray
    voxel_mm: float
    bones: np.ndarray
    isocentre: np.ndarray
    field_of_view_mm: float
    landmarks: dict[str, np.ndarray]
    present: tuple[str, ...]
    _depths: dict[str, tuple] = field(default_factory=dict, repr=False)

    def structure(self, name: str) -> np.ndarray:
        """Volume fraction of one structure, a view ``[X, Y, Z]``."""
        return self.occupancy[..., structure_index(name)]

    def lung_depth(self, side: str) -> tuple[tuple[slice, slice, slice], np.ndarray, np.ndarray]:
        """Depth of every lung voxel below the lung's surface; computed once and kept.

        Args:
            side: ``"left"`` or ``"right"``.

        Returns:
            Bounding box of the lung; ``[x, y, z]`` distance to the surface in mm (0 outside the lung); and
            ``[3, x, y, z]`` unit vectors towards the nearest surface point, in RAS axes.

        Raises:
            ValueError: if the lung is missing.
        """
        if side not in self._depths:
            lung = self.structure(f"lung_{side}") > 0.5
            if not lung.any():
                raise ValueError(f"findings need the structure 'lung_{side}', which the label map does not contain")
            box = bounding_box(lung, margin=1)
            distance, nearest = ndimage.distance_transform_edt(lung[box], return_indices=True)
            towards = (nearest - np.indices(distance.shape)).astype(np.float32) / np.maximum(distance, 1e-6)
            self._depths[side] = box, (distance * self.voxel_mm).astype(np.float32), towards.astype(np.float32)
        return self._depths[side]


def structure_index(name: str) -> int:
    """Channel of a structure in :attr:`Anatomy.occupancy`."""
    return [s.name for s in STRUCTURES].index(name)


def build_anatomy(ct: LabelledCT, voxel_mm: float = 1.5, clean: bool = True) -> Anatomy:
    """Prepares a labelled CT for projection. Everything outside the body becomes air.

    Args:
        ct: CT and labels on one grid.
        voxel_mm: spacing of the working volume, above 0.
        clean: replace injected contrast by blood and solid masses in the lungs by lung tissue
            (:mod:`~cxw_monai.rendering.cleaning`).

    Raises:
        ValueError: if no label name is that of a known structure, or the CT shows no body.
    """
    spacing = np.linalg.norm(ct.affine[:3, :3], axis=0)
    weights = [axis_weights(n, s, voxel_mm) for n, s in zip(ct.hu.shape, spacing, strict=True)]
    whole = tuple(slice(0, n) for n in ct.hu.shape)
    hu = resample_block(np.clip(ct.hu, -1000, 3071), weights, whole)[0]
    body = find_body(hu, voxel_mm)
    crop = (*bounding_box(body, margin=2)[:2], slice(0, body.shape[2]))
    hu, body = hu[crop].copy(), body[crop]
    regions = dict(enumerate(ndimage.find_objects(ct.labels), start=1))
    channels = [_occupancy(ct, regions, s.pattern, weights)[crop] for s in STRUCTURES]
    if not any(c.any() for c in channels):
        known = ", ".join(s.name for s in STRUCTURES)
        raise ValueError(f"labels: none of the structures {known} is in the label map; check the structures CSV")
    bones, vessels = (_occupancy(ct, regions, p, weights)[crop] for p in (BONE_PATTERN, VESSEL_PATTERN))
    if clean:
        remove_contrast(hu, bones, vessels, voxel_mm)
        for name in ("lung_left", "lung_right"):
            remove_lung_masses(hu, channels[structure_index(name)] > 0.5, voxel_mm)
    affine = _working_affine(ct.affine, spacing, voxel_mm, [s.start for s in crop])
    occupancy = np.stack([c.T for c in channels], axis=-1).transpose(2, 1, 0, 3)  # [X, Y, Z, S], slices apart in memory
    named = {s.name: c for s, c in zip(STRUCTURES, channels, strict=True)}
    frame = _frame(named["lung_left"] + named["lung_right"] > 0.5, body, affine, voxel_mm)
    landmarks = find_landmarks(named, affine)
    present = tuple(name for name, channel in named.items() if channel.any())
    return Anatomy(_density(hu, body), occupancy, affine, voxel_mm, bones > 0.3, *frame, landmarks, present)


def _density(hu: np.ndarray, body: np.ndarray) -> np.ndarray:
    """Attenuation over that of water, with air around the body and on the faces in x and y."""
    density = np.where(body, np.clip(1 + hu / 1000, 0, None), 0).astype(np.float32)
    density[[0, -1]] = 0
    density[:, [0, -1]] = 0
    return density


def _working_affine(affine: np.ndarray, spacing: np.ndarray, voxel_mm: float, start: list[int]) -> np.ndarray:
    """Affine of the cropped working volume; the axes keep the CT's directions, so oblique scans stay exact."""
    directions = affine[:3, :3] / spacing
    outer = voxels_to_mm(np.full(3, -0.5), affine)  # outer corner of the first input voxel
    result = np.eye(4)
    result[:3, :3] = directions * voxel_mm
    result[:3, 3] = outer + directions @ ((np.asarray(start) + 0.5) * voxel_mm)
    return result


def _occupancy(ct: LabelledCT, regions: dict, pattern: str, weights: list[np.ndarray]) -> np.ndarray:
    """Volume fraction on the working grid of all labels whose name matches."""
    result = np.zeros([len(w) for w in weights], dtype=np.float32)
    ids = ids_matching(ct.names, pattern)
    boxes = [regions[i] for i in ids if regions.get(i) is not None]
    if not boxes:
        return result
    region = tuple(slice(min(b[a].start for b in boxes), max(b[a].stop for b in boxes)) for a in range(3))
    block, place = resample_block(np.isin(ct.labels[region], ids).astype(np.float32), weights, region)
    result[place] = block
    return result


def _frame(lungs: np.ndarray, body: np.ndarray, affine: np.ndarray, voxel_mm: float) -> tuple[np.ndarray, float]:
    """Isocentre in patient mm and side of the picture in mm."""
    box = bounding_box(lungs if lungs.any() else body)
    middle = np.array([(s.start + s.stop - 1) / 2 for s in box])
    extent = max(box[0].stop - box[0].start, box[2].stop - box[2].start) * voxel_mm
    return voxels_to_mm(middle, affine), float(extent * _FIELD_MARGIN)
