"""CheXpert: 224,316 films of 65,240 patients, fourteen observations read out of reports.

Layout (https://stanfordaimi.azurewebsites.net, the full set or CheXpert-v1.0-small)::

    train.csv, valid.csv                     Path,Sex,Age,Frontal/Lateral,AP/PA and fourteen observations
    test_labels.csv                          optional: Path and observations (published later, with CheXlocalize)
    train/patient00001/study1/view1_frontal.jpg ...

``Path`` begins with a folder of its own (``CheXpert-v1.0-small/``), which is left out: ``root`` is that folder. The
batches of the full set have to be put together in one ``train/`` first.

``valid.csv`` (200 patients read by radiologists) has served as the test set of most papers, CheXWorld's among them. It
is never used for choosing a model as well: by default it is the test split, and the validation split is held out of
``train.csv`` by patient. With ``official_test``, ``test_labels.csv`` is the test split and ``valid.csv`` validation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from cxw_monai.data.schema import Record

from .common import Job, view_name
from .registry import Option, PublicDataset
from .report_labels import POLICY_OPTIONS, report_labels

__all__ = ["COMPETITION_LABELS", "DATASET"]

COMPETITION_LABELS = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
"""The five observations that are usually compared."""

_PATIENT = re.compile(r"patient\d+")
_SEXES = {"Male": "M", "Female": "F"}


def prepare(
    job: Job, *, uncertain: str, unmentioned: str, frontal_only: bool = False, official_test: bool = False
) -> list[Record]:
    """The records of all listed films; see the module."""
    files = {"training": job.find("train.csv")}
    if official_test:
        files |= {"validation": job.find("valid.csv"), "test": job.find("test_labels.csv", "test.csv")}
        job.about["split"] = f"official: test on {files['test'].name}, validation on valid.csv, training on train.csv"
    else:
        files |= {"test": job.find("valid.csv")}
    records: list[Record] = []
    for split, path in files.items():
        records += _records(job, path, split, uncertain, unmentioned)
    if frontal_only:
        laterals = sum(record.view == "LAT" for record in records)
        records = [record for record in records if record.view != "LAT"]
        job.note(f"{laterals} lateral films left out (frontal_only)")
    if not official_test:
        job.hold_out(records)
    return records


def _records(job: Job, path: Path, split: str, uncertain: str, unmentioned: str) -> Iterator[Record]:
    for row in job.rows(path, ("Path", *COMPETITION_LABELS)):
        below = row["Path"].split("/", 1)[1] if row["Path"].startswith("CheXpert") else row["Path"]
        patient = _PATIENT.search(below)
        if patient is None:
            raise ValueError(f"{path}: no patient in the path {row['Path']!r}; expected .../patient00001/study1/...")
        lateral = row.get("Frontal/Lateral", "Lateral" if "lateral" in below else "") == "Lateral"
        yield Record(
            image=str(job.root / below),
            patient_id=patient.group(),
            study=f"{patient.group()}/{Path(below).parts[-2]}",
            view="LAT" if lateral else view_name(row.get("AP/PA")),
            sex=_SEXES.get(row.get("Sex", "")),
            age=float(row["Age"]) if row.get("Age") else None,
            split=split,
            labels=report_labels(row, f"{path}, {below}", uncertain, unmentioned),
        )


DATASET = PublicDataset(
    name="chexpert",
    title="CheXpert",
    url="https://stanfordaimi.azurewebsites.net/datasets/8cbd9ed4-2eb9-4565-affc-111cf4f7ebe2",
    terms="Stanford University Dataset Research Use Agreement: registration, research only, no redistribution",
    split="official valid.csv is the test split; validation held out of train.csv by patient",
    makes="14 observations (0/1, a policy for uncertain ones), view, sex, age",
    prepare=prepare,
    options=(
        *POLICY_OPTIONS,
        Option("frontal_only", False, "leave out lateral films"),
        Option("official_test", False, "test on test_labels.csv, validate on valid.csv, train on all of train.csv"),
    ),
)
