"""RSNA Pneumonia Detection Challenge: 26,684 NIH films in three classes, with boxes around opacities.

Layout (https://www.kaggle.com/c/rsna-pneumonia-detection-challenge)::

    stage_2_train_labels.csv            patientId, x, y, width, height, Target: a row a box
    stage_2_detailed_class_info.csv     patientId, class: as many rows
    stage_2_train_images/<patientId>.dcm
    pneumonia-challenge-dataset-mappings_2018.json     optional, from RSNA: which NIH film each is

One record a film, though the tables repeat it. The test films of the challenge have no labels, so all three splits are
made here. The challenge's ``patientId`` is of the film: with the mapping, patients are NIH's, and no patient is on two
sides; without it only films are kept apart, and the summary says so. All films are of ChestX-ray14: an encoder that was
pretrained on it has seen them (column ``nih_image``).
"""

from __future__ import annotations

import json
from collections import defaultdict
from functools import partial
from pathlib import Path

from cxw_monai.data.schema import Box, Record
from cxw_monai.io.files.json_files import read_json

from .common import Job
from .headers import fill_from_headers
from .made_files import MaskFile, mask_of, write_masks
from .masks import fill_boxes
from .registry import Option, PublicDataset

__all__ = ["CLASSES", "DATASET"]

CLASSES = ("Normal", "No Lung Opacity / Not Normal", "Lung Opacity")
"""The three classes, in the order of the benchmark's class ids."""

_MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"


def prepare(job: Job, *, masks: bool = False) -> list[Record]:
    """The records of all labelled films; see the module."""
    labels = job.find("stage_2_train_labels.csv")
    classes = _classes(job, job.find("stage_2_detailed_class_info.csv"))
    boxes: dict[str, list[Box]] = defaultdict(list)
    for row in job.rows(labels, ("patientId", "x", "y", "width", "height", "Target")):
        found = boxes[row["patientId"]]
        if row["Target"] == "1":
            found.append(Box("Lung Opacity", *(float(row[side]) for side in ("x", "y", "width", "height"))))
    nih = _nih_images(job)
    records = []
    for film, found in boxes.items():
        if film not in classes or bool(found) != (classes[film] == CLASSES[2]):
            raise ValueError(f"{labels}: {film} has {len(found)} boxes, and its class is {classes.get(film)!r}")
        record = Record(
            image=str(job.root / "stage_2_train_images" / f"{film}.dcm"),
            patient_id=nih[film].split("_")[0] if film in nih else film,
            study=film,
            labels={name: int(classes[film] == name) for name in CLASSES},
            boxes=found,
        )
        if film in nih:
            record.extra["nih_image"] = nih[film]
        records.append(record)
    job.split(records)
    records = fill_from_headers(job, job.present(records))
    if masks:
        write_masks(job, [_mask(record) for record in records])
    return records


def _classes(job: Job, path: Path) -> dict[str, str]:
    """The class of each film; every row of a film must say the same."""
    classes: dict[str, str] = {}
    for row in job.rows(path, ("patientId", "class")):
        name = classes.setdefault(row["patientId"], row["class"])
        if name not in CLASSES or name != row["class"]:
            raise ValueError(f"{path}, {row['patientId']}: class {row['class']!r}; expected one of {CLASSES} a film")
    return classes


def _nih_images(job: Job) -> dict[str, str]:
    """The NIH film of each film, ``00000013_005.png``; empty without RSNA's mapping."""
    path = job.root / _MAPPING
    if not path.is_file():
        job.note(f"no {_MAPPING}: patients are unknown, films are held out singly")
        job.about["split"] = f"made here by film (the official test has no labels; no {_MAPPING})"
        return {}
    job.about["split"] = "made here by NIH patient (the official test has no labels)"
    try:
        return {entry["subset_img_id"]: entry["img_id"] for entry in read_json(path)}
    except (TypeError, KeyError) as error:
        raise ValueError(f"{path}: expected a list of objects with subset_img_id and img_id; see {job.url}") from error


def _mask(record: Record) -> MaskFile:
    """``masks/lung_opacity``: the boxes, filled."""
    width, height = record.size
    make = partial(fill_boxes, record.boxes or [], height, width)
    return mask_of(record, "lung_opacity", str(record.study), make, json.dumps([record.boxes, height, width]))


DATASET = PublicDataset(
    name="rsna_pneumonia",
    title="RSNA Pneumonia Detection Challenge",
    url="https://www.kaggle.com/c/rsna-pneumonia-detection-challenge",
    terms="competition rules: non-commercial and research use, attribution to RSNA and NIH",
    split="made here (the official test has no labels), by NIH patient where RSNA's mapping is in the folder",
    makes="3 classes (one 0/1 label each), boxes, with --masks the boxes filled; view, sex, age",
    prepare=prepare,
    options=(Option("masks", False, "write the boxes as masks, structure lung_opacity"),),
)
