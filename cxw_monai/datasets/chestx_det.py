"""ChestX-Det: 3,578 frontal films of NIH ChestX-ray14 with 13 findings outlined.

Layout (https://github.com/Deepwise-AILab/ChestX-Det-Dataset)::

    ChestX_Det_train.json, ChestX_Det_test.json
    train/*.png, test/*.png                          also below train_data/ and test_data/

A JSON is a list of ``{"file_name", "syms", "boxes", "polygons"}``, box ``x1, y1, x2, y2`` and polygon belonging to the
finding at the same place. A mask is the union of a finding's polygons; a film without the finding has no mask of it,
and its label is 0.

The films were renamed, so which patients and which films of NIH ChestX-ray14 they are isn't known: don't test one set
with a model that was trained on the other.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from cxw_monai.data.schema import Box, Record
from cxw_monai.io.files.json_files import read_json

from .common import Job
from .made_files import MaskFile, mask_of, write_masks
from .masks import polygon_mask
from .registry import PublicDataset

__all__ = ["DATASET", "FINDINGS"]

FINDINGS = (
    *("Atelectasis", "Calcification", "Cardiomegaly", "Consolidation", "Diffuse_Nodule", "Effusion", "Emphysema"),
    *("Fibrosis", "Fracture", "Mass", "Nodule", "Pleural_Thickening", "Pneumothorax"),
)


def prepare(job: Job) -> list[Record]:
    """The records of all films; see the module."""
    records, polygons = [], {}
    for part, split in (("train", "training"), ("test", "test")):
        table = job.find(f"ChestX_Det_{part}.json")
        images = job.find(f"{part}_data/{part}", part, f"{part}_data")
        for entry in read_json(table):
            path = images / entry["file_name"]
            names = _findings(entry, table)
            labels: dict[str, float] = {finding: int(finding in names) for finding in FINDINGS}
            boxes = [_box(name, corners) for name, corners in zip(names, entry["boxes"], strict=True)]
            records.append(Record(str(path), split=split, labels=labels, boxes=[box for box in boxes if box]))
            polygons[str(path)] = list(zip(names, entry["polygons"], strict=True))
            if None in boxes:
                job.note(f"{part}/{path.name}: {boxes.count(None)} boxes without area left out")
    records = job.sized(job.present(records))
    write_masks(job, [mask for record in records for mask in _masks(record, polygons[record.image])])
    job.hold_out(records)
    return records


def _findings(entry: dict[str, Any], table: Path) -> list[str]:
    """The names in ``syms``, checked."""
    names = [name.strip().replace(" ", "_") for name in entry["syms"]]
    where = f"{table}, {entry['file_name']}"
    unknown = sorted(set(names) - set(FINDINGS))
    if unknown:
        raise ValueError(f"{where}: unknown finding {unknown[0]!r}; expected {', '.join(FINDINGS)}")
    if not len(names) == len(entry["boxes"]) == len(entry["polygons"]):
        raise ValueError(f"{where}: {len(names)} syms, {len(entry['boxes'])} boxes, {len(entry['polygons'])} polygons")
    return names


def _box(name: str, corners: list[float]) -> Box | None:
    left, top, right, bottom = corners
    return Box(name, left, top, right - left, bottom - top) if right > left and bottom > top else None


def _masks(record: Record, polygons: list[tuple[str, list[list[float]]]]) -> list[MaskFile]:
    masks, path = [], Path(record.image)
    for finding in dict.fromkeys(name for name, _ in polygons):
        mine = [corners for name, corners in polygons if name == finding]
        make = partial(polygon_mask, mine, *record.size)
        name = f"{path.parent.name}_{path.stem}"
        masks.append(mask_of(record, finding.lower(), name, make, f"{mine} {record.size}"))
    return masks


DATASET = PublicDataset(
    name="chestx_det",
    title="ChestX-Det",
    url="https://github.com/Deepwise-AILab/ChestX-Det-Dataset",
    terms="research; the films under the terms of NIH ChestX-ray14; cite Lian et al. 2021",
    split="official test; validation held out of the official training films (by film, patients aren't known)",
    makes="13 findings (0/1), a box of each instance, a mask of each finding",
    prepare=prepare,
)
