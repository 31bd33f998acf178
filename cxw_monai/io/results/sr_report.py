"""A DICOM structured report (SR) of a film through highdicom: what all of ours have in common.

One Comprehensive SR by template TID 1500 in a series of its own, in the film's study. It is complete, preliminary and
unverified: nobody has looked at it. What it takes of the film's header, and its UIDs, are described in
:mod:`~.dicom_shared`.

Source: DICOM PS3.16 TID 1500, https://dicom.nema.org/medical/dicom/current/output/chtml/part16/chapter_A.html
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from os import PathLike

import highdicom as hd
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.structures import PRIVATE_SCHEME

from .dicom_shared import (
    DOUBT,
    SegAlgorithm,
    copy_patient_and_study,
    reference_to,
    result_uid,
    save_result,
    series_number,
    set_dates,
)

__all__ = ["comment_on", "save_report"]


def save_report(
    path: str | PathLike[str],
    header: Dataset,
    groups: Sequence[hd.sr.MeasurementsAndQualitativeEvaluations],
    identity: Sequence[str],
    *,
    created: datetime,
    algorithm: SegAlgorithm,
    title: str,
    number: int,
    doubtful: bool,
) -> None:
    """Write a report of measurement groups.

    Args:
        path: the SR.
        header: of the film (`read_header`).
        groups: the measurement groups.
        identity: what the report's UIDs follow from.
        created: time of creation, in the clinic's own time.
        algorithm: what made the numbers.
        title: description of the series, at most 38 characters.
        number: what the series number has more than the film's.
        doubtful: the description says first that the results are implausible.
    """
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=result_uid("device", [algorithm.name, algorithm.version, algorithm.manufacturer]),
        name=algorithm.name,
        manufacturer_name=algorithm.manufacturer,
        model_name=algorithm.name,
        serial_number=algorithm.version,
    )
    observer = hd.sr.ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=observer),
        procedure_reported=codes.SCT.ImagingProcedure,
        imaging_measurements=groups,
    )
    report = hd.sr.ComprehensiveSR(
        evidence=[reference_to(header)],
        content=content,
        series_instance_uid=result_uid("SR series", identity),
        series_number=series_number(header, number),
        sop_instance_uid=result_uid("SR instance", identity),
        instance_number=1,
        manufacturer=algorithm.manufacturer,
        manufacturer_model_name=algorithm.name,
        software_versions=algorithm.version,
        device_serial_number=algorithm.version,
        series_description=f"{DOUBT if doubtful else ''}{title}",
        is_complete=True,
    )
    if any(element.value == PRIVATE_SCHEME for element in report.iterall() if element.tag == 0x00080102):
        report.CodingSchemeIdentificationSequence = [CodingSchemeIdentificationItem(PRIVATE_SCHEME, name="cxw_monai")]
    copy_patient_and_study(header, report)
    set_dates(report, created)
    with atomic_file(path) as stream:
        save_result(report, stream)


def comment_on(group: hd.sr.MeasurementsAndQualitativeEvaluations, text: str) -> None:
    """Add a comment (121106, DCM), which viewers show as the group's label."""
    comment = hd.sr.TextContentItem(codes.DCM.Comment, text, hd.sr.RelationshipTypeValues.CONTAINS)
    group[0].ContentSequence.append(comment)
