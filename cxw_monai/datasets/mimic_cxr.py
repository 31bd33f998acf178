"""MIMIC-CXR-JPG: 377,110 films of 227,827 studies, fourteen observations read out of reports.

Layout (https://physionet.org/content/mimic-cxr-jpg/)::

    mimic-cxr-2.0.0-{metadata,split,chexpert,negbio}.csv.gz        or unzipped; one of the label files is enough
    files/p10/p10000032/s50414267/<dicom_id>.jpg

The official split is by patient; all three parts of it are kept. Labels are of the study, so its films share them; a
study that the labeller has no row of has unknown labels. Sex and age are in MIMIC-IV, not here.
"""

from __future__ import annotations

from cxw_monai.data.schema import Record

from .common import Job, view_name
from .registry import Option, PublicDataset
from .report_labels import POLICY_OPTIONS, report_labels

__all__ = ["DATASET"]

_SPLITS = {"train": "training", "validate": "validation", "test": "test"}
_FRONTAL = ("PA", "AP")


def prepare(
    job: Job, *, uncertain: str, unmentioned: str, labeler: str = "chexpert", frontal_only: bool = False
) -> list[Record]:
    """The records of all listed films; see the module."""
    metadata, split_file, label_file = (
        job.find(f"mimic-cxr-2.0.0-{part}.csv.gz", f"mimic-cxr-2.0.0-{part}.csv")
        for part in ("metadata", "split", labeler)
    )
    splits = {row["dicom_id"]: row["split"] for row in job.rows(split_file, ("dicom_id", "split"))}
    unknown = set(splits.values()) - set(_SPLITS)
    if unknown:
        raise ValueError(f"{split_file}: unknown split {sorted(unknown)[0]!r}; expected {', '.join(_SPLITS)}")
    labels = {
        row["study_id"]: report_labels(row, f"{label_file}, study {row['study_id']}", uncertain, unmentioned)
        for row in job.rows(label_file, ("subject_id", "study_id"))
    }
    records, unlisted, other_views = [], 0, 0
    for row in job.rows(metadata, ("dicom_id", "subject_id", "study_id", "ViewPosition", "Rows", "Columns")):
        dicom, subject, study = row["dicom_id"], row["subject_id"], row["study_id"]
        view = view_name(row["ViewPosition"])
        if dicom not in splits:
            unlisted += 1
            continue
        if frontal_only and view not in _FRONTAL:
            other_views += 1
            continue
        records.append(
            Record(
                image=str(job.root / "files" / f"p{subject[:2]}" / f"p{subject}" / f"s{study}" / f"{dicom}.jpg"),
                patient_id=subject,
                study=study,
                view=view,
                split=_SPLITS[splits[dicom]],
                width=int(row["Columns"]),
                height=int(row["Rows"]),
                labels=dict(labels.get(study, {})),
            )
        )
    if unlisted:
        job.note(f"{unlisted} films of {metadata.name} aren't in {split_file.name}: left out")
    if other_views:
        job.note(f"{other_views} films that aren't declared PA or AP left out (frontal_only)")
    unlabelled = sum(record.study not in labels for record in records)
    if unlabelled:
        job.note(f"{unlabelled} films of studies without a row in {label_file.name}: labels unknown")
    return records


DATASET = PublicDataset(
    name="mimic_cxr",
    title="MIMIC-CXR-JPG",
    url="https://physionet.org/content/mimic-cxr-jpg/",
    terms="PhysioNet Credentialed Health Data License: training, credentialing, no redistribution",
    split="official train, validate, test",
    makes="14 observations (0/1, a policy for uncertain ones), view, study",
    prepare=prepare,
    options=(
        *POLICY_OPTIONS,
        Option("labeler", "chexpert", "whose labels", ("chexpert", "negbio")),
        Option("frontal_only", False, "keep only films declared PA or AP"),
    ),
)
