"""MedFMC ChestDR: 4,848 frontal films of one hospital, nineteen labels, few-shot splits.

Layout (https://github.com/openmedlab/MedFM, folder ``MedFMC/chest``)::

    images/*.png
    trainval.txt, test_WithLabel.txt                          "name.png 0,1,0,...": nineteen 0/1
    chest_{1,5,10}-shot_{train,val}_exp{1..5}.txt             the same form
    chest_train.csv                                           instead of trainval.txt: img_id, ..., nineteen columns

With ``shots``, training and validation are the official few-shot lists; else validation is held out of the training
films. The set names no patients, so films are held out singly. Where the labels of the test films aren't in the folder
(they came out later), the test split is made here.
"""

from __future__ import annotations

from pathlib import Path

from cxw_monai.data.schema import Record

from .common import Job
from .registry import Option, PublicDataset

__all__ = ["DATASET", "LABELS"]

LABELS = (
    *("pleural_effusion", "nodule", "pneumonia", "cardiomegaly", "hilar_enlargement", "fracture_old", "fibrosis"),
    *("aortic_calcification", "tortuous_aorta", "thickened_pleura", "TB", "pneumothorax", "emphysema", "atelectasis"),
    *("calcification", "pulmonary_edema", "increased_lung_markings", "elevated_diaphragm", "consolidation"),
)
"""In the order of the lists."""


def prepare(job: Job, *, shots: int = 0, experiment: int = 1) -> list[Record]:
    """The records of the chosen lists; see the module."""
    folder = job.find("images", "image")
    test = job.root / "test_WithLabel.txt"
    if shots:
        names = (f"chest_{shots}-shot_{part}_exp{experiment}.txt" for part in ("train", "val"))
        lists = dict(zip(("training", "validation"), map(job.find, names), strict=True))
        lists["test"] = job.find(test.name)
        job.about["split"] = f"official: few-shot training and validation ({shots} shots, draw {experiment}), and test"
    else:
        lists = {"training": job.find("trainval.txt", "chest_train.csv")}
        if test.is_file():
            lists["test"] = test
            job.about["split"] = "official test; validation held out of the official training films by film"
    records = []
    for split, path in lists.items():
        rows = _table(job, path) if path.suffix == ".csv" else _listed(path)
        records += [Record(image=str(folder / name), split=split, labels=labels) for name, labels in rows.items()]
    job.note("the set names no patients: films are held out singly")
    if "test" not in lists:
        job.note(f"no {test.name}: the test split is made here")
        job.about["split"] = f"made here of the films of {lists['training'].name}, by film"
        job.split(records)
    elif not shots:
        job.hold_out(records)
    return records


def _listed(path: Path) -> dict[str, dict[str, float]]:
    """Labels by film, of a list; a film that a few-shot list has twice counts once."""
    found: dict[str, dict[str, float]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        name, _, cells = line.strip().rpartition(" ")
        values = cells.split(",")
        if not name or len(values) != len(LABELS) or set(values) - {"0", "1"}:
            raise ValueError(f"{path}, line {number}: expected 'name.png' and {len(LABELS)} values 0 or 1")
        labels: dict[str, float] = dict(zip(LABELS, map(int, values), strict=True))
        if found.setdefault(name, labels) != labels:
            raise ValueError(f"{path}, line {number}: {name} is there twice with different labels")
    return found


def _table(job: Job, path: Path) -> dict[str, dict[str, float]]:
    rows = job.rows(path, ("img_id", *LABELS))
    return {row["img_id"]: {name: int(row[name]) for name in LABELS} for row in rows}


DATASET = PublicDataset(
    name="chestdr",
    title="MedFMC ChestDR",
    url="https://github.com/openmedlab/MedFM",
    terms="those of its figshare record; cite Wang et al. 2023, Scientific Data 10:574",
    split="official lists: trainval and test, or few-shot training and validation; films held out singly",
    makes="19 labels (0/1)",
    prepare=prepare,
    options=(
        Option("shots", 0, "official few-shot lists of so many films a label; 0 for all", (0, 1, 5, 10)),
        Option("experiment", 1, "which of the five official draws", (1, 2, 3, 4, 5)),
    ),
)
