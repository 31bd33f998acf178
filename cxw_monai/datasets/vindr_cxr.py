"""VinDr-CXR: 18,000 PA films, 22 local and 6 global labels by radiologists, with boxes.

Layout (https://physionet.org/content/vindr-cxr/)::

    train/<image_id>.dicom, test/<image_id>.dicom
    annotations/image_labels_{train,test}.csv       0/1 a label; in train a row a reader (three of a film)
    annotations/annotations_{train,test}.csv        image_id[, rad_id], class_name, x_min, y_min, x_max, y_max

or, with ``layout="kaggle"``, that of VinBigData's competition
(https://www.kaggle.com/competitions/vinbigdata-chest-xray-abnormalities-detection)::

    train/<image_id>.dicom
    train.csv                                       image_id, class_name, class_id, rad_id, x_min, y_min, x_max, y_max
    test/<image_id>.dicom                           without labels: left out

There the labels are 14 local ones and ``No finding``: 1 where most of the film's readers (by ``rad_id``) drew a box of
it, or said that there is none. What else the readers said isn't published, so these labels aren't known. All three
splits are made of the training films.

A training label is 1 where most of the film's readers say so; a test label is the published consensus. Boxes of all
readers are kept, whether or not the label won; who drew each is in the column ``box_readers``, in their order.

The set names no patients: splits that are made here are made by film. The films were published as PA; a header that
says otherwise is believed.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

from cxw_monai.data.schema import Box, Record
from cxw_monai.io.files.printable import shown

from .common import Job
from .headers import fill_from_headers
from .registry import Option, PublicDataset

__all__ = ["BENCHMARK_LABELS", "DATASET", "GLOBAL_LABELS", "KAGGLE_LABELS", "LOCAL_LABELS"]

LOCAL_LABELS = (
    *("Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle fracture", "Consolidation"),
    *("Edema", "Emphysema", "Enlarged PA", "ILD", "Infiltration", "Lung Opacity", "Lung cavity", "Lung cyst"),
    *("Mediastinal shift", "Nodule/Mass", "Pleural effusion", "Pleural thickening", "Pneumothorax"),
    *("Pulmonary fibrosis", "Rib fracture", "Other lesion"),
)
"""Findings that come with boxes."""

GLOBAL_LABELS = ("COPD", "Lung tumor", "Pneumonia", "Tuberculosis", "Other diseases", "No finding")
"""Diagnoses of the whole film, as published."""

BENCHMARK_LABELS = ("Pleural effusion", "Lung tumor", "Pneumonia", "Tuberculosis", "Other diseases", "No finding")
"""The six columns that the published benchmarks of pretrained models compare: not the six global ones."""

_NONE = "No finding"
KAGGLE_LABELS = (
    *("Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Consolidation", "ILD", "Infiltration"),
    *("Lung Opacity", "Nodule/Mass", "Other lesion", "Pleural effusion", "Pleural thickening", "Pneumothorax"),
    *("Pulmonary fibrosis", _NONE),
)
"""Classes 0 to 14 of the competition."""

_KAGGLE_URL = "https://www.kaggle.com/competitions/vinbigdata-chest-xray-abnormalities-detection"
_CORNERS = ("x_min", "y_min", "x_max", "y_max")
_ALIASES = {"Other diseases": "Other disease"}  # the test file's own word


def prepare(job: Job, layout: str = "physionet") -> list[Record]:
    """The records of all labelled films; see the module."""
    records = _kaggle(job) if layout == "kaggle" else _physionet(job)
    if layout == "kaggle":
        job.note("the set names no patients: all splits are made by film")
        job.split(records)
    else:
        job.note("the set names no patients: validation is held out by film")
        job.hold_out(records)
    records = fill_from_headers(job, job.present(records))
    for record in records:
        record.view = record.view or "PA"
    return records


def _physionet(job: Job) -> list[Record]:
    records = []
    for part, split in (("train", "training"), ("test", "test")):
        labels = _labels(job, job.find(f"annotations/image_labels_{part}.csv"))
        boxes, readers = _boxes(job, job.find(f"annotations/annotations_{part}.csv"))
        for image, values in labels.items():
            path = job.root / part / f"{image}.dicom"
            records.append(_record(path, split, values, boxes[image], readers[image]))
    return records


def _kaggle(job: Job) -> list[Record]:
    """Films of ``train.csv``, without a split."""
    job.url = _KAGGLE_URL
    job.about |= {
        "url": _KAGGLE_URL,
        "terms": "rules of the VinBigData competition: non-commercial research, no redistribution",
        "split": "made here of the official training films, by film (the official test films have no labels)",
    }
    table = job.find("train.csv")
    readers: dict[str, set[str]] = defaultdict(set)
    votes: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for row in job.rows(table, ("image_id", "class_name", "rad_id", *_CORNERS)):
        image, name, reader = row["image_id"], row["class_name"], row["rad_id"]
        if name not in KAGGLE_LABELS or not reader:
            got = f"class_name {shown(name)}, rad_id {shown(reader)}"
            raise ValueError(f"{table}, {shown(image)}: {got}; expected a reader and one of {', '.join(KAGGLE_LABELS)}")
        readers[image].add(reader)
        votes[image][name].add(reader)
    boxes, drawn_by = _boxes(job, table)
    records = []
    for image, who in readers.items():
        labels: dict[str, float] = {name: int(2 * len(votes[image][name]) > len(who)) for name in KAGGLE_LABELS}
        path = job.root / "train" / f"{image}.dicom"
        records.append(_record(path, None, labels, boxes[image], drawn_by[image]))
    unlabelled = sum(1 for _ in (job.root / "test").glob("*.dicom"))
    if unlabelled:
        job.note(f"{unlabelled} films in test/ have no published labels: left out")
    return records


def _record(path: Path, split: str | None, labels: dict[str, float], boxes: list[Box], readers: list[str]) -> Record:
    record = Record(str(path), study=path.stem, split=split, labels=labels, boxes=boxes)
    if any(readers):
        record.extra["box_readers"] = json.dumps(readers)
    return record


def _labels(job: Job, path: Path) -> dict[str, dict[str, float]]:
    """0/1 of each label by film: what most of its rows say."""
    votes: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in job.rows(path, ("image_id", *LOCAL_LABELS, *(name for name in GLOBAL_LABELS if name not in _ALIASES))):
        votes[row["image_id"]].append(row)
    labels: dict[str, dict[str, float]] = {}
    for image, rows in votes.items():
        labels[image] = {}
        for name in (*LOCAL_LABELS, *GLOBAL_LABELS):
            column = name if name in rows[0] else _ALIASES[name]
            yes = sum(float(row[column]) for row in rows)
            labels[image][name] = int(2 * yes > len(rows))
    return labels


def _boxes(job: Job, path: Path) -> tuple[dict[str, list[Box]], dict[str, list[str]]]:
    """Boxes by film, and who drew them ("" where the file doesn't say)."""
    boxes: dict[str, list[Box]] = defaultdict(list)
    readers: dict[str, list[str]] = defaultdict(list)
    for row in job.rows(path, ("image_id", "class_name", *_CORNERS)):
        if not row["x_min"]:
            continue  # "No finding"
        try:
            left, top, right, bottom = (float(row[side]) for side in _CORNERS)
        except ValueError as error:
            cells = shown([row[side] for side in _CORNERS])
            raise ValueError(f"{path}, {shown(row['image_id'])}: a box must be four numbers, got {cells}") from error
        boxes[row["image_id"]].append(Box(row["class_name"], left, top, right - left, bottom - top))
        readers[row["image_id"]].append(row.get("rad_id") or "")
    return boxes, readers


DATASET = PublicDataset(
    name="vindr_cxr",
    title="VinDr-CXR",
    url="https://physionet.org/content/vindr-cxr/",
    terms="PhysioNet Credentialed Health Data License: training, credentialing, no redistribution",
    split="official train and test; validation held out of train by film (no patients are named)",
    makes="22 local and 6 global labels (0/1), boxes of the local ones, size, sex, age",
    prepare=prepare,
    options=(
        Option(
            "layout", "physionet", "as published by PhysioNet, or VinBigData's competition", ("physionet", "kaggle")
        ),
    ),
)
