"""Films of the learning benchmark: a committed patient-disjoint split of NIH films, and films with outlines.

The split names films of the public data set NIH ChestX-ray14 by their ids: 499 to learn from, 251 to test on.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cxw_monai.data.manifest import read_datalist
from cxw_monai.io import read_radiograph
from cxw_monai.io.formats.pictures import read_mask
from cxw_monai.metrics.descriptors import shrunk
from cxw_monai.tasks.segmentation.items import annotated_items

__all__ = ["LABELS", "STRUCTURES", "LabelledFilms", "OutlinedFilms", "labelled_films", "outlined_films", "read_split"]

SPLIT = Path(__file__).parent / "nih_split.csv"
LABELS = {"view": "PA", "sex": "M", "Pneumonia": "1", "Effusion": "1", "Edema": "1"}
"""Columns of the manifest and their positive value."""
STRUCTURES = ("lung_left", "lung_right", "heart")
NAMES = {
    "lung_left": ("lung_field_left", "left_lung", "lung_left"),
    "lung_right": ("lung_field_right", "right_lung", "lung_right"),
    "heart": ("mediastinum", "cardiomediastinum", "heart"),
}
"""What a structure is called in manifests, the first that exists; heart with mediastinum where they are one outline."""


@dataclass(frozen=True)
class LabelledFilms:
    """Films with labels.

    Attributes:
        images: float32 `[N, 1, S, S]` in [0, 1].
        files: `N` absolute paths.
        patients: `N` patient ids.
        labels: bool `[N, 5]` in the order of `LABELS`.
        ages: float `[N]` in years.
        train: bool `[N]`, whether a film is to learn from (else to test on).
    """

    images: torch.Tensor
    files: list[str]
    patients: np.ndarray
    labels: np.ndarray
    ages: np.ndarray
    train: np.ndarray


@dataclass(frozen=True)
class OutlinedFilms:
    """Films with outlines of both lungs and the heart.

    Attributes:
        images: float32 `[N, 1, S, S]` in [0, 1].
        masks: bool `[N, 3, S, S]` in the order of `STRUCTURES`.
        patients: `N` patient ids.
    """

    images: torch.Tensor
    masks: np.ndarray
    patients: np.ndarray


def read_split() -> dict[str, str]:
    """`train` or `test` by film id."""
    with SPLIT.open(newline="") as stream:
        return {row["id"]: row["part"] for row in csv.DictReader(stream)}


def _film(path: str, size: int) -> torch.Tensor:
    return shrunk(read_radiograph(path, min_size=1).array, size)


def labelled_films(manifest: str | Path, size: int) -> LabelledFilms:
    """The split's films of an NIH manifest, squashed to `size x size` px.

    Raises:
        ValueError: when a film of the split is not in the manifest, or a column is missing.
    """
    rows: dict[str, dict[str, Any]] = {Path(r["image"]).stem: r for r in read_datalist(manifest, section="all")}
    split = read_split()
    absent = [name for name in split if name not in rows]
    if absent:
        raise ValueError(f"{manifest}: lacks {len(absent)} of the split's {len(split)} films, such as {absent[0]}.")
    chosen = [rows[name] for name in split]
    missing = [name for name in (*LABELS, "age", "patient_id") if name not in chosen[0]]
    if missing:
        raise ValueError(f"{manifest}: no column {missing[0]!r}; the benchmark reads {[*LABELS, 'age', 'patient_id']}.")
    return LabelledFilms(
        images=torch.stack([_film(row["image"], size) for row in chosen]),
        files=[row["image"] for row in chosen],
        patients=np.array([str(row["patient_id"]) for row in chosen]),
        labels=np.array([[str(row[name]) == value for name, value in LABELS.items()] for row in chosen]),
        ages=np.array([float(row["age"]) for row in chosen]),
        train=np.array([part == "train" for part in split.values()]),
    )


def outlined_films(manifest: str | Path, size: int) -> OutlinedFilms:
    """Films of a manifest that have all three outlines, squashed to `size x size` px."""
    columns = {name for item in read_datalist(manifest, section="all") for name in item}
    found = {s: next((n for n in names if f"mask_{n}" in columns), names[0]) for s, names in NAMES.items()}
    items = [i for i in annotated_items(manifest, STRUCTURES, found) if len(i["masks"]) == len(STRUCTURES)]
    if not items:
        raise ValueError(f"{manifest}: no film has outlines of both lungs and the heart.")
    return OutlinedFilms(
        images=torch.stack([_film(item["image"], size) for item in items]),
        masks=np.stack([[_mask(item["masks"][name], size) for name in STRUCTURES] for item in items]),
        patients=np.array([str(item.get("patient_id") or item["image"]) for item in items]),
    )


def _mask(files: Sequence[str], size: int) -> np.ndarray:
    union = np.logical_or.reduce([read_mask(name) for name in files])
    return shrunk(union[None].astype(np.float32), size)[0].numpy() >= 0.5
