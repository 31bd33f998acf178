"""Settings of a data set of digitally reconstructed radiographs."""

from __future__ import annotations

from dataclasses import dataclass

from .detector import Detector
from .geometry import VIEWS

__all__ = ["DRRSettings"]


@dataclass(frozen=True)
class DRRSettings:
    """How the pictures of a data set are made.

    Attributes:
        size: rows and columns, at least 16.
        views: pictures of each patient, from ``PA``, ``AP``, ``LAT``; a view given twice is taken in two poses.
        seed: seed of everything random, at least 0.
        masks: write the masks of structures and findings.
        findings_rate: probability of each finding in a patient, in [0, 1].
        display: ``log`` or ``exposure``.
        bits: 8 or 16 bits of the pictures.
        photons: mean photons per pixel of the unattenuated beam (quantum noise).
        gaussian_noise: standard deviation of further noise, as a fraction of the grey range.
        collimation: widest unexposed border on a side, as a fraction of the picture; half of the pictures have none.
        deform_mm: bound of the random displacement along each axis; 0 for none.
        field_of_view_mm: side of the picture in the isocentre plane; None fits the lungs.
        voxel_mm: spacing of the working volume.

    Raises:
        ValueError: if a setting is out of range.
    """

    size: int = 256
    views: tuple[str, ...] = ("PA",)
    seed: int = 0
    masks: bool = True
    findings_rate: float = 0.2
    display: str = "log"
    bits: int = 8
    photons: float = 1e5
    gaussian_noise: float = 0.0
    collimation: float = 0.08
    deform_mm: float = 12.0
    field_of_view_mm: float | None = None
    voxel_mm: float = 1.5

    def __post_init__(self) -> None:
        views = (self.views,) if isinstance(self.views, str) else tuple(self.views)
        object.__setattr__(self, "views", views)
        if not views or set(views) - set(VIEWS):
            raise ValueError(f"views must be one or more of {sorted(VIEWS)}, got {list(views)}")
        if self.size < 16:
            raise ValueError(f"size must be at least 16, got {self.size}")
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, got {self.seed}")
        if not 0 <= self.findings_rate <= 1:
            raise ValueError(f"findings_rate must lie in [0, 1], got {self.findings_rate}")
        if self.bits not in (8, 16):
            raise ValueError(f"bits must be 8 or 16, got {self.bits}")
        if not 0 <= self.collimation <= 0.4:
            raise ValueError(f"collimation must lie in [0, 0.4], got {self.collimation}")
        if self.deform_mm < 0:
            raise ValueError(f"deform_mm must be at least 0, got {self.deform_mm}")
        if self.voxel_mm <= 0:
            raise ValueError(f"voxel_mm must be positive, got {self.voxel_mm}")
        if self.field_of_view_mm is not None and self.field_of_view_mm <= 0:
            raise ValueError(f"field_of_view_mm must be positive or None, got {self.field_of_view_mm}")
        self.detector()

    def detector(self) -> Detector:
        """The detector these settings describe."""
        return Detector(self.display, self.photons, self.gaussian_noise)
