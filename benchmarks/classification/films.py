"""Manifests of the tasks: the films that runs learn and choose from, and apart from them those of the test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from benchmarks.learning.data import read_split
from cxw_monai.data.manifest import read_datalist
from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.files.csv_files import write_rows

__all__ = ["SHENZHEN_SPLITS", "TASKS", "FilmTask", "write_tasks"]

NIH_LABELS = ("Pneumonia", "Effusion", "Edema")
SHENZHEN_SPLITS = 6
"""Patient splits of Shenzhen: 0 is the one of which weights are shipped, 1 to 5 are further draws."""
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class FilmTask:
    """What a manifest asks for.

    Attributes:
        classes: labels to learn, columns `label_<class>` of the manifest.
        tests: names of the test manifests beside the one to learn from.
    """

    classes: tuple[str, ...]
    tests: tuple[str, ...] = ("test",)


TASKS = {
    "paediatric": FilmTask(("pneumonia",), ("test", "training_folder")),
    **{f"shenzhen_{split}": FilmTask(("tuberculosis",)) for split in range(SHENZHEN_SPLITS)},
    "nih": FilmTask(("pa", "male", *NIH_LABELS)),
    "view": FilmTask(("AP",)),
}


def write_tasks(data: Path, output: Path) -> dict[str, int]:
    """Write `TASK.csv` (training and validation) and `TASK_TEST.csv` of every task.

    Args:
        data: folder with the folders `open_cxr_pool`, `shenzhen` and `nih_cxr14_subset`, each with its `manifest.csv`.
        output: folder of the manifests.

    Returns:
        Number of films by name of the manifest.
    """
    found: dict[str, Rows] = {}
    for task, rows in _tasks(data):
        for name in ("", *TASKS[task].tests):
            wanted = {name} if name else {"training", "validation"}
            found["_".join(filter(None, (task, name)))] = [row for row in rows if row["split"] in wanted]
    for name, rows in found.items():
        with atomic_file(output / f"{name}.csv", "w", newline="", encoding="utf-8") as stream:
            write_rows(stream, list(rows[0]), rows)
    return {name: len(rows) for name, rows in found.items()}


def _tasks(data: Path) -> Iterator[tuple[str, Rows]]:
    pool = _read(data / "open_cxr_pool")
    yield "paediatric", _paediatric([row for row in pool if row["source"] == "kermany"])
    films = _read(data / "shenzhen")
    for split in range(SHENZHEN_SPLITS):
        yield f"shenzhen_{split}", _shenzhen(films, split)
    nih = _nih(_read(data / "nih_cxr14_subset"))
    yield "nih", nih
    yield "view", nih


def _read(folder: Path) -> Rows:
    return read_datalist(folder / "manifest.csv", section="all")


def _base(row: Mapping[str, Any], split: str) -> dict[str, Any]:
    shared = {name: row.get(name) or "" for name in ("id", "patient_id", "view", "sex", "age")}
    return {"image": row["image"], **shared, "split": split}


def _paediatric(rows: Rows) -> Rows:
    """The published test folder; what else is kept for tests is of the training folder."""
    found = []
    for row in rows:
        split = row["split"]
        if split == "test" and row["official_split"] != "test":
            split = "training_folder"
        kind = "bacterial" if str(row["label_bacterial"]) == "1" else "viral"
        sick = str(row["label_pneumonia"])
        mask = row.get("mask_lungs_v7") or ""
        labels = {"label_pneumonia": sick, "source": kind if sick == "1" else "normal", "mask_lungs_v7": mask}
        found.append({**_base(row, split), **labels})
    return found


def _shenzhen(rows: Rows, split: int) -> Rows:
    """Nearly 463, 65 and 134 films, both kinds in the same shares, drawn by the number of the split."""
    label = np.array([int(row["label_tuberculosis"]) for row in rows])
    patients = np.array([str(row["patient_id"]) for row in rows])
    parts = np.full(len(rows), "training", dtype=object)
    tenths = StratifiedGroupKFold(10, shuffle=True, random_state=split).split(label, label, patients)
    for number, (_, held_out) in enumerate(tenths):
        parts[held_out] = "test" if number < 2 else "validation" if number == 2 else "training"
    return [
        {**_base(row, part), "label_tuberculosis": one, "source": row["aspect"]}
        for row, part, one in zip(rows, parts, label, strict=True)
    ]


def _nih(rows: Rows) -> Rows:
    """The split of docs/learning.md; a fifth of its training patients for validation."""
    split = read_split()
    chosen = [row for row in rows if Path(row["image"]).stem in split]
    patients = np.array([str(row["patient_id"]) for row in chosen])
    known = sorted({p for p, row in zip(patients, chosen, strict=True) if split[Path(row["image"]).stem] == "train"})
    held = set(np.random.default_rng(0).permutation(known)[: len(known) // 5])
    found = []
    for row, patient in zip(chosen, patients, strict=True):
        learnt = "validation" if patient in held else "training"
        part = learnt if split[Path(row["image"]).stem] == "train" else "test"
        labels = {"label_pa": int(row["view"] == "PA"), "label_AP": int(row["view"] == "AP")}
        labels |= {"label_male": int(row["sex"] == "M"), **{f"label_{name}": row[name] for name in NIH_LABELS}}
        found.append({**_base(row, part), **labels})
    return found
