"""Runs a classifier on all variants of a manifest's films."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cxw_monai.data.manifest import read_datalist
from cxw_monai.io import read_radiograph
from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.files.csv_files import write_rows
from cxw_monai.io.formats.pictures import read_mask
from cxw_monai.tasks.classification.items import labelled_items

from .masking import FILLS, VARIANTS, variant
from .matrix import LabelMatrix

__all__ = ["Shown", "listed_region", "show", "write_matrix"]

Classify = Callable[[np.ndarray], Mapping[str, float]]
"""Probabilities by label of a film, float `[H, W]` in [0, 1]."""
Region = Callable[[np.ndarray, Mapping[str, Any]], np.ndarray]
"""The region, bool `[H, W]`, of a film and its manifest's item; empty where it isn't known."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shown:
    """What a classifier said of all variants of N films.

    Attributes:
        names: of the L labels that both classifier and manifest have.
        probability: `[N, L]` by variant and fill.
        label: `[N, L]` of 0, 1 and NaN.
        patients: N.
        film, region: of the first film, as an example.
    """

    names: list[str]
    probability: dict[tuple[str, str], np.ndarray]
    label: np.ndarray
    patients: list[str]
    film: np.ndarray
    region: np.ndarray


def listed_region(columns: Sequence[str]) -> Region:
    """The union of a manifest's masks in some columns; of a film that lacks one of them, nothing."""

    def region(film: np.ndarray, item: Mapping[str, Any]) -> np.ndarray:
        files = [item.get(column) for column in columns]
        if not all(files):
            return np.zeros(film.shape, bool)
        return np.any([read_mask(file, film.shape) for file in files if file], axis=0)

    return region


def show(
    datalist: str | Path,
    section: str,
    classify: Classify,
    region: Region,
    limit: int | None = None,
    label_map: Mapping[str, Any] | None = None,
) -> Shown:
    """Run a classifier on the variants of all films that have a region and a label.

    Args:
        datalist: manifest with `label_*` columns named like the classifier's labels; empty is unknown.
        section: of the manifest.
        classify, region: see the types.
        limit: most films, the first ones.
        label_map: where a label is not the column of its name, see `labelled_items`.

    Raises:
        ValueError: no film has a region and a label that the classifier knows.
    """
    cells = [(name, fill) for name in VARIANTS for fill in FILLS]
    said: dict[tuple[str, str], list[Mapping[str, float]]] = {cell: [] for cell in cells}
    films = read_datalist(datalist, section=section)
    if not films:
        raise ValueError(f"{datalist}: no film of {section!r}.")
    names = list(classify(read_radiograph(films[0]["image"]).array[0]))
    chosen = {item["image"] for item in films}
    items = [item for item in labelled_items(datalist, names, label_map, all_columns=False) if item["image"] in chosen]
    labels: list[list[float | None]] = []
    patients: list[str] = []
    example, without = None, 0
    for number, item in enumerate(items):
        if limit is not None and len(patients) == limit:
            break
        film = read_radiograph(item["image"]).array[0]
        where = region(film, item)
        if not where.any():
            without += 1
            continue
        whole = classify(film)
        for name, fill in cells:
            said[name, fill].append(whole if name == "full" else classify(variant(film, where, name, fill)))
        labels.append(item["labels"])
        patients.append(str(item.get("patient_id") or f"film {number}"))
        example = example or (film, where)
    if without:
        logger.info("%s: %d films have no region and are left out.", datalist, without)
    if example is None:
        raise ValueError(f"{datalist}: no film of {section!r} has a region and a label of the classifier's.")
    table = np.array(labels, dtype=np.float64)  # [N, L]
    known = ~np.isnan(table).all(axis=0)
    names = [name for name, there in zip(names, known, strict=True) if there]
    return Shown(
        names,
        {cell: np.array([[one[name] for name in names] for one in found]) for cell, found in said.items()},
        table[:, known],
        patients,
        *example,
    )


def write_matrix(path: Path, matrices: Sequence[LabelMatrix]) -> None:
    """A CSV with a row a label, variant and fill: AUROC, and what is left of it, with intervals."""
    columns = ["label", "films", "positives", "variant", "fill", "auroc", "auroc_low", "auroc_high"]
    columns += ["left", "left_low", "left_high"]
    rows = []
    for matrix in matrices:
        for (name, fill), score in matrix.auroc.items():
            row = dict(zip(columns, (matrix.label, matrix.films, matrix.positives, name, fill), strict=False))
            for column, found in (("auroc", score), ("left", matrix.left.get((name, fill)))):
                if found is None:
                    continue
                bounds = {column: found.value, f"{column}_low": found.low, f"{column}_high": found.high}
                row |= {key: f"{value:.5f}" for key, value in bounds.items() if value is not None}
            rows.append(row)
    with atomic_file(path, "w", newline="", encoding="utf-8") as stream:
        write_rows(stream, columns, rows)
