"""Diameters of heart and thorax of a DICOM film as a DICOM structured report (SR) through highdicom.

One Comprehensive SR by template TID 1500 in a series of its own, in the film's study. Each diameter is a measurement
group (TID 1501): the finding site, the algorithm, a comment, and the diameter, inferred from the line that it was
measured along, two points on the film's stored pixels (0 is the outer edge of the first pixel, PS3.3 C.18.6). The
cardiothoracic ratio is a second number of the heart's group, inferred from both lines. A viewer (OHIF 3.13) shows a
group as a length with the comment as its label, by the tracking identifier; it needs a line in every group, so that
what has none isn't in the report: areas are in the table of measurements, outlines in the SEG.

Diameters are in mm, or in pixels where the film's spacing isn't known. A viewer that measures the line anew takes the
film's own spacing, which isn't divided by a magnification. The ratio has no unit.

The report is complete, preliminary and unverified: nobody has looked at it. What it takes of the film's header, and its
UIDs, are described in :mod:`~.dicom_shared`.

Sources: DICOM PS3.16 TID 1500, 1501 and 300, https://dicom.nema.org/medical/dicom/current/output/chtml/part16/chapter_A.html;
codes of pydicom's copy of the standard, and a private one for the cardiothoracic ratio, which the standard lacks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from os import PathLike

import highdicom as hd
import numpy as np
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from cxw_monai.io.dicom.file import quiet_pydicom
from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.structures import PRIVATE_SCHEME

from .dicom_shared import (
    DOUBT,
    SegAlgorithm,
    copy_patient_and_study,
    read_header,
    reference_to,
    result_uid,
    save_result,
    series_number,
    set_dates,
)

__all__ = ["Diameter", "write_dicom_sr"]

_SITES = {
    "heart": (codes.SCT.Heart, "Heart, transverse diameter"),
    "thorax": (codes.SCT.ChestCavity, "Thorax, inner transverse diameter"),
}
_UNITS = {"mm": codes.UCUM.Millimeter, "px": Code("{pixels}", "UCUM", "pixels")}
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
        created: time of creation, in the clinic's own time.
        algorithm: what made the masks that were measured; its description is among the algorithm's parameters.
        doubtful: the masks are implausible, which labels and description say first.

    Raises:
        RadiographError: the source is no DICOM image, has several frames, or lacks a UID that a reference needs.
        ValueError: no heart, or a site twice.
    """
    lines = {one.site: one for one in diameters}
    if "heart" not in lines or len(lines) < len(diameters):
        raise ValueError(f"diameters must be heart, or heart and thorax, got {[one.site for one in diameters]}")
    algorithm = algorithm or SegAlgorithm()
    with quiet_pydicom():
        header = read_header(source, "SR")
        report = _build(header, lines, ratio, algorithm, DOUBT if doubtful else "")
        copy_patient_and_study(header, report)
        set_dates(report, created)
        with atomic_file(path) as stream:
            save_result(report, stream)


def _build(
    header: Dataset, lines: dict[str, Diameter], ratio: float | None, algorithm: SegAlgorithm, doubt: str
) -> hd.sr.ComprehensiveSR:
    """The report, still without patient, study and dates."""
    made = list(vars(algorithm).values())
    identity = [str(header.SOPInstanceUID), *made, *map(repr, lines.values()), repr(ratio), doubt]
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=result_uid("device", made[:3]),
        name=algorithm.name,
        manufacturer_name=algorithm.manufacturer,
        model_name=algorithm.name,
        serial_number=algorithm.version,
    )
    observer = hd.sr.ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=observer),
        procedure_reported=codes.SCT.ImagingProcedure,
        imaging_measurements=[
            _group(header, site, lines, ratio if site == "heart" else None, algorithm, identity, doubt)
            for site in lines
        ],
    )
    report = hd.sr.ComprehensiveSR(
        evidence=[reference_to(header)],
        content=content,
        series_instance_uid=result_uid("SR series", identity),
        series_number=series_number(header, _SERIES_OFFSET),
        sop_instance_uid=result_uid("SR instance", identity),
        instance_number=1,
        manufacturer=algorithm.manufacturer,
        manufacturer_model_name=algorithm.name,
        software_versions=algorithm.version,
        device_serial_number=algorithm.version,
        series_description=f"{doubt}Diameters of heart and thorax",
        is_complete=True,
    )
    if ratio is not None:
        report.CodingSchemeIdentificationSequence = [CodingSchemeIdentificationItem(PRIVATE_SCHEME, name="cxw_monai")]
    return report


def _group(
    header: Dataset,
    site: str,
    lines: dict[str, Diameter],
    ratio: float | None,
    algorithm: SegAlgorithm,
    identity: Sequence[str],
    doubt: str,
) -> hd.sr.MeasurementsAndQualitativeEvaluations:
    """A diameter's measurement group, with the ratio where one is given."""
    place, label = _SITES[site]
    one = lines[site]
    numbers = [_number(codes.SCT.Diameter, one.length, _UNITS[one.unit], [_line(header, one)])]
    if ratio is not None:
        label += f", cardiothoracic ratio {ratio:.2f}"
        both = [_line(header, lines[name]) for name in _SITES if name in lines]
        numbers.append(_number(_RATIO, ratio, codes.UCUM.NoUnits, both))
    group = hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(result_uid(f"SR {site}", identity), _LENGTH_TOOL),
        finding_sites=[hd.sr.FindingSite(place)],
        algorithm_id=hd.sr.AlgorithmIdentification(algorithm.name, algorithm.version, [algorithm.description]),
        measurements=numbers,
    )
    comment = hd.sr.TextContentItem(codes.DCM.Comment, f"{doubt}{label}", hd.sr.RelationshipTypeValues.CONTAINS)
    group[0].ContentSequence.append(comment)
    return group


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
