"""RSNA Pediatric Bone Age 2017: 14,236 films of the left hand, with bone age and sex.

Layout (https://www.rsna.org/rsnai/ai-image-challenge/rsna-pediatric-bone-age-challenge-2017), files and folders of
these names anywhere below the root::

    boneage-training-dataset.csv or train.csv        id, boneage, male
    boneage-training-dataset/*.png
    Validation Dataset.csv                           Image ID, male, Bone Age (months)
    boneage-validation-dataset-1, -2/*.png
    Bone age ground truth.csv                        Case ID, Sex, Ground truth bone age (months)
    Test Set Images/*.png

The test table is published as ``.xlsx``: save it as CSV. Bone age is what was read from the film, in months; the age of
the child isn't published. Copies with only the training films (Kaggle) are split by the seed: ``training_only``.
"""

from __future__ import annotations

from pathlib import Path

from cxw_monai.data.schema import Record
from cxw_monai.io.files.printable import shown

from .common import Job, index_images
from .registry import Option, PublicDataset

__all__ = ["DATASET"]

_PARTS = {
    "training": (("boneage-training-dataset.csv", "train.csv"), "boneage-training-dataset*"),
    "validation": (("Validation Dataset.csv",), "boneage-validation-dataset*"),
    "test": (("Bone age ground truth.csv",), "Test Set Images"),
}
_ID, _AGE = ("id", "Image ID", "Case ID"), ("boneage", "Bone Age (months)", "Ground truth bone age (months)")
_SEX = {"true": "M", "false": "F", "m": "M", "f": "F"}


def prepare(job: Job, training_only: bool = False) -> list[Record]:
    """The records of all films; see the module."""
    records = []
    for split, (tables, folder) in _PARTS.items():
        if split == "training" or not training_only:
            records += _part(job, split, tables, folder)
    records = job.present(records)
    job.about["split"] = "official training, validation and test"
    if training_only:
        job.about["split"] = "made here of the official training films, by the seed"
        job.split(records)
    return records


def _part(job: Job, split: str, tables: tuple[str, ...], folder: str) -> list[Record]:
    table = next((path for name in tables for path in sorted(job.root.rglob(name))), None)
    if table is None:
        if split == "test" and any(job.root.rglob("Bone age ground truth.xlsx")):
            raise ValueError(f"{job.root}: save 'Bone age ground truth.xlsx' as CSV, 'Bone age ground truth.csv'")
        hint = "" if split == "training" else ", or use the training films alone with --training-only"
        raise FileNotFoundError(f"{job.root}: no {' or '.join(tables)}; it is published at {job.url}{hint}")
    folders = [path for path in sorted(job.root.rglob(folder)) if path.is_dir()]
    if not folders:
        raise FileNotFoundError(f"{job.root}: no folder {folder}; it is part of the set published at {job.url}")
    films = index_images(folders)
    records = []
    for row in job.rows(table):
        number, age, sex = (_cell(row, names, table) for names in (_ID, _AGE, ("male", "Sex")))
        if sex.lower() not in _SEX:
            raise ValueError(f"{table}, {number}: sex must be M, F, True or False, got {sex!r}")
        name = f"{number}.png"
        record = Record(
            str(films.get(name, folders[0] / name)), f"{split}_{number}", sex=_SEX[sex.lower()], split=split
        )
        try:
            record.labels["bone_age_months"] = float(age)
        except ValueError as error:
            raise ValueError(f"{table}, {number}: the bone age must be a number, got {shown(age)}") from error
        record.extra["anatomy"] = "hand"
        records.append(record)
    return records


def _cell(row: dict[str, str], names: tuple[str, ...], table: Path) -> str:
    for name in names:
        if row.get(name):
            return row[name].strip()
    raise ValueError(f"{table}: no {' or '.join(names)} in the columns {', '.join(row)}; see {DATASET.url}")


DATASET = PublicDataset(
    name="bone_age",
    title="RSNA Pediatric Bone Age 2017",
    url="https://www.rsna.org/rsnai/ai-image-challenge/rsna-pediatric-bone-age-challenge-2017",
    terms="RSNA's terms: non-commercial research and education; cite Halabi et al. 2019",
    split="official training, validation and test; seeded of the training films with --training-only",
    makes="bone_age_months, sex",
    prepare=prepare,
    options=(Option("training_only", False, "only the training films are there: split them by the seed"),),
)
