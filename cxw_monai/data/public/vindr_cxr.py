"""VinDr-CXR: 18,000 PA films, 22 local and 6 global labels by radiologists, with boxes.

Layout (https://physionet.org/content/vindr-cxr/)::

    train/<image_id>.dicom, test/<image_id>.dicom
    annotations/image_labels_{train,test}.csv       0/1 a label; in train a row a reader (three of a film)
    annotations/annotations_{train,test}.csv        image_id[, rad_id], class_name, x_min, y_min, x_max, y_max

A training label is 1 where most of the film's readers say so; a test label is the published consensus. Boxes of all
readers are kept, whether or not the label won; who drew each is in the column ``box_readers``, in their order.

The set names no patients: the validation split is held out of the official training films by film.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

from cxw_monai.data.schema import Box, Record

from .common import Job, hold_out
from .headers import fill_from_headers
from .registry import PublicDataset

__all__ = ["BENCHMARK_LABELS", "DATASET", "GLOBAL_LABELS", "LOCAL_LABELS"]

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

_ALIASES = {"Other diseases": "Other disease"}  # the test file's own word


def prepare(job: Job) -> list[Record]:
    """The records of both parts; see the module."""
    records = []
    for part, split in (("train", "training"), ("test", "test")):
        labels = _labels(job, job.find(f"annotations/image_labels_{part}.csv"))
        boxes, readers = _boxes(job, job.find(f"annotations/annotations_{part}.csv"))
        for image, values in labels.items():
            record = Record(
                image=str(job.root / part / f"{image}.dicom"),
                study=image,
                view="PA",
                split=split,
                labels=values,
                boxes=boxes[image],
            )
            if any(readers[image]):
                record.extra["box_readers"] = json.dumps(readers[image])
            records.append(record)
    job.note("the set names no patients: validation is held out by film")
    hold_out([record for record in records if record.split == "training"], job.validation, job.seed)
    records = job.present(records)
    fill_from_headers(job, records)
    return records


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
    for row in job.rows(path, ("image_id", "class_name", "x_min", "y_min", "x_max", "y_max")):
        if not row["x_min"]:
            continue  # "No finding"
        left, top, right, bottom = (float(row[side]) for side in ("x_min", "y_min", "x_max", "y_max"))
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
)
