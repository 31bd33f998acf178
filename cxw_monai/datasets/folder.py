"""Any folder of radiographs, with or without a CSV.

Without a CSV, every image below the folder is taken. With one, the images that it lists: its columns of the manifest's
names (:mod:`cxw_monai.data.schema`) are taken as they are; ``labels`` names other columns that hold labels. Records
that have no split yet get one made here, by patient.
"""

from __future__ import annotations

from pathlib import Path

from cxw_monai.data.manifest import find_images
from cxw_monai.data.schema import Record

from .common import Job, listed_records
from .registry import Option, PublicDataset

__all__ = ["DATASET"]


def prepare(job: Job, *, table: str = "", labels: str = "") -> list[Record]:
    """The records of the folder; see the module."""
    if table:
        path = Path(table) if Path(table).is_absolute() else job.find(table)
        records = list(listed_records(path))
        for record in records:
            _adopt(record, [name for name in labels.split(",") if name], path)
    elif labels:
        raise ValueError(f"labels {labels} without a table; name the CSV that has these columns")
    else:
        records = [Record(image=item["image"]) for item in find_images(job.root)]
    job.about["split"] = f"the column split of {table}" if table else "made here"
    if not any(record.split for record in records):
        job.about["split"] = "made here, by patient_id where a film has one, else by film"
        if not all(record.patient_id for record in records):
            job.note("images without a patient_id are held out singly")
        job.split(records)
    return records


def _adopt(record: Record, labels: list[str], path: Path) -> None:
    """Makes labels of other columns."""
    for name in labels:
        cell = record.extra.pop(name, "")
        if not cell:
            continue
        try:
            record.labels[name] = float(cell)
        except ValueError as error:
            raise ValueError(f"{path}, {record.image}: {name} is {cell!r}; a label is a number") from error


DATASET = PublicDataset(
    name="folder",
    title="a folder of radiographs",
    url="your own files",
    terms="yours",
    split="the table's, else made here by patient",
    makes="what the table has",
    prepare=prepare,
    options=(
        Option("table", "", "CSV with a column image (paths from its own folder), in the folder or absolute"),
        Option("labels", "", "further columns of the table that hold labels, with commas between"),
    ),
)
