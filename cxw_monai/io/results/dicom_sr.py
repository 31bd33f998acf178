"""Diameters of heart and thorax of a DICOM film, and areas, as a DICOM structured report (:mod:`~.sr_report`).

Each diameter is a measurement group (TID 1501): the finding site, the algorithm, a comment, and the diameter, inferred
from the line that it was measured along, two points on the film's stored pixels (0 is the outer edge of the first
pixel, PS3.3 C.18.6). The cardiothoracic ratio is a second number of the heart's group, inferred from both lines. Areas
are further numbers, each with its own finding site: the heart's of its group, the others of the thorax's.
A viewer (OHIF 3.13) shows a group as a length with the comment as its label, by the tracking identifier; it needs a
line in every group, so that there is none of areas alone. Outlines are in the SEG.

Diameters are in mm, or in pixels where the film's spacing isn't known; areas in mm2 or pixels. A viewer that measures
the line anew takes the film's own spacing, which isn't divided by a magnification. The ratio has no unit.

Sources: DICOM PS3.16 TID 1500, 1501 and 300, https://dicom.nema.org/medical/dicom/current/output/chtml/part16/chapter_A.html;
codes of pydicom's copy of the standard, and a private one for the cardiothoracic ratio, which the standard lacks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from os import PathLike
from typing import Any

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from cxw_monai.io.dicom.file import quiet_pydicom
from cxw_monai.io.structures import PRIVATE_SCHEME, describe_structure

from .dicom_shared import DOUBT, SegAlgorithm, of_known_class, read_header, result_uid
from .sr_report import comment_on, save_report

__all__ = ["Diameter", "write_dicom_sr"]

_SITES = {
    "heart": (codes.SCT.Heart, "Heart, transverse diameter"),
    "thorax": (codes.SCT.ChestCavity, "Thorax, inner transverse diameter"),
}
_UNITS = {"mm": codes.UCUM.Millimeter, "px": Code("{pixels}", "UCUM", "pixels")}
_AREAS = {"mm": codes.UCUM.SquareMillimeter, "px": _UNITS["px"]}
_RATIO = Code("ctr", PRIVATE_SCHEME, "Cardiothoracic ratio")  # over 16 characters it would be no CodeValue
_SOURCE = Code("260753009", "SCT", "Source")
_LENGTH_TOOL = "Cornerstone3DTools@^0.1.0:Length"  # how OHIF knows a line with a length
_SERIES_OFFSET = 2000  # an SR's series number is its film's plus this


@dataclass(frozen=True)
class Diameter:
    """A transverse diameter and the line that it was measured along.

    Attributes:
        site: ``heart`` or ``thorax``.
        line: two points (row, column) on the film's stored grid in continuous px: the first pixel covers 0 to 1.
        length: above 0.
        unit: of the length, ``mm`` or ``px``.

    Raises:
        ValueError: a site or unit of another name, or a length that isn't above 0.
    """

    site: str
    line: Sequence[Sequence[float]]
    length: float
    unit: str

    def __post_init__(self) -> None:
        for field, known in (("site", _SITES), ("unit", _UNITS)):
            if getattr(self, field) not in known:
                raise ValueError(f"{field} of a diameter must be one of {list(known)}, got {getattr(self, field)!r}")
        if not (np.isfinite(self.length) and self.length > 0):
            raise ValueError(f"length of a diameter must be above 0, got {self.length}")


def write_dicom_sr(
    path: str | PathLike[str],
    source: str | PathLike[str],
    diameters: Sequence[Diameter],
    ratio: float | None = None,
    *,
    areas: Mapping[str, float] | None = None,
    created: datetime,
    algorithm: SegAlgorithm | None = None,
    doubtful: bool = False,
) -> None:
    """Write a DICOM SR of a film.

    Args:
        path: the SR.
        source: the film's own DICOM file, of any transfer syntax, with or without preamble.
        diameters: one of the heart, and one of the thorax where it was measured.
        ratio: the cardiothoracic ratio; None where there is none.
        areas: by structure, in mm2 where the heart's diameter is in mm, else in pixels.
        created: time of creation, in the clinic's own time.
        algorithm: what made the masks that were measured; its description is among the algorithm's parameters.
        doubtful: the masks are implausible, which labels and description say first.

    Raises:
        RadiographError: the source is no DICOM image, has several frames, lacks a UID that a reference needs, or is of
            a class that highdicom doesn't know.
        ValueError: no heart, or a site twice.
    """
    lines = {one.site: one for one in diameters}
    if "heart" not in lines or len(lines) < len(diameters):
        raise ValueError(f"diameters must be heart, or heart and thorax, got {[one.site for one in diameters]}")
    algorithm = algorithm or SegAlgorithm()
    doubt, made = DOUBT if doubtful else "", list(vars(algorithm).values())
    with quiet_pydicom():
        header = read_header(source, "SR")
        identity = [str(header.SOPInstanceUID), *made, *map(repr, lines.values()), repr(ratio), repr(areas), doubt]
        groups = {site: _group(header, site, lines, ratio, algorithm, identity, doubt) for site in lines}
        for name, area in (areas or {}).items():
            group = groups["heart" if name == "heart" else list(groups)[-1]]
            group[0].ContentSequence.extend(_area(name, area, _AREAS[lines["heart"].unit]))
        title, offset = "Diameters of heart and thorax", _SERIES_OFFSET
        how: dict[str, Any] = {"created": created, "algorithm": algorithm, "doubtful": doubtful}
        with of_known_class(source, header, "SR"):
            save_report(path, header, list(groups.values()), identity, title=title, number=offset, **how)


def _group(
    header: Dataset,
    site: str,
    lines: dict[str, Diameter],
    ratio: float | None,
    algorithm: SegAlgorithm,
    identity: Sequence[str],
    doubt: str,
) -> hd.sr.MeasurementsAndQualitativeEvaluations:
    """A diameter's measurement group; the heart's with the ratio, where one is given."""
    place, label = _SITES[site]
    one = lines[site]
    numbers = [_number(codes.SCT.Diameter, one.length, _UNITS[one.unit], [_line(header, one)])]
    if ratio is not None and site == "heart":
        label += f", cardiothoracic ratio {ratio:.2f}"
        both = [_line(header, lines[name]) for name in _SITES if name in lines]
        numbers.append(_number(_RATIO, ratio, codes.UCUM.NoUnits, both))
    group = hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(result_uid(f"SR {site}", identity), _LENGTH_TOOL),
        finding_sites=[hd.sr.FindingSite(place)],
        algorithm_id=hd.sr.AlgorithmIdentification(algorithm.name, algorithm.version, [algorithm.description]),
        measurements=numbers,
    )
    comment_on(group, f"{doubt}{label}")
    return group


def _area(structure: str, area: float, unit: Code) -> hd.sr.Measurement:
    """An area with its finding site."""
    meaning = describe_structure(structure)
    side, modifier = (Code(*code) if code else None for code in (meaning.side_code, meaning.modifier))
    site = hd.sr.FindingSite(Code(*meaning.type), side, modifier)
    return hd.sr.Measurement(codes.SCT.Area, area, unit, finding_sites=[site])


def _number(name: Code, value: float, unit: Code, lines: Sequence[hd.sr.ScoordContentItem]) -> hd.sr.Measurement:
    """A number that is inferred from lines; not all versions of highdicom have an argument for them."""
    number = hd.sr.Measurement(name, value, unit)
    number[0].ContentSequence = hd.sr.ContentSequence(lines)
    return number


def _line(header: Dataset, one: Diameter) -> hd.sr.ScoordContentItem:
    """A diameter's line as spatial coordinates (column, row) of the film."""
    points = np.array(one.line, dtype=np.float64)[:, ::-1]
    line = hd.sr.ScoordContentItem(
        name=_SOURCE,
        graphic_type=hd.sr.GraphicTypeValues.POLYLINE,
        graphic_data=points,
        relationship_type=hd.sr.RelationshipTypeValues.INFERRED_FROM,
    )
    line.ContentSequence = hd.sr.ContentSequence(
        [hd.sr.SourceImageForRegion(header.SOPClassUID, header.SOPInstanceUID)]
    )
    return line
