"""Scores of a segmenter on manual masks of films that it never learned from, as users get it: file in, masks out."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cxw_monai.data.manifest import read_datalist
from cxw_monai.inference.api import SegmentationModel
from cxw_monai.inference.measurements import measure
from cxw_monai.io import read_radiograph
from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.files.csv_files import write_rows
from cxw_monai.io.formats.pictures import read_mask
from cxw_monai.metrics.segmentation import bootstrap_means, surface_distances

from .films import STRUCTURES

__all__ = ["OUTLINES", "predicted", "read_scores", "score_films", "summary"]

SIDE = 512
"""Distances are in px of a film whose longer side has so many."""
GROSS = 0.8
"""A film with a structure below this Dice is grossly wrong."""

_FIELDS = {"lung_field_left": "left_lung", "lung_field_right": "right_lung"}
OUTLINES: Mapping[str, Mapping[str, str]] = {
    "wingspan": {**_FIELDS, "heart": "heart"},
    "shenzhen": _FIELDS,
    "montgomery": _FIELDS,
    "covid": {
        **{"lung_left": "left_lung", "lung_right": "right_lung"},  # they run behind the heart
        **{"lungs": "lungs_v7", "heart_mediastinum": "cardiomediastinum"},
    },
    "kermany": {"lungs": "lungs_v7"},
    "films": {name: name for name in STRUCTURES},  # of the command films, with its validation split
}
"""What the mask columns of a source's manifest outline."""

_UNIONS = {"lungs": ("lung_left", "lung_right"), "heart_mediastinum": ("heart", "mediastinum")}

Item = dict[str, Any]


def predicted(masks: Mapping[str, np.ndarray], name: str) -> np.ndarray | None:
    """A model's mask of what a source outlines; where it has no lung field, the lung less heart and mediastinum.

    Args:
        masks: bool `[H, W]` by structure.
        name: a structure, `lungs`, or `heart_mediastinum`.

    Returns:
        bool `[H, W]`; None where the model has no such structure.
    """
    if name in masks:
        return masks[name]
    if name in _UNIONS:
        parts = [masks[part] for part in _UNIONS[name] if part in masks]
        return np.logical_or.reduce(parts) if parts else None
    lung = masks.get(name.replace("lung_field", "lung"))
    if lung is None or not name.startswith("lung_field"):
        return None
    return lung & ~np.logical_or.reduce([masks[part] for part in _UNIONS["heart_mediastinum"] if part in masks])


def _film_scores(model: SegmentationModel, item: Item, columns: Mapping[str, str], folder: Path) -> dict[str, Any]:
    film = read_radiograph(item["image"], min_size=1)
    masks = dict(zip(model.structures, model.predictor.masks(film), strict=True))
    row: dict[str, Any] = {}
    label: dict[str, np.ndarray] = {}
    for name, column in columns.items():
        ours = predicted(masks, name)
        if not item.get(f"mask_{column}") or ours is None:
            continue
        label[name] = theirs = read_mask(folder / str(item[f"mask_{column}"]))
        row[f"dice_{name}"] = 2 * np.count_nonzero(ours & theirs) / (np.count_nonzero(ours) + np.count_nonzero(theirs))
        if ours.any():
            row[f"hd95_{name}"] = surface_distances(ours, theirs)[0] * SIDE / max(ours.shape)
    if "heart" in label and len(label) == 3:
        fields = {name: predicted(masks, name) for name in label}
        ratios = []
        for drawn in (fields, label):
            structures = [name.replace("lung_field", "lung") for name in drawn]
            ratios.append(measure(np.stack(list(drawn.values())), structures, None)["cardiothoracic_ratio"])  # type: ignore[arg-type]
        if None not in ratios:
            row |= {"ctr": ratios[0], "ctr_label": ratios[1], "ctr_error": ratios[0] - ratios[1]}  # type: ignore[operator]
    dices = [value for name, value in row.items() if name.startswith("dice_")]
    return {**row, "gross": int(min(dices) < GROSS)} if dices else row


def score_films(
    model: SegmentationModel, source: str, manifest: Path, output: Path, split: str | None = None
) -> list[dict[str, Any]]:
    """Score the films of a manifest that have masks, and write a row a film.

    Args:
        model: the segmenter.
        source: one of `OUTLINES`, which names the mask columns.
        manifest: the films; those without one of the masks are left out.
        output: CSV to write: `id`, `patient_id`, `dice_*` of each structure, `hd95_*` in px of a film of 512, the
            cardiothoracic ratio `ctr`, `ctr_label` and `ctr_error`, and `gross`, whether a Dice is below 0.8.
        split: only the films of this split.

    Raises:
        ValueError: an unknown source, or no film with a mask.
    """
    if source not in OUTLINES:
        raise ValueError(f"No source {source!r}; there are {', '.join(OUTLINES)}.")
    rows = []
    for item in read_datalist(manifest, section="all"):
        if split is not None and item.get("split") != split:
            continue
        found = _film_scores(model, item, OUTLINES[source], manifest.parent)
        if found:
            name = str(item.get("id") or Path(item["image"]).stem)
            rows.append({"id": name, "patient_id": str(item.get("patient_id") or name), **found})
    if not rows:
        raise ValueError(f"{manifest}: no film of it has a mask that the model draws.")
    columns = sorted({name for row in rows for name in row} - {"id", "patient_id"})
    with atomic_file(output, "w", newline="", encoding="utf-8") as stream:
        rounded = [{k: f"{v:.5f}" if isinstance(v, float) else v for k, v in row.items()} for row in rows]
        write_rows(stream, ["id", "patient_id", *columns], rounded)
    return rows


def read_scores(path: Path) -> list[dict[str, Any]]:
    """The rows of `score_films` that were written before."""
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    texts = ("id", "patient_id")
    return [{k: v if k in texts else float(v) for k, v in row.items() if v != ""} for row in rows]


def summary(rows: Sequence[Mapping[str, Any]], draws: int = 1000) -> dict[str, tuple[float, float, float, float]]:
    """Mean, 95 % interval (bootstrap of patients), and the worst film's value of each column.

    Returns:
        By column; `ctr_error` is the bias, `ctr_off` the mean absolute error, and the worst is the largest distance or
        error, and the least Dice.
    """
    columns = sorted({name for row in rows for name in row} - {"id", "patient_id", "ctr", "ctr_label"})
    table = np.array([[row.get(name, np.nan) for name in columns] for row in rows], dtype=float)
    if "ctr_error" in columns:
        table = np.column_stack([table, np.abs(table[:, columns.index("ctr_error")])])
        columns.append("ctr_off")
    patients = np.unique([row["patient_id"] for row in rows], return_inverse=True)[1]
    low, high = np.nanquantile(bootstrap_means(table, patients, draws), (0.025, 0.975), axis=0)
    worst = np.where([name.startswith("dice") for name in columns], np.nanmin(table, axis=0), np.nanmax(table, axis=0))
    numbers = zip(columns, np.nanmean(table, axis=0), low, high, worst, strict=True)
    return {name: (float(mean), float(a), float(b), float(w)) for name, mean, a, b, w in numbers}
