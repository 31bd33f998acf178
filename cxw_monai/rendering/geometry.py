"""Cone-beam geometry of a radiograph: point source, flat detector, three views."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["VIEWS", "ConeBeam", "View", "default_beam"]


@dataclass(frozen=True)
class View:
    """Direction of a view and its customary distances.

    All vectors are in room coordinates, which equal the patient's RAS+ axes at zero pose, with the origin in the
    isocentre: x to the patient's right, y to the front, z to the head.

    Attributes:
        beam: unit vector from source to detector.
        column: unit vector of growing image columns.
        row: unit vector of growing image rows.
        source_detector_mm: customary source-detector distance.
        source_isocentre_mm: customary source-isocentre distance (middle of the chest).
    """

    beam: tuple[float, float, float]
    column: tuple[float, float, float]
    row: tuple[float, float, float]
    source_detector_mm: float
    source_isocentre_mm: float


VIEWS: dict[str, View] = {
    "PA": View((0, 1, 0), (-1, 0, 0), (0, 0, -1), 1830.0, 1660.0),
    "AP": View((0, -1, 0), (-1, 0, 0), (0, 0, -1), 1200.0, 1020.0),
    "LAT": View((-1, 0, 0), (0, -1, 0), (0, 0, -1), 1830.0, 1620.0),
}
"""PA and AP show the patient's right at image left. LAT is the left lateral (left side at the detector), shown with
the patient's front at image left. Distances: 72 inches for standing views, a bedside 1.2 m for AP."""


@dataclass(frozen=True)
class ConeBeam:
    """A point source and a flat detector, both centred on the isocentre.

    Attributes:
        view: one of :data:`VIEWS`.
        source_detector_mm: source-detector distance.
        source_isocentre_mm: source-isocentre distance; smaller than ``source_detector_mm``.
        pitch_mm: pixel pitch on the detector.
        height: rows of the detector.
        width: columns of the detector.

    Raises:
        ValueError: for an unknown view or distances and sizes that make no picture.
    """

    view: str
    source_detector_mm: float
    source_isocentre_mm: float
    pitch_mm: float
    height: int
    width: int

    def __post_init__(self) -> None:
        if self.view not in VIEWS:
            raise ValueError(f"view must be one of {sorted(VIEWS)}, got {self.view!r}")
        if not 0 < self.source_isocentre_mm < self.source_detector_mm:
            raise ValueError(
                "the isocentre must lie between source and detector: need 0 < source_isocentre_mm < "
                f"source_detector_mm, got {self.source_isocentre_mm} and {self.source_detector_mm}"
            )
        if self.pitch_mm <= 0 or self.height < 2 or self.width < 2:
            raise ValueError(
                f"need pitch_mm > 0 and at least 2 rows and columns, got {self.pitch_mm}, {self.height} x {self.width}"
            )

    @property
    def magnification(self) -> float:
        """Size on the detector over size in the isocentre plane."""
        return self.source_detector_mm / self.source_isocentre_mm

    def axes(self) -> np.ndarray:
        """Unit vectors of beam, column and row as the rows of a ``[3, 3]`` array."""
        view = VIEWS[self.view]
        return np.array([view.beam, view.column, view.row], dtype=float)

    def points(self, rows: np.ndarray, columns: np.ndarray, depths: np.ndarray) -> np.ndarray:
        """Room points on the rays of a grid of pixels, at given depths.

        Args:
            rows: ``[R]`` pixel rows (centre of the first pixel is 0).
            columns: ``[C]`` pixel columns.
            depths: ``[K]`` mm along the beam axis, 0 at the isocentre, positive towards the detector.

        Returns:
            ``[R, C, K, 3]`` mm in room coordinates.
        """
        beam, column, row = self.axes()
        v = (np.asarray(rows, dtype=float) - (self.height - 1) / 2) * self.pitch_mm
        u = (np.asarray(columns, dtype=float) - (self.width - 1) / 2) * self.pitch_mm
        depths = np.asarray(depths, dtype=float)[:, None]  # [K, 1]
        on_detector = v[:, None, None] * row + u[None, :, None] * column  # [R, C, 3]
        scale = (self.source_isocentre_mm + depths) / self.source_detector_mm
        return depths * beam + scale * on_detector[:, :, None, :]

    def project(self, points: np.ndarray) -> np.ndarray:
        """Projects room points to pixels.

        Args:
            points: ``[..., 3]`` mm in room coordinates, in front of the source.

        Returns:
            ``[..., 2]`` column and row in pixels (centre of the first pixel is 0, 0); may lie outside the detector.
        """
        along, u, v = np.moveaxis(np.asarray(points, dtype=float) @ self.axes().T, -1, 0)
        scale = self.source_detector_mm / (self.source_isocentre_mm + along) / self.pitch_mm
        return np.stack((u * scale + (self.width - 1) / 2, v * scale + (self.height - 1) / 2), axis=-1)

    def obliquity(self) -> np.ndarray:
        """Length of each ray per mm of depth: ``[height, width]``, at least 1."""
        v = (np.arange(self.height) - (self.height - 1) / 2) * self.pitch_mm
        u = (np.arange(self.width) - (self.width - 1) / 2) * self.pitch_mm
        return np.sqrt(1 + (v[:, None] ** 2 + u[None, :] ** 2) / self.source_detector_mm**2)


def default_beam(view: str, size: int, field_of_view_mm: float) -> ConeBeam:
    """Square picture of a view at its customary distances.

    Args:
        view: one of :data:`VIEWS`.
        size: rows and columns.
        field_of_view_mm: side of the picture measured in the isocentre plane.

    Returns:
        The geometry; its detector is ``field_of_view_mm * magnification`` wide.
    """
    distances = VIEWS[view].source_detector_mm, VIEWS[view].source_isocentre_mm
    return ConeBeam(view, *distances, field_of_view_mm * distances[0] / distances[1] / size, size, size)
