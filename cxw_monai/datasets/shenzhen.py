"""Shenzhen Hospital tuberculosis set: 662 frontal films, 336 of them with tuberculosis.

Layout (https://data.lhncbc.nlm.nih.gov/public/Tuberculosis-Chest-X-ray-Datasets/Shenzhen-Hospital-CXR-Set)::

    ChinaSet_AllFiles/CXR_png/CHNCXR_0001_0.png            ..._1.png with tuberculosis
    ChinaSet_AllFiles/ClinicalReadings/CHNCXR_0001_0.txt   "male 45yrs", then the reading, which isn't copied
    mask/CHNCXR_0001_0_mask.png                            optional: both lungs, of 566 films (Stirenko et al. 2018)

The masks are of the visible lung fields, both in one: ``mask_lung_fields``. They are taken apart into
``mask_lung_field_left`` and ``mask_lung_field_right`` where the lungs don't touch; else these stay empty.

One film a patient. There is no official split: the sizes of the usual one, 463/65/134 (70/10/20 %), are drawn by the
seed, or ``split_lists`` names a folder with that one's lists (``*train*.txt``, ``*val*.txt``, ``*test*.txt``, one film
per line).
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np

from cxw_monai.data.schema import Record
from cxw_monai.io.files.identity import file_identity

from .common import Job, index_images, years
from .made_files import MaskFile, mask_of, stored_mask_of, write_masks
from .masks import left_and_right, stored_mask
from .registry import Option, PublicDataset

__all__ = ["DATASET"]

_TRAINING, _VALIDATION, _TEST = 463, 65, 134
_FILM = re.compile(r"CHNCXR_\d{4}_[01]")


def prepare(job: Job, split_lists: str = "") -> list[Record]:
    """The records of all films; see the module."""
    films = index_images([job.find("ChinaSet_AllFiles/CXR_png", "CXR_png")], (".png",))
    readings = job.find("ChinaSet_AllFiles/ClinicalReadings", "ClinicalReadings")
    records = []
    for name in sorted(films):
        if not _FILM.fullmatch(Path(name).stem):
            raise ValueError(f"{films[name]}: not named like CHNCXR_0001_0.png; see {job.url}")
        record = Record(str(films[name]), Path(name).stem[:-2], labels={"tuberculosis": int(name[-5])})
        record.view, (record.sex, record.age) = "PA", _person(readings / f"{Path(name).stem}.txt")
        records.append(record)
    unknown = sum(record.sex is None or record.age is None for record in records)
    if unknown:
        job.note(f"{unknown} films have no clinical reading of both sex and age")
    records = _add_masks(job, records)
    if split_lists:
        return _split_by_lists(job, records, Path(split_lists))
    rest = _TRAINING + _VALIDATION
    job.split(records, test=_TEST / (rest + _TEST), validation=_VALIDATION / rest)
    job.note("shares of the split as in the literature (463/65/134 of 662); --validation and --test have no effect")
    return records


def _person(reading: Path) -> tuple[str | None, float | None]:
    """Sex and age in years from ``femal 32yrs``, ``male 16month``."""
    if not reading.is_file():
        return None, None
    first = reading.read_text(encoding="utf-8", errors="replace").lstrip("\ufeff \r\n").split("\n")[0].lower()
    sex = {"f": "F", "m": "M"}.get(first[:1])
    age = re.search(r"(\d+)\s*([ymd])", first)
    return sex, years(age[1] + age[2]) if age else None


def _add_masks(job: Job, records: list[Record]) -> list[Record]:
    folder = next((job.root / name for name in ("mask", "mask/mask", "masks") if any(_masks(job.root / name))), None)
    if folder is None:
        job.note("no folder mask: no lung masks")
        return records
    stems = {path.name.removesuffix("_mask.png") for path in _masks(folder)}
    records = job.sized(records, lambda record: Path(record.image).stem in stems)
    named = [(record, stem) for record in records if (stem := Path(record.image).stem) in stems]
    sources = {stem: folder / f"{stem}_mask.png" for _, stem in named}
    write_masks(job, [stored_mask_of(record, "lung_fields", stem, sources[stem]) for record, stem in named])
    records = job.kept(records)
    named = [(record, stem) for record, stem in named if record.masks]
    write_masks(job, [mask for record, stem in named for mask in _sides(record, stem, sources[stem])])
    both, apart = (sum(name in record.masks for record in records) for name in ("lung_fields", "lung_field_left"))
    job.note(f"lung masks of {both} of {len(records)} films, {apart} of them taken apart into left and right")
    return records


def _sides(record: Record, stem: str, source: Path) -> list[MaskFile]:
    """Left and right of a mask of both lungs; none where they can't be told apart."""
    mask = stored_mask(source, *record.size)
    key = f"{file_identity(source).sha256} {record.size}"
    parts = left_and_right(mask)
    return [
        mask_of(record, f"lung_field_{side}", stem, partial(_side, source, record.size, side), key) for side in parts
    ]


def _side(source: Path, size: tuple[int, int], side: str) -> np.ndarray:
    return left_and_right(stored_mask(source, *size))[side]


def _masks(folder: Path) -> list[Path]:
    return list(folder.glob("CHNCXR_*_mask.png"))


def _split_by_lists(job: Job, records: list[Record], folder: Path) -> list[Record]:
    """Only the listed films, each in the split of its list."""
    job.about["split"] = f"the lists in {folder}"
    by_name = {Path(record.image).stem: record for record in records}
    gone = {Path(each.path).stem for each in job.left_out}
    for split, word in (("training", "train"), ("validation", "val"), ("test", "test")):
        lists = sorted(folder.glob(f"*{word}*.txt"))
        if len(lists) != 1:
            raise ValueError(f"{folder}: expected one file *{word}*.txt, found {len(lists)}; give the split's folder")
        for name in dict.fromkeys(_FILM.findall(lists[0].read_text(encoding="utf-8"))):
            record = by_name.get(name)
            if name in gone:
                continue
            if record is None or record.split:
                problem = f"is in {record.split} already" if record else f"is not among the films of {job.root}"
                raise ValueError(f"{lists[0]}: {name} {problem}; give the lists of this data set")
            record.split = split
    listed = [record for record in records if record.split]
    if len(listed) < len(records):
        job.note(f"{len(records) - len(listed)} films are in none of the lists: left out")
    return listed


DATASET = PublicDataset(
    name="shenzhen",
    title="Shenzhen Hospital chest X-ray set (tuberculosis)",
    url="https://data.lhncbc.nlm.nih.gov/public/Tuberculosis-Chest-X-ray-Datasets/Shenzhen-Hospital-CXR-Set",
    terms="public, with citation of Jaeger et al. 2014 and Candemir et al. 2014; masks: Stirenko et al. 2018",
    split="no official one: seeded, 463/65/134 films (one a patient), or the lists given by --split-lists",
    makes="tuberculosis (0/1), sex, age, masks of the lung fields where published",
    prepare=prepare,
    options=(Option("split_lists", "", "folder of the lists *train*.txt, *val*.txt, *test*.txt to split by"),),
)
