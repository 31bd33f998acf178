"""The landmarks of a DICOM film as a DICOM structured report (:mod:`~.sr_report`).

A measurement group (TID 1501) a landmark: its name as a private code, the algorithm, and its confidence as certainty of
the finding (111012, DCM) in percent, inferred from a POINT on the film.

Sources: DICOM PS3.16 TID 1501 and 300, https://dicom.nema.org/medical/dicom/current/output/chtml/part16/chapter_A.html
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from os import PathLike
from typing import Any

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from cxw_monai.io.dicom.file import quiet_pydicom
from cxw_monai.io.structures import PRIVATE_SCHEME

from .dicom_shared import DOUBT, SegAlgorithm, of_known_class, read_header, result_uid
from .sr_report import comment_on, save_report

__all__ = ["write_landmark_sr"]

_SERIES_OFFSET = 4000  # its series number is its film's plus this

Point = tuple[float, float, float]
"""Column and row in px of the stored film (the first pixel's centre is 0, 0), and the confidence in [0, 1]."""


def write_landmark_sr(
    path: str | PathLike[str],
    source: str | PathLike[str],
    landmarks: Mapping[str, Point],
    *,
    created: datetime,
    algorithm: SegAlgorithm,
    doubtful: bool = False,
) -> None:
    """Write a DICOM SR of a film.

    Args:
        path: the SR.
        source: the film's own DICOM file, of any transfer syntax, with or without preamble.
        landmarks: by name; those that are on the film, at least one.
        created: time of creation, in the clinic's own time.
        algorithm: what located them.
        doubtful: the film is implausible, which labels and description say first.

    Raises:
        RadiographError: the source is no DICOM image, has several frames, lacks a UID that a reference needs, or is of
            a class that highdicom doesn't know.
        ValueError: no landmark.
    """
    if not landmarks:
        raise ValueError("a report of landmarks needs at least one")
    doubt = DOUBT if doubtful else ""
    with quiet_pydicom():
        header = read_header(source, "SR")
        identity = [str(header.SOPInstanceUID), *vars(algorithm).values(), repr(dict(landmarks)), doubt]
        groups = [_group(header, name, point, algorithm, identity, doubt) for name, point in landmarks.items()]
        how: dict[str, Any] = {"created": created, "algorithm": algorithm, "doubtful": doubtful}
        with of_known_class(source, header, "SR"):
            save_report(path, header, groups, identity, title="Landmarks", number=_SERIES_OFFSET, **how)


def _group(
    header: Dataset, name: str, point: Point, algorithm: SegAlgorithm, identity: list[str], doubt: str
) -> hd.sr.MeasurementsAndQualitativeEvaluations:
    """A landmark's measurement group."""
    x, y, confidence = point
    where = hd.sr.CoordinatesForMeasurement(
        graphic_type=hd.sr.GraphicTypeValues.POINT,
        graphic_data=np.array([[x + 0.5, y + 0.5]]),  # the corner of the first pixel is 0, 0 there
        source_image=hd.sr.SourceImageForRegion(header.SOPClassUID, header.SOPInstanceUID),
    )
    certainty = hd.sr.Measurement(
        codes.DCM.CertaintyOfFinding, 100 * confidence, codes.UCUM.Percent, referenced_coordinates=[where]
    )
    label = name.replace("_", " ")
    group = hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(result_uid(f"SR landmark {name}", identity), name),
        finding_type=Code(name, PRIVATE_SCHEME, label[:64]),
        algorithm_id=hd.sr.AlgorithmIdentification(algorithm.name, algorithm.version),
        source_images=[hd.sr.SourceImageForMeasurementGroup(header.SOPClassUID, header.SOPInstanceUID)],
        measurements=[certainty],
    )
    comment_on(group, f"{doubt}{label}: confidence {confidence:.2f}")
    return group
