"""Pixel spacing of a projection image: at the patient, as far as the file declares it.

Source: DICOM PS3.3 10.7.1 (spacing of projection radiographs). Rays diverge, so what lies on the detector is larger
than the patient by the magnification, source to detector over source to patient:

- PixelSpacing that differs from the spacing at the detector, or has a PixelSpacingCalibrationType, was corrected for
  it.
- PixelSpacing that equals ImagerPixelSpacing (or NominalScannedPixelSpacing, of scanned films) wasn't. That spacing is
  divided by EstimatedRadiographicMagnificationFactor, else by DistanceSourceToDetector / DistanceSourceToPatient.
- PixelSpacing alone may be either; it is taken as it is.

What contradicts it is noted: PixelSpacing above that at the detector though the magnification is above 1, and another
PixelAspectRatio.

PixelAspectRatio gives no millimetres. Films keep their stored pixels, square or not, as those of unequal spacing do;
the steps say so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from .attributes import Attributes

__all__ = ["Spacing", "find_spacing"]

_DETECTOR = ("ImagerPixelSpacing", "NominalScannedPixelSpacing")
_LIMITS_MM = (1e-3, 20.0)  # of a pixel; beyond them stands another unit, or nothing meant
_MOST_MAGNIFICATION = 5.0
_SAME = 5e-3  # relative: writers round to three decimals, 0.1434 to 0.143; no film is magnified by less


@dataclass(frozen=True)
class Spacing:
    """Spacing of the stored pixels."""

    mm: tuple[float, float] | None  # (row, column); None where it is unknown
    source: str  # the attributes that it comes from, in words; "unknown"
    notes: list[str] = field(default_factory=list)  # attributes left out and why, and pixels that aren't square


def find_spacing(tags: Attributes) -> Spacing:
    """The spacing by the rules above; a zero, empty, one-valued or unreadable attribute is left out and noted."""
    notes: list[str] = []
    pixel = _pair(tags, "PixelSpacing", notes)
    detector, name = None, ""
    for name in _DETECTOR:
        detector = _pair(tags, name, notes)
        if detector is not None:
            break
    calibration = tags.text.get("PixelSpacingCalibrationType", "").upper()
    if calibration not in ("GEOMETRY", "FIDUCIAL"):
        calibration = ""
    same = pixel is not None and detector is not None and _are_same(pixel, detector)
    if pixel is not None and (calibration or not same):
        notes += _shape(pixel, tags)
        above = detector is not None and not same and pixel[0] > detector[0] and pixel[1] > detector[1]
        if above and (factor := _magnification(tags, [])[0]) and factor > 1:
            notes.append(f"PixelSpacing is above {name}, which contradicts a magnification of {factor:.4g}")
        return Spacing(pixel, f"PixelSpacing, calibrated by {calibration}" if calibration else "PixelSpacing", notes)
    if detector is None:
        notes += _aspect(tags)
        return Spacing(None, "unknown", notes)
    notes += _shape(detector, tags)
    uncalibrated = "; PixelSpacing is the same, so not calibrated" if same else ""
    factor, source = _magnification(tags, notes)
    if factor is None:
        return Spacing(detector, f"{name}, at the detector, magnification unknown{uncalibrated}", notes)
    found = (detector[0] / factor, detector[1] / factor)
    return Spacing(found, f"{name} / magnification {factor:.4g} ({source}){uncalibrated}", notes)


def _pair(tags: Attributes, keyword: str, notes: list[str]) -> tuple[float, float] | None:
    """Two plausible numbers, or None; one that is there and unusable is noted (writers fill in 0 for unknown)."""
    values = tags.numbers(keyword)
    if not values:
        return None
    least, most = _LIMITS_MM
    plausible = [value for value in values if value is not None and least <= value <= most]
    if len(values) == len(plausible) == 2:
        return plausible[0], plausible[1]
    notes.append(f"{keyword} left out: not two numbers of {least:g} to {most:g} mm")
    return None


def _are_same(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return all(math.isclose(a, b, rel_tol=_SAME) for a, b in zip(one, other, strict=True))


def _magnification(tags: Attributes, notes: list[str]) -> tuple[float | None, str]:
    """``(factor, attributes that it comes from)``; None where it is unknown."""
    declared = _first(tags, "EstimatedRadiographicMagnificationFactor")
    if declared and 1 <= declared <= _MOST_MAGNIFICATION:
        return declared, "EstimatedRadiographicMagnificationFactor"
    if declared:
        notes.append(f"EstimatedRadiographicMagnificationFactor left out: not 1 to {_MOST_MAGNIFICATION:g}")
    detector, patient = (_first(tags, f"DistanceSourceTo{end}") for end in ("Detector", "Patient"))
    if detector and patient and 1 <= detector / patient <= _MOST_MAGNIFICATION:
        return detector / patient, "DistanceSourceToDetector / DistanceSourceToPatient"
    if detector and patient:
        notes.append(f"distances from the source left out: their ratio isn't 1 to {_MOST_MAGNIFICATION:g}")
    return None, ""


def _first(tags: Attributes, keyword: str) -> float | None:
    """The single value of an attribute, if it is finite and above 0."""
    values = tags.numbers(keyword)
    value = values[0] if len(values) == 1 else None
    return value if value is not None and math.isfinite(value) and value > 0 else None


def _ratio(tags: Attributes) -> tuple[float, float] | None:
    values = tags.numbers("PixelAspectRatio")
    usable = [value for value in values if value is not None and math.isfinite(value) and value > 0]
    return (usable[0], usable[1]) if len(values) == len(usable) == 2 else None


def _aspect(tags: Attributes) -> list[str]:
    """A note on pixels of unknown spacing that aren't square."""
    ratio = _ratio(tags)
    if ratio is None or math.isclose(*ratio, rel_tol=_SAME):
        return []
    return [f"pixels aren't square: PixelAspectRatio {ratio[0]:g}:{ratio[1]:g} (rows:columns), left as stored"]


def _shape(spacing: tuple[float, float], tags: Attributes) -> list[str]:
    """Notes on pixels of a spacing that isn't square, or isn't that of PixelAspectRatio."""
    notes, ratio = [], _ratio(tags)
    written = f"{spacing[0]:g} x {spacing[1]:g} mm (rows x columns)"
    if not math.isclose(*spacing, rel_tol=_SAME):
        notes.append(f"pixels aren't square: {written}, left as stored")
    if ratio is not None and not math.isclose(ratio[0] * spacing[1], ratio[1] * spacing[0], rel_tol=_SAME):
        notes.append(f"PixelAspectRatio {ratio[0]:g}:{ratio[1]:g} left out: it contradicts pixels of {written}")
    return notes
