"""NIH ChestX-ray14: 112,120 frontal films, fourteen findings mined from reports, some boxes.

Layout (https://nihcc.app.box.com/v/ChestXray-NIHCC)::

    Data_Entry_2017_v2020.csv   or Data_Entry_2017.csv
    train_val_list.txt          official split; the validation part is held out of it here, by patient
    test_list.txt
    BBox_List_2017.csv          optional
    images_001 ... images_012/images/*.png      or images/*.png

Boxes are published for films of 1024 x 1024 pixels; they are scaled where the films were stored at another size.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

from cxw_monai.data.schema import Box, Record

from .common import Job, index_images, sex_letter, view_name, years
from .registry import PublicDataset

__all__ = ["DATASET", "FINDINGS"]

FINDINGS = (
    *("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema", "Fibrosis", "Hernia"),
    *("Infiltration", "Mass", "Nodule", "Pleural_Thickening", "Pneumonia", "Pneumothorax"),
)
_NO_FINDING = "No Finding"
_BOX_NAMES = {"Infiltrate": "Infiltration"}  # the box list's own word
_BOX_PIXELS = 1024


def prepare(job: Job) -> list[Record]:
    """The records of all listed films; see the module."""
    table = job.find("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
    splits = {"training": _listed(job.find("train_val_list.txt")), "test": _listed(job.find("test_list.txt"))}
    folders = [folder for pattern in ("images_*/images", "images") for folder in sorted(job.root.glob(pattern))]
    if not folders:
        job.find("images_001/images", "images")
    images = index_images(folders)
    boxes = _boxes(job)
    records, unlisted, ageless = [], 0, 0
    for row in job.rows(table, ("Image Index", "Finding Labels", "Patient ID", "Patient Age", "View Position")):
        name = row["Image Index"]
        split = next((split for split, names in splits.items() if name in names), None)
        if split is None:
            unlisted += 1
            continue
        age = years(row["Patient Age"])
        ageless += age is None
        records.append(
            Record(
                image=str(images.get(name) or folders[0] / name),
                patient_id=row["Patient ID"],
                view=view_name(row["View Position"]),
                sex=sex_letter(row.get("Patient Gender") or row.get("Patient Sex")),
                age=age,
                split=split,
                labels=_labels(row["Finding Labels"], f"{table}, {name}"),
                boxes=boxes.get(name),
            )
        )
    if unlisted:
        job.note(f"{unlisted} films of {table.name} are in neither train_val_list.txt nor test_list.txt: left out")
    if ageless:
        job.note(f"{ageless} ages that can't be true (the first release has some of 414 years): taken as unknown")
    job.hold_out(records)
    records = job.sized(job.present(records), lambda record: record.boxes)
    for record in records:
        if record.boxes:
            _scale_boxes(record)
    return records


def _listed(path: Path) -> set[str]:
    return set(path.read_text(encoding="utf-8").split())


def _labels(text: str, where: str) -> dict[str, float]:
    """0/1 of each finding from ``Edema|Mass``."""
    named = set(text.split("|")) - {_NO_FINDING}
    unknown = named - set(FINDINGS)
    if unknown:
        raise ValueError(f"{where}: unknown finding {sorted(unknown)[0]!r}; expected {', '.join(FINDINGS)}")
    return {_NO_FINDING: int(not named), **{finding: int(finding in named) for finding in FINDINGS}}


def _boxes(job: Job) -> dict[str, list[Box]]:
    """Boxes by film, in pixels of 1024 x 1024."""
    path = job.root / "BBox_List_2017.csv"
    boxes: dict[str, list[Box]] = defaultdict(list)
    if not path.is_file():
        job.note("no BBox_List_2017.csv: no boxes")
        return boxes
    with path.open(newline="", encoding="utf-8-sig") as stream:
        for number, row in enumerate(list(csv.reader(stream))[1:], start=2):  # the header names some columns only
            try:
                name, finding, *sides = row
                boxes[name].append(Box(_BOX_NAMES.get(finding, finding), *(float(side) for side in sides[:4])))
            except (ValueError, TypeError) as error:
                raise ValueError(f"{path}, line {number}: expected a film, a finding and four numbers") from error
    return boxes


def _scale_boxes(record: Record) -> None:
    """Puts the boxes on the stored film."""
    x, y = (side / _BOX_PIXELS for side in record.size)
    record.boxes = [Box(b.label, b.x * x, b.y * y, b.width * x, b.height * y) for b in record.boxes or []]


DATASET = PublicDataset(
    name="nih",
    title="NIH ChestX-ray14",
    url="https://nihcc.app.box.com/v/ChestXray-NIHCC",
    terms="free use with acknowledgement of the NIH Clinical Center and citation of Wang et al. 2017",
    split="official test list; validation held out of the official train_val list by patient",
    makes="No Finding and 14 findings (0/1), boxes of 8 findings, view, sex, age",
    prepare=prepare,
)
