"""SIIM-ACR Pneumothorax Segmentation: 12,047 NIH films with masks.

Layout (https://www.kaggle.com/c/siim-acr-pneumothorax-segmentation, or the Cloud Healthcare API copy)::

    stage_2_train.csv or train-rle.csv          ImageId, EncodedPixels: a row a pneumothorax, -1 for none
    dicom-images-train/<study>/<series>/<ImageId>.dcm
    dicom-images-test/...                       stage 1's test films; stage_2_train.csv has their labels

Masks are run lengths down the columns, each start relative to the end of the run before; the rows of a film are united.
Where ``stage_2_train.csv`` labels films in ``dicom-images-test``, these are the test split; else it is made here.
Films without a row are left out: whether they show a pneumothorax isn't published.
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from pathlib import Path

import numpy as np

from cxw_monai.data.schema import Record

from .common import Job
from .headers import fill_from_headers
from .made_files import MaskFile, mask_of, write_masks
from .registry import PublicDataset
from .rle import decode_rle

__all__ = ["DATASET"]

_NONE = "-1"
_TEST_FOLDER = "dicom-images-test"


def prepare(job: Job) -> list[Record]:
    """The records of all labelled films; see the module."""
    table = job.find("stage_2_train.csv", "train-rle.csv")
    runs = _runs(job, table)
    films = {path.stem: path for path in sorted(job.root.glob("**/*.dcm"))}
    records = []
    for film, texts in runs.items():
        path = films.get(film, job.root / "dicom-images-train" / f"{film}.dcm")
        test = _TEST_FOLDER in path.relative_to(job.root).parts
        records.append(
            Record(
                image=str(path),
                study=film,
                split="test" if test else "training",
                labels={"Pneumothorax": int(bool(texts))},
            )
        )
    job.note(f"{len(films.keys() - runs.keys())} films without a row in {table.name}: left out")
    records = fill_from_headers(job, job.present(records), patients=True)
    write_masks(job, [_mask(table, record, str(record.study), runs[str(record.study)]) for record in records])
    if any(record.split == "test" for record in records):
        job.about["split"] = (
            "stage 1's test films are the test; validation held out of the others by the DICOM's patient"
        )
        job.hold_out(records)
    else:
        job.about["split"] = "made here, by the DICOM's patient"
        job.note(f"no labelled film in {_TEST_FOLDER}: the test split is made here")
        job.split(records)
    return records


def _runs(job: Job, path: Path) -> dict[str, list[str]]:
    """The encodings of each film; an empty list is no pneumothorax."""
    runs: dict[str, list[str]] = defaultdict(list)
    for row in job.rows(path):
        cells = {(name or "").strip(): (cell or "").strip() for name, cell in row.items()}  # the header has blanks
        if not {"ImageId", "EncodedPixels"} <= cells.keys():
            raise ValueError(f"{path}: no columns ImageId and EncodedPixels (its columns: {', '.join(cells)})")
        found = runs[cells["ImageId"]]
        if cells["EncodedPixels"] != _NONE:
            found.append(cells["EncodedPixels"])
    return runs


def _mask(table: Path, record: Record, film: str, texts: list[str]) -> MaskFile:
    width, height = record.size
    make = partial(_draw, table, film, texts, height, width)
    return mask_of(record, "pneumothorax", film, make, f"{texts} {height} {width}")


def _draw(table: Path, film: str, texts: list[str], height: int, width: int) -> np.ndarray:
    mask = np.zeros((height, width), dtype=bool)
    for text in texts:
        try:
            mask |= decode_rle(text, height, width, order="columns", relative=True)
        except ValueError as error:
            raise ValueError(f"{table}, {film}: {error}") from error
    return mask


DATASET = PublicDataset(
    name="siim_acr",
    title="SIIM-ACR Pneumothorax Segmentation",
    url="https://www.kaggle.com/c/siim-acr-pneumothorax-segmentation",
    terms="competition rules: non-commercial and research use, attribution to SIIM, ACR and NIH",
    split="stage 1's test films where their labels are in the folder, else made here; by the DICOM's patient",
    makes="Pneumothorax (0/1) and its mask (empty where there is none), view, sex, age",
    prepare=prepare,
)
