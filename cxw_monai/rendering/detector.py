"""From line integrals to a grey picture: quantum noise, display and collimation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["DISPLAYS", "Collimation", "Detector", "draw_collimation", "expose"]

DISPLAYS = ("log", "exposure")
"""``log``: the measured line integral. ``exposure``: transmitted exposure (Beer-Lambert), inverted."""

_BODY = 0.3  # line integral of about 15 mm of water


@dataclass(frozen=True)
class Detector:
    """A detector and how its picture is shown.

    Attributes:
        display: one of :data:`DISPLAYS`; bone is bright in both.
        photons: mean number of photons per pixel where nothing is in the beam; sets the Poisson noise.
        gaussian_noise: standard deviation of added Gaussian noise, as a fraction of the grey range.

    Raises:
        ValueError: if a setting is out of range.
    """

    display: str = "log"
    photons: float = 1e5
    gaussian_noise: float = 0.0

    def __post_init__(self) -> None:
        if self.display not in DISPLAYS:
            raise ValueError(f"display must be one of {DISPLAYS}, got {self.display!r}")
        if not self.photons >= 1:
            raise ValueError(f"photons must be at least 1, got {self.photons}")
        if not 0 <= self.gaussian_noise < 1:
            raise ValueError(f"gaussian_noise must lie in [0, 1), got {self.gaussian_noise}")


@dataclass(frozen=True)
class Collimation:
    """Exposed rectangle of the detector in px: columns ``left`` to ``right``, rows ``top`` to ``bottom``, half-open."""

    left: int
    top: int
    right: int
    bottom: int

    def mask(self, height: int, width: int) -> np.ndarray:
        """Bool ``[height, width]``, true where the detector is exposed."""
        exposed = np.zeros((height, width), dtype=bool)
        exposed[self.top : self.bottom, self.left : self.right] = True
        return exposed


def draw_collimation(rng: np.random.Generator, height: int, width: int, largest: float) -> Collimation:
    """Draws the exposed rectangle.

    Args:
        rng: source of randomness.
        height, width: rows and columns of the picture.
        largest: widest border on a side, as a fraction of the picture in [0, 0.4]; half of the pictures have no border.
    """
    borders = rng.uniform(0, largest, size=4) * (rng.uniform() < 0.5)
    left, top, right, bottom = (int(b * n) for b, n in zip(borders, (width, height, width, height), strict=True))
    return Collimation(left, top, width - right, height - bottom)


def expose(
    line_integral: np.ndarray, detector: Detector, collimation: Collimation, rng: np.random.Generator
) -> np.ndarray:
    """Makes the picture a detector shows.

    Args:
        line_integral: ``[H, W]`` attenuation integrals (no unit, at least 0).
        detector: noise and display.
        collimation: exposed rectangle.
        rng: source of the noise.

    Returns:
        float32 ``[1, H, W]`` in [0, 1], bone bright; unexposed borders are 0. The grey range spans the 2nd to the
        99.7th percentile of the line integral within the body (``exposure``: 1 is no exposure, 0 the 90th percentile
        of exposure within the body).
    """
    counts = rng.poisson(detector.photons * np.exp(-line_integral.astype(np.float64)))
    transmitted = np.maximum(counts, 0.5) / detector.photons
    exposed = collimation.mask(*line_integral.shape)
    body = exposed & (line_integral > _BODY)
    body = body if body.any() else exposed
    if detector.display == "log":
        measured = -np.log(transmitted)
        low, high = np.percentile(measured[body], (2, 99.7))
        grey = (measured - low) / max(high - low, 1e-6)
    else:
        grey = 1 - transmitted / np.percentile(transmitted[body], 90)
    if detector.gaussian_noise > 0:
        grey = grey + rng.normal(0, detector.gaussian_noise, size=grey.shape)
    return np.where(exposed, np.clip(grey, 0, 1), 0).astype(np.float32)[None]
