"""One radiograph of one virtual patient: picture, masks, landmarks, boxes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from .anatomy import MU_WATER_PER_MM, Anatomy, structure_index
from .detector import Collimation, Detector, expose
from .findings import Chest, apply_findings
from .geometry import ConeBeam
from .landmarks import find_landmarks
from .patient import Pose, SpatialTransform, VirtualPatient
from .projector import project_volumes
from .structures import STRUCTURES

__all__ = ["PatientVolume", "RenderedFilm", "build_patient", "render"]

_FINDING_THRESHOLD_MM = {"Cardiomegaly": 8.0, "Nodule": 2.0, "Pneumothorax": 3.0, "Effusion": 5.0}
_STEP_MM = 2.0


@dataclass
class PatientVolume:
    """A virtual patient ready for any number of pictures.

    Attributes:
        patient: what was drawn.
        anatomy: the chest it was made from.
        tables: volumes to project, ``[Z, Y, X, C]``: first the attenuation over that of water with the extents of the
            findings as further channels, then (with masks) the structures.
        findings: names of the finding channels, in their order.
        landmarks: name to ``[3]`` patient mm.
    """

    patient: VirtualPatient
    anatomy: Anatomy
    tables: list[torch.Tensor]
    findings: tuple[str, ...]
    landmarks: dict[str, np.ndarray]


@dataclass
class RenderedFilm:
    """A picture with everything known about it.

    Attributes:
        image: float32 ``[1, H, W]`` in [0, 1], bone bright, head up.
        line_integral: float32 ``[H, W]``, attenuation along the ray before noise.
        masks: structure to bool ``[H, W]``, path length over the structure's threshold; empty without masks.
        depths: structure to float32 ``[H, W]``, path length through it in mm; empty without masks.
        finding_masks: finding to bool ``[H, W]``.
        boxes: finding to ``(x, y, width, height)`` in pixels, the box around its mask; none for an unseen finding.
        landmarks: name to ``(column, row)`` in pixels, only those inside the exposed field.
    """

    image: np.ndarray
    line_integral: np.ndarray
    masks: dict[str, np.ndarray]
    depths: dict[str, np.ndarray]
    finding_masks: dict[str, np.ndarray]
    boxes: dict[str, tuple[float, float, float, float]]
    landmarks: dict[str, tuple[float, float]]


def build_patient(
    anatomy: Anatomy, patient: VirtualPatient, masks: bool = True, device: str | torch.device = "cpu"
) -> PatientVolume:
    """Applies a patient's densities and findings to the anatomy.

    Args:
        anatomy: the chest; not changed.
        patient: what to apply (size and deformation follow in :func:`render`).
        masks: whether the structures are to be projected too.
        device: where to project.

    Raises:
        ValueError: if a finding needs a structure that is missing.
    """
    chest = apply_findings(anatomy, _scaled_density(anatomy, patient.density), patient.findings)
    channels = [np.stack([volume.T for volume in (chest.density, *chest.extents.values())], axis=-1)]
    if masks:
        channels.append(np.ascontiguousarray(chest.occupancy.transpose(2, 1, 0, 3)))
    tables = [torch.from_numpy(c).to(device) for c in channels]
    return PatientVolume(patient, anatomy, tables, tuple(chest.extents), _patient_landmarks(anatomy, chest))


def _scaled_density(anatomy: Anatomy, factors: dict[str, float]) -> np.ndarray:
    density = anatomy.density.copy()
    groups = {"lungs": ("lung_left", "lung_right"), "heart": ("heart",), "liver": ("liver",)}
    unknown = set(factors) - set(groups) - {"bones"}
    if unknown:
        raise ValueError(f"density has the unknown group(s) {sorted(unknown)}; known: {[*groups, 'bones']}")
    for group, structures in groups.items():
        for name in structures if group in factors else ():
            density *= 1 + (factors[group] - 1) * anatomy.structure(name)
    if "bones" in factors:
        density[anatomy.bones] += (factors["bones"] - 1) * np.clip(density[anatomy.bones] - 1, 0, None)
    return density


def _patient_landmarks(anatomy: Anatomy, chest: Chest) -> dict[str, np.ndarray]:
    if not chest.changed:
        return anatomy.landmarks
    heart = {"heart": chest.occupancy[..., structure_index("heart")]}
    return anatomy.landmarks | find_landmarks(heart, anatomy.affine)


def render(
    volume: PatientVolume,
    beam: ConeBeam,
    pose: Pose,
    detector: Detector,
    rng: np.random.Generator,
    collimation: Collimation | None = None,
) -> RenderedFilm:
    """Takes a radiograph.

    Args:
        volume: the patient.
        beam: the geometry.
        pose: how the patient stands.
        detector: noise and display.
        rng: source of the noise.
        collimation: exposed rectangle; None exposes the whole detector.

    Returns:
        The picture; masks, boxes and landmarks end at the exposed field.
    """
    collimation = collimation or Collimation(0, 0, beam.width, beam.height)
    transform = SpatialTransform(volume.anatomy, volume.patient, pose)
    span = transform.depth_range(beam.axes()[0])
    sums = project_volumes(volume.tables, beam, lambda p: transform.to_index(p)[..., ::-1], span, _STEP_MM)
    paths = sums.cpu().numpy()
    line_integral = paths[0] * np.float32(MU_WATER_PER_MM)
    exposed = collimation.mask(beam.height, beam.width)
    count = 1 + len(volume.findings)
    finding_masks = {
        name: (paths[i] > _FINDING_THRESHOLD_MM[name]) & exposed for i, name in enumerate(volume.findings, start=1)
    }
    present = volume.anatomy.present if len(volume.tables) > 1 else ()
    depths = {s.name: paths[count + i] for i, s in enumerate(STRUCTURES) if s.name in present}
    masks = {s.name: (depths[s.name] > s.threshold_mm) & exposed for s in STRUCTURES if s.name in present}
    boxes = {name: _box(mask) for name, mask in finding_masks.items() if mask.any()}
    landmarks = _visible_landmarks(volume.landmarks, transform, beam, collimation)
    image = expose(line_integral, detector, collimation, rng)
    return RenderedFilm(image, line_integral, masks, depths, finding_masks, boxes, landmarks)


def _box(mask: np.ndarray) -> tuple[float, float, float, float]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x, y = float(columns[0]), float(rows[0])
    return x, y, float(columns[-1] + 1 - x), float(rows[-1] + 1 - y)


def _visible_landmarks(
    landmarks: dict[str, np.ndarray], transform: SpatialTransform, beam: ConeBeam, field: Collimation
) -> dict[str, tuple[float, float]]:
    visible = {}
    for name, point in landmarks.items():
        column, row = beam.project(transform.to_room(point))
        if field.left <= column <= field.right - 1 and field.top <= row <= field.bottom - 1:
            visible[name] = (round(float(column), 2), round(float(row), 2))
    return visible
