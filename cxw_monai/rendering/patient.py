"""Virtual patients: size, shape, density and findings drawn at random, and the mapping of room to CT they stand for."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from .anatomy import Anatomy
from .findings import FINDINGS, Finding

__all__ = ["Pose", "SpatialTransform", "VirtualPatient", "draw_patient", "draw_pose", "random_stream"]

CONTROL_POINTS = 6
"""Control points of the deformation per axis (cubic B-spline over the whole CT)."""

# Largest degrees and mm; AP is the bedside view.
_POSE_SPREAD = {"PA": (3.0, 8.0), "AP": (6.0, 12.0), "LAT": (4.0, 8.0)}
_DENSITY_SPREAD = {"lungs": (0.8, 1.35), "bones": (0.8, 1.6), "heart": (0.97, 1.05), "liver": (0.97, 1.05)}


def random_stream(seed: int, patient: int, purpose: str) -> np.random.Generator:
    """Generator for one purpose of one patient.

    Depends on nothing else, so that neither the number nor the order of what is made changes any draw.

    Args:
        seed: the data set's seed, at least 0.
        patient: the patient's number, at least 0.
        purpose: what is drawn, such as ``"patient"`` or ``"PA_1"``.
    """
    return np.random.default_rng(np.random.SeedSequence([seed, patient, zlib.crc32(purpose.encode())]))


@dataclass(frozen=True)
class Pose:
    """How the patient stands in the beam.

    Attributes:
        rotation_deg: rotation about the x (tilt back), y (lean) and z (turn) axes through the isocentre.
        translation_mm: shift along x, y, z after the rotation.
    """

    rotation_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)
    translation_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class VirtualPatient:
    """What makes one patient; the same in all of their pictures.

    Attributes:
        scale: size of the patient over that of the CT, above 0.
        control_mm: ``[3, n, n, n]`` B-spline control displacements in mm along the CT's axes, or None for none.
        density: factor on the attenuation of ``lungs``, ``heart`` and ``liver``, and on ``bones``' excess over water.
        findings: what is put in.
    """

    scale: float = 1.0
    control_mm: np.ndarray | None = None
    density: dict[str, float] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


def draw_patient(rng: np.random.Generator, deform_mm: float = 12.0, findings_rate: float = 0.2) -> VirtualPatient:
    """Draws a patient.

    Args:
        rng: source of randomness.
        deform_mm: bound of the displacement along each axis, 0 or more.
        findings_rate: probability of each finding, in [0, 1], independently of the others.
    """
    scale = float(rng.uniform(0.93, 1.07))
    control = rng.uniform(-deform_mm, deform_mm, size=(3, *[CONTROL_POINTS] * 3))
    density = {name: float(rng.uniform(*spread)) for name, spread in _DENSITY_SPREAD.items()}
    findings = []
    for kind, sided in FINDINGS.items():
        present, left, severity, place = rng.uniform(size=4)  # always drawn, so that the rate doesn't shift later draws
        if present < findings_rate:
            side = ("left" if left < 0.5 else "right") if sided else ""
            findings.append(Finding(kind, side, float(severity), float(place)))
    return VirtualPatient(scale, control if deform_mm > 0 else None, density, tuple(findings))


def draw_pose(rng: np.random.Generator, view: str) -> Pose:
    """Draws how a patient stands for a view; bedside AP pictures vary most."""
    degrees, millimetres = _POSE_SPREAD[view]
    rotation = rng.uniform(-degrees, degrees, size=3)
    translation = rng.uniform(-millimetres, millimetres, size=3)
    return Pose(tuple(rotation.tolist()), tuple(translation.tolist()))


class SpatialTransform:
    """Maps room points to voxels of the CT and back, through pose, size and deformation.

    A room point x comes from the CT point ``q + D(q)`` with ``q = isocentre + R^T (x - t) / scale``, where D is a cubic
    B-spline displacement.

    Args:
        anatomy: the CT.
        patient: size and deformation.
        pose: rotation R and shift t.

    Raises:
        ValueError: if the deformation may fold: control displacements must stay under 0.4 of the control spacing in
            each axis (Choi & Lee, "Injectivity conditions of 2D and 3D uniform cubic B-spline functions", 2000).
    """

    def __init__(self, anatomy: Anatomy, patient: VirtualPatient, pose: Pose) -> None:
        self._shape = np.array(anatomy.density.shape)
        self._affine = anatomy.affine
        self._inverse = np.linalg.inv(anatomy.affine)
        self._isocentre = anatomy.isocentre
        self._rotation = Rotation.from_euler("xyz", pose.rotation_deg, degrees=True).as_matrix()
        self._translation = np.asarray(pose.translation_mm, dtype=float)
        self._scale = patient.scale
        self._control = None
        if patient.control_mm is not None:
            self._control = patient.control_mm / anatomy.voxel_mm
            spacing = (self._shape - 1) / (np.array(patient.control_mm.shape[1:]) - 1)
            reach = np.abs(self._control).max(axis=(1, 2, 3))
            if (reach >= 0.4 * spacing).any():
                raise ValueError(
                    f"deformation of up to {np.abs(patient.control_mm).max():.1f} mm may fold this CT; keep it under "
                    f"{0.4 * spacing.min() * anatomy.voxel_mm:.1f} mm (0.4 of the control points' distance)"
                )

    def to_index(self, points: np.ndarray) -> np.ndarray:
        """Room points ``[..., 3]`` in mm to voxel indices ``[..., 3]`` of the CT."""
        patient_mm = (points - self._translation) @ self._rotation / self._scale + self._isocentre
        index = patient_mm @ self._inverse[:3, :3].T + self._inverse[:3, 3]
        return index + self._displacement(index)

    def to_room(self, patient_mm: np.ndarray) -> np.ndarray:
        """CT points ``[..., 3]`` in patient mm to room mm ``[..., 3]``: the inverse of :meth:`to_index`."""
        target = np.asarray(patient_mm, dtype=float) @ self._inverse[:3, :3].T + self._inverse[:3, 3]
        index = target
        for _ in range(30):  # fixed point; the displacement is a contraction where it doesn't fold
            index = target - self._displacement(index)
        moved = index @ self._affine[:3, :3].T + self._affine[:3, 3]
        return (moved - self._isocentre) @ self._rotation.T * self._scale + self._translation

    def depth_range(self, beam_axis: np.ndarray) -> tuple[float, float]:
        """First and last depth in mm along an axis at which the CT can be met."""
        corners = np.indices((2, 2, 2)).reshape(3, -1).T * (self._shape - 1)
        points = corners @ self._affine[:3, :3].T + self._affine[:3, 3] - self._isocentre
        reach = 0.0
        if self._control is not None:
            reach = float(np.abs(self._control).max()) * float(np.linalg.norm(self._affine[:3, 0])) * self._scale
        depths = (points @ self._rotation.T * self._scale + self._translation) @ beam_axis
        return float(depths.min() - reach), float(depths.max() + reach)

    def _displacement(self, index: np.ndarray) -> np.ndarray:
        """Displacement in voxels at voxel indices ``[..., 3]``; constant beyond the CT's faces."""
        if self._control is None:
            return np.zeros_like(index)
        nodes = np.array(self._control.shape[1:]) - 1
        where = (np.clip(index / (self._shape - 1), 0, 1) * nodes).reshape(-1, 3).T  # [3, N]
        parts = [ndimage.map_coordinates(c, where, order=3, mode="nearest", prefilter=False) for c in self._control]
        return np.stack(parts, axis=-1).reshape(index.shape)
