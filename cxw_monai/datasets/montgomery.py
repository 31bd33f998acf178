"""Montgomery County tuberculosis set: 138 frontal films, 58 of them with tuberculosis, with both lungs outlined.

The outlines are of the visible lung fields, which end at the edge of heart and mediastinum (``mask_lung_field_left``,
``mask_lung_field_right``).

Layout (https://data.lhncbc.nlm.nih.gov/public/Tuberculosis-Chest-X-ray-Datasets/Montgomery-County-CXR-Set)::

    MontgomerySet/CXR_png/MCUCXR_0001_0.png            ..._1.png with tuberculosis
    MontgomerySet/ClinicalReadings/MCUCXR_0001_0.txt   sex, age, then the reading, which isn't copied
    MontgomerySet/ManualMask/leftMask/MCUCXR_0001_0.png
    MontgomerySet/ManualMask/rightMask/MCUCXR_0001_0.png

Whether ``leftMask`` means the patient's or the viewer's left isn't taken on trust. The films are frontal, with the
patient's right at image left; so of a film's two masks the one whose centre lies farther left is the right lung. The
summary says how often that was the one in ``rightMask``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cxw_monai.data.schema import Record
from cxw_monai.io.radiograph import RadiographError

from .common import Job, index_images
from .made_files import stored_mask_of, write_masks
from .masks import stored_mask
from .registry import PublicDataset

__all__ = ["DATASET"]

_FILM = re.compile(r"MCUCXR_\d{4}_[01]")
_SEX = re.compile(r"Sex:\s*([MFO])", re.IGNORECASE)
_AGE = re.compile(r"Age:\s*(\d+)\s*Y", re.IGNORECASE)


def prepare(job: Job) -> list[Record]:
    """The records of all films; see the module."""
    base = job.find("MontgomerySet/CXR_png", "CXR_png").parent.relative_to(job.root).as_posix()
    films = index_images([job.find(f"{base}/CXR_png")], (".png",))
    readings, outlines = job.find(f"{base}/ClinicalReadings"), job.find(f"{base}/ManualMask")
    records = []
    for name in sorted(films):
        stem = Path(name).stem
        if not _FILM.fullmatch(stem):
            raise ValueError(f"{films[name]}: not named like MCUCXR_0001_0.png; see {job.url}")
        record = Record(str(films[name]), stem[:-2], view="PA", labels={"tuberculosis": int(stem[-1])})
        record.sex, record.age = _person(job.find(f"{base}/ClinicalReadings/{stem}.txt"))
        records.append(record)
    records = job.sized(records)
    unknown = sum(record.sex is None or record.age is None for record in records)
    if unknown:
        job.note(f"{unknown} readings in {readings.name} lack sex or age")
    _add_masks(job, records, outlines)
    job.split(records)
    return records


def _person(reading: Path) -> tuple[str | None, float | None]:
    """Sex and age from ``Patient's Sex: F`` and ``Patient's Age: 027Y``."""
    text = reading.read_text(encoding="utf-8", errors="replace")
    sex, age = _SEX.search(text), _AGE.search(text)
    return sex[1].upper() if sex else None, int(age[1]) if age else None


def _add_masks(job: Job, records: list[Record], outlines: Path) -> None:
    """Both lungs, named by the patient's sides."""
    swapped, masks = [], []
    for record, swap in _sides(job, records, outlines):
        swapped.append(swap)
        path = Path(record.image)
        for side, other in (("left", "right"), ("right", "left")):
            source = outlines / f"{other if swap else side}Mask" / path.name
            masks.append(stored_mask_of(record, f"lung_field_{side}", path.stem, source))
    write_masks(job, masks)
    job.note(f"leftMask holds the patient's left lung in {swapped.count(False)} of {len(swapped)} films, else swapped")


def _sides(job: Job, records: list[Record], outlines: Path) -> Iterator[tuple[Record, bool]]:
    """Each film with :func:`_swapped`, but those with a damaged mask: which lung is which isn't known of them."""
    for record, swap in job.each(records, lambda record: _swapped(record, outlines), "sides"):
        if isinstance(swap, RadiographError):
            job.leave_out(swap, "mask")
        else:
            yield record, swap


def _swapped(record: Record, outlines: Path) -> bool:
    """Whether the mask in ``leftMask`` is of the lung at image left, the patient's right."""
    left, right = (_centre(outlines / folder / Path(record.image).name, record) for folder in ("leftMask", "rightMask"))
    return left < right


def _centre(path: Path, record: Record) -> float:
    """Mean column of a mask."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such mask; it is part of the set published at {DATASET.url}")
    columns = stored_mask(path, *record.size).sum(axis=0)  # [W]
    if not columns.any():
        raise ValueError(f"{path}: the mask is empty; copy it again from {DATASET.url}")
    return float(np.average(np.arange(len(columns)), weights=columns))


DATASET = PublicDataset(
    name="montgomery",
    title="Montgomery County chest X-ray set (tuberculosis)",
    url="https://data.lhncbc.nlm.nih.gov/public/Tuberculosis-Chest-X-ray-Datasets/Montgomery-County-CXR-Set",
    terms="public, with citation of Jaeger et al. 2014 and Candemir et al. 2014",
    split="no official one: seeded, one film a patient",
    makes="tuberculosis (0/1), sex, age, masks of both lung fields",
    prepare=prepare,
)
