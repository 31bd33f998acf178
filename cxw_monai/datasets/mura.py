"""MURA v1.1: 40,561 films of seven bones and joints of the arm, normal or abnormal by study.

Layout (https://stanfordmlgroup.github.io/competitions/mura)::

    MURA-v1.1/train_image_paths.csv, train_labeled_studies.csv, valid_image_paths.csv, valid_labeled_studies.csv
    MURA-v1.1/train/XR_SHOULDER/patient00001/study1_positive/image1.png ...

The lists have no header; their paths begin with ``MURA-v1.1/``. A label belongs to a study, and all its films get it.
The published ``valid`` is the public test here (the challenge's own was never released); validation is held out of
``train`` by patient. A patient can have studies of several joints.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from cxw_monai.data.schema import Record

from .common import Job
from .registry import PublicDataset

__all__ = ["DATASET"]


def prepare(job: Job) -> list[Record]:
    """The records of all listed films; see the module."""
    records: list[Record] = []
    for part, split in (("train", "training"), ("valid", "test")):
        paths, studies = (
            job.find(f"MURA-v1.1/{part}_{name}.csv", f"{part}_{name}.csv")
            for name in ("image_paths", "labeled_studies")
        )
        labels = {folder.strip("/"): _label(label, studies) for folder, label in _rows(studies, 2)}
        for (path,) in _rows(paths, 1):
            folder = path.rpartition("/")[0]
            if folder not in labels:
                raise ValueError(f"{paths}: {folder} isn't in {studies.name}; both must be of one release")
            if path.rpartition("/")[2].startswith("._"):  # written by macOS, no image
                continue
            records.append(_record(path, paths.parent, labels[folder], split, paths))
    records = job.present(records)
    job.hold_out(records)
    return records


def _rows(path: Path, fields: int) -> Iterator[list[str]]:
    with path.open(newline="", encoding="utf-8-sig") as stream:
        for number, row in enumerate(csv.reader(stream), start=1):
            if len(row) != fields:
                raise ValueError(f"{path}, line {number}: expected {fields} fields, got {len(row)}; see {DATASET.url}")
            yield row


def _label(text: str, path: Path) -> int:
    if text not in ("0", "1"):
        raise ValueError(f"{path}: a study's label must be 0 or 1, got {text!r}")
    return int(text)


def _record(path: str, base: Path, label: int, split: str, table: Path) -> Record:
    """From ``MURA-v1.1/train/XR_SHOULDER/patient00001/study1_positive/image1.png``."""
    parts = path.split("/")
    if len(parts) != 6 or not parts[2].startswith("XR_") or not parts[3].startswith("patient"):
        raise ValueError(f"{table}: not a path of this data set: {path!r}; see {DATASET.url}")
    anatomy = parts[2].removeprefix("XR_").lower()
    study = f"{parts[3]}_{anatomy}_{parts[4].split('_')[0]}"
    extra = {"anatomy": anatomy}
    return Record(str(base.joinpath(*parts[1:])), parts[3], study, split=split, labels={"abnormal": label}, extra=extra)


DATASET = PublicDataset(
    name="mura",
    title="MURA v1.1",
    url="https://stanfordmlgroup.github.io/competitions/mura",
    terms="Stanford's research use agreement: non-commercial, no redistribution; cite Rajpurkar et al. 2018",
    split="the official validation studies are the test; validation held out of training by patient",
    makes="abnormal (0/1, of the study), anatomy",
    prepare=prepare,
)
