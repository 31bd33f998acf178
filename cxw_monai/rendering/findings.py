"""Findings put into a chest: nodule, pleural effusion, enlarged heart, pneumothorax."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .anatomy import Anatomy, structure_index
from .resample import bounding_box

__all__ = ["FINDINGS", "Chest", "Finding", "apply_findings"]

FINDINGS: dict[str, bool] = {"Cardiomegaly": False, "Nodule": True, "Pneumothorax": True, "Effusion": True}
"""Findings by their NIH ChestX-ray14 names, in the order they are put in, and whether they have a side."""

_FLUID, _BLOOD, _NODULE, _AIR, _PLEURA = 1.01, 1.045, 1.04, 0.002, 0.85  # attenuation over that of water


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        kind: a key of :data:`FINDINGS`.
        side: ``"left"`` or ``"right"`` (the patient's); empty for the enlarged heart.
        severity: 0 (mildest) to 1. Nodule radius 6 to 14 mm; fluid level 24 to 50 % of the lung's height over its
            lowest point (the diaphragm's dome is at about a third); heart 1.2 to 1.5 times as wide; air rim 12 to
            35 mm deep at the apex.
        place: 0 to 1, which of the possible places; of use for the nodule only.

    Raises:
        ValueError: for an unknown kind or a wrong side, severity or place.
    """

    kind: str
    side: str = ""
    severity: float = 0.5
    place: float = 0.5

    def __post_init__(self) -> None:
        if self.kind not in FINDINGS:
            raise ValueError(f"kind must be one of {list(FINDINGS)}, got {self.kind!r}")
        sides = ("left", "right") if FINDINGS[self.kind] else ("",)
        if self.side not in sides:
            raise ValueError(f"side of {self.kind} must be one of {sides}, got {self.side!r}")
        for name in ("severity", "place"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")


@dataclass
class Chest:
    """A patient's chest on the grid of the anatomy, while it is being changed.

    Attributes:
        density: float32 ``[X, Y, Z]``, attenuation over that of water.
        occupancy: float32 ``[X, Y, Z, S]``; the anatomy's own array unless ``changed``.
        changed: whether ``occupancy`` is a copy that differs from the anatomy's.
        extents: finding to float32 ``[X, Y, Z]``, the fraction of each voxel it fills.
    """

    density: np.ndarray
    occupancy: np.ndarray
    changed: bool
    extents: dict[str, np.ndarray]


def apply_findings(anatomy: Anatomy, density: np.ndarray, findings: tuple[Finding, ...]) -> Chest:
    """Puts findings into a chest.

    Args:
        anatomy: the chest without them; not changed.
        density: ``[X, Y, Z]`` attenuation over that of water; changed in place.
        findings: what to put in, in this order.

    Returns:
        The changed chest. Lung structures keep the space that fluid, nodule and pleural air take (they mean the
        hemithorax, as a reader outlines it); an enlarged heart takes its space from the lungs.

    Raises:
        ValueError: if a structure a finding needs is missing.
    """
    chest = Chest(density, anatomy.occupancy, False, {})
    for finding in findings:
        _PUT_IN[finding.kind](anatomy, chest, finding)
    return chest


def _blend(chest: Chest, kind: str, box: tuple[slice, ...], alpha: np.ndarray, value: float) -> None:
    """Fills a fraction ``alpha`` of the voxels of a box with a value and records the extent."""
    target = chest.density[box]
    target += alpha * (value - target)
    extent = chest.extents.setdefault(kind, np.zeros_like(chest.density))
    extent[box] = np.maximum(extent[box], alpha)


def _facing(towards: np.ndarray, side: str) -> tuple[np.ndarray, np.ndarray]:
    """Where the nearest lung surface faces the mediastinum, and where it faces the diaphragm."""
    lateral = -1.0 if side == "left" else 1.0
    return lateral * towards[0] < -0.4, towards[2] < -0.6


def _nodule(anatomy: Anatomy, chest: Chest, finding: Finding) -> None:
    box, depth, _ = anatomy.lung_depth(finding.side)
    radius = 6.0 + 8.0 * finding.severity
    seen = depth * (np.arange(depth.shape[2]) > depth.shape[2] / 3)  # not in the recess behind the diaphragm
    places = np.argwhere(seen >= min(radius, seen.max()))
    centre = places[round(finding.place * (len(places) - 1))]
    distance = np.sqrt(
        sum((axis - c) ** 2 for axis, c in zip(np.ogrid[tuple(map(slice, depth.shape))], centre, strict=True))
    )
    alpha = np.clip((radius - distance * anatomy.voxel_mm) / anatomy.voxel_mm + 0.5, 0, 1).astype(np.float32)
    _blend(chest, finding.kind, box, alpha * anatomy.structure(f"lung_{finding.side}")[box], _NODULE)


def _effusion(anatomy: Anatomy, chest: Chest, finding: Finding) -> None:
    box, depth, towards = anatomy.lung_depth(finding.side)
    lung = anatomy.structure(f"lung_{finding.side}")[box]
    height = np.arange(depth.shape[2]) * anatomy.voxel_mm
    level = (0.24 + 0.26 * finding.severity) * height[-1]
    climb = np.where(_facing(towards, finding.side)[0], 25.0, 60.0)  # fluid climbs along the chest wall most
    climb = ndimage.gaussian_filter(climb, 3.0)
    alpha = np.clip((level + climb * np.exp(-depth / 15.0) - height) / anatomy.voxel_mm + 0.5, 0, 1)
    alpha = ndimage.gaussian_filter(alpha.astype(np.float32), 1.0)
    _blend(chest, finding.kind, box, alpha * lung, _FLUID)


def _pneumothorax(anatomy: Anatomy, chest: Chest, finding: Finding) -> None:
    box, depth, towards = anatomy.lung_depth(finding.side)
    lung = anatomy.structure(f"lung_{finding.side}")[box]
    upward = np.linspace(0, 1, depth.shape[2], dtype=np.float32)
    rim = (12.0 + 23.0 * finding.severity) * np.clip((upward - 0.3) / 0.6, 0, 1)  # [z] mm, deepest at the apex
    inner = np.logical_or(*_facing(towards, finding.side))
    gap = ndimage.gaussian_filter(np.where(inner, -10, np.clip(rim - depth, -10, 10)), 1.0)  # mm inside the pleural air
    alpha = np.clip(gap / anatomy.voxel_mm + 0.5, 0, 1) * lung * (rim > 1)
    collapsed = chest.density[box]
    collapsed *= 1 + (0.15 + 0.25 * finding.severity) * lung * (1 - alpha)
    pleura = np.exp(-((gap / anatomy.voxel_mm) ** 2)) * lung * (rim > 3)
    _blend(chest, finding.kind, box, alpha, _AIR)
    collapsed += 0.8 * pleura * (np.maximum(collapsed, _PLEURA) - collapsed)


def _cardiomegaly(anatomy: Anatomy, chest: Chest, finding: Finding) -> None:
    heart = anatomy.structure("heart")
    core = heart > 0.5
    if not core.any():
        raise ValueError("the finding Cardiomegaly needs the structure 'heart', which the label map does not contain")
    widening = 0.2 + 0.3 * finding.severity
    factor = 1 + widening * np.array([1.0, 0.5, 0.4])  # most in width, the least where it lies on the diaphragm
    inside = bounding_box(core)
    centre = np.array([(s.start + s.stop - 1) / 2 for s in inside])
    margin = int(np.ceil(max(s.stop - s.start for s in inside) * widening / 2)) + 2
    box = bounding_box(core, margin)
    start = np.array([s.start for s in box])
    grown = ndimage.affine_transform(
        heart, 1 / factor, centre + (start - centre) / factor, [s.stop - s.start for s in box], order=1
    )
    if not chest.changed:
        chest.occupancy, chest.changed = np.copy(chest.occupancy), True  # np.copy keeps the memory layout
    lungs = [chest.occupancy[box + (structure_index(f"lung_{side}"),)] for side in ("left", "right")]
    grown = np.clip(ndimage.gaussian_filter(grown, 3.0 / anatomy.voxel_mm) * 2 - 0.5, 0, 1)  # rounds the border
    taken = grown * np.clip(lungs[0] + lungs[1], 0, 1)  # grows into the lungs only
    for lung in lungs:
        lung *= 1 - taken
    room = chest.occupancy[box + (structure_index("heart"),)]
    np.maximum(room, taken, out=room)
    _blend(chest, finding.kind, box, taken, _BLOOD)
    chest.extents[finding.kind][box] = room


_PUT_IN: dict[str, Callable[[Anatomy, Chest, Finding], None]] = {
    "Cardiomegaly": _cardiomegaly,
    "Nodule": _nodule,
    "Pneumothorax": _pneumothorax,
    "Effusion": _effusion,
}
