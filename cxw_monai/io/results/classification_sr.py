"""What a classifier says of a DICOM film, as a DICOM structured report (:mod:`~.sr_report`).

A measurement group (TID 1501) a class: the finding, the algorithm with its thresholds, the film, the probability as
certainty of the finding (111012, DCM) in percent, and per operating point a qualitative evaluation, whether the
probability reaches its threshold: "present" or "absent", which is the classifier's word at that point and no diagnosis.
A group has no place on the film, since a class is of the whole of it; viewers that need a line (OHIF 3.13) don't show
it, so that it is a report of its own.

Findings have SNOMED CT codes (DICOM's own for an opacity) where the table holds one of their name, else private ones,
as operating points have.

Sources: DICOM PS3.16 TID 1501 and 300, https://dicom.nema.org/medical/dicom/current/output/chtml/part16/chapter_A.html
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from os import PathLike
from typing import Any

import highdicom as hd
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from cxw_monai.io.dicom.file import quiet_pydicom
from cxw_monai.io.structures import PRIVATE_SCHEME

from .dicom_shared import DOUBT, SegAlgorithm, of_known_class, read_header, result_uid
from .sr_report import comment_on, save_report

__all__ = ["finding_code", "write_classification_sr"]

_FINDINGS = {
    "cardiomegaly": codes.SCT.Cardiomegaly,
    "edema": codes.SCT.PulmonaryEdema,
    "effusion": codes.SCT.PleuralEffusion,
    "fibrosis": codes.SCT.Fibrosis,
    "mass": codes.SCT.Mass,
    "nodule": codes.SCT.Nodule,
    "opacity": codes.DCM.Opacity,
    "pleural_effusion": codes.SCT.PleuralEffusion,
    "pneumothorax": codes.SCT.Pneumothorax,
    "pneumonia": Code("233604007", "SCT", "Pneumonia"),
    "tuberculosis": Code("56717001", "SCT", "Tuberculosis"),
}
_DECIDED = {True: codes.SCT.Present, False: codes.SCT.Absent}
_SERIES_OFFSET = 3000  # its series number is its film's plus this


def finding_code(name: str) -> Code:
    """Code of a class by its name; a private one where the table has none."""
    return _FINDINGS.get(name.lower()) or Code(name, PRIVATE_SCHEME, name.replace("_", " ")[:64])


def write_classification_sr(
    path: str | PathLike[str],
    source: str | PathLike[str],
    probabilities: Mapping[str, float],
    points: Mapping[str, Mapping[str, float]],
    *,
    created: datetime,
    algorithm: SegAlgorithm,
    doubtful: bool = False,
) -> None:
    """Write a DICOM SR of a film.

    Args:
        path: the SR.
        source: the film's own DICOM file, of any transfer syntax, with or without preamble.
        probabilities: by class, in [0, 1].
        points: by class, thresholds by the operating point's name.
        created: time of creation, in the clinic's own time.
        algorithm: the classifier.
        doubtful: the film is implausible, which labels and description say first.

    Raises:
        RadiographError: the source is no DICOM image, has several frames, lacks a UID that a reference needs, or is of
            a class that highdicom doesn't know.
    """
    doubt = DOUBT if doubtful else ""
    with quiet_pydicom():
        header = read_header(source, "SR")
        identity = [
            str(header.SOPInstanceUID),
            *vars(algorithm).values(),
            repr(dict(probabilities)),
            repr(points),
            doubt,
        ]
        groups = [
            _group(header, name, probability, points.get(name, {}), algorithm, identity, doubt)
            for name, probability in probabilities.items()
        ]
        how: dict[str, Any] = {"created": created, "algorithm": algorithm, "doubtful": doubtful}
        with of_known_class(source, header, "SR"):
            save_report(path, header, groups, identity, title="Classification", number=_SERIES_OFFSET, **how)


def _group(
    header: Dataset,
    name: str,
    probability: float,
    points: Mapping[str, float],
    algorithm: SegAlgorithm,
    identity: list[str],
    doubt: str,
) -> hd.sr.MeasurementsAndQualitativeEvaluations:
    """A class's measurement group."""
    decided = {point: _DECIDED[probability >= threshold] for point, threshold in points.items()}
    thresholds = [f"threshold at {point}: {float(threshold)!r}" for point, threshold in points.items()]
    source = hd.sr.SourceImageForMeasurement(header.SOPClassUID, header.SOPInstanceUID)
    certainty = hd.sr.Measurement(
        codes.DCM.CertaintyOfFinding, 100 * probability, codes.UCUM.Percent, referenced_images=[source]
    )
    group = hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(result_uid(f"SR class {name}", identity), name),
        finding_type=finding_code(name),
        algorithm_id=hd.sr.AlgorithmIdentification(algorithm.name, algorithm.version, thresholds or None),
        source_images=[hd.sr.SourceImageForMeasurementGroup(header.SOPClassUID, header.SOPInstanceUID)],
        measurements=[certainty],
        qualitative_evaluations=[
            hd.sr.QualitativeEvaluation(_point_code(point), value) for point, value in decided.items()
        ],
    )
    comment_on(group, f"{doubt}{name.replace('_', ' ')}: probability {probability:.3f}")
    return group


def _point_code(point: str) -> Code:
    return Code(point, PRIVATE_SCHEME, f"At the operating point {point}"[:64])
