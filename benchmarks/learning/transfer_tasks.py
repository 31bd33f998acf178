"""Labels that frozen encoders are asked for on films of several hospitals, and who is fitted to and scored.

A task has a fold for each film: those of a fold are scored by a probe fitted to all others, and those of fold -1 are
fitted to only. Tasks to choose by hold no film of a test part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import StratifiedGroupKFold

from benchmarks.learning.data import LABELS, OutlinedFilms, outlined_films, read_split
from cxw_monai.data.manifest import read_datalist
from cxw_monai.io import read_radiograph
from cxw_monai.metrics.descriptors import shrunk
from cxw_monai.metrics.probes import grouped_auroc, patient_weights

__all__ = ["FOLDERS", "FilmSet", "Task", "film_sets", "outlined_sets", "tasks_of"]

FOLDERS = {
    "nih": "nih_cxr14_subset",
    "kermany": "open_cxr_pool",
    "shenzhen": "shenzhen",
    "wingspan": "wingspan_heart_lungs",
}
FOLDS = 5
KERMANY_FILMS = 1500
"""Labelled films of Kermany's training part that probes are fitted to."""
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class FilmSet:
    """Films of one folder.

    Attributes:
        images: uint8 `[N, 1, S, S]`, squashed.
        rows: the manifest's rows of the same films.
    """

    images: torch.Tensor
    rows: Rows


@dataclass(frozen=True)
class Task:
    """What is read off films of a set.

    Attributes:
        films: name of the set.
        places: int `[N]`, which of its films.
        labels: bool `[N]` each, or float `[N]` for a number to be regressed.
        patients: `[N]`.
        folds: int `[N]`, see above.
        groups: int `[N]`: only pairs of films of one group are compared, besides those of one fold.
    """

    films: str
    places: np.ndarray
    labels: Mapping[str, np.ndarray]
    patients: np.ndarray
    folds: np.ndarray
    groups: np.ndarray | None = None
    scored: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "scored", self.folds >= 0)

    def aurocs(self, scores: np.ndarray, label: str, draws: int) -> np.ndarray:
        """AUROC `[1 + draws]` of scores `[N]`: of the films scored, then of resampled patients."""
        at = self.scored
        pairs = self.folds[at] if self.groups is None else self.folds[at] * 1000 + self.groups[at]
        ones = np.ones((1, int(at.sum())))
        weights = np.concatenate([ones, patient_weights(self.patients[at], draws)]) if draws else ones
        return grouped_auroc(scores[at], self.labels[label][at].astype(bool), pairs, weights)


def film_sets(data: Path, cache: Path, size: int) -> dict[str, FilmSet]:
    """The films of all tasks; decoded films are kept in `cache`."""
    return {name: _film_set(data / folder / "manifest.csv", name, cache, size) for name, folder in FOLDERS.items()}


def _film_set(manifest: Path, name: str, cache: Path, size: int) -> FilmSet:
    rows = [r for r in read_datalist(manifest, section="all") if name != "kermany" or r["source"] == "kermany"]
    if name == "nih":
        split = read_split()
        rows = [{**r, "part": split[Path(r["image"]).stem]} for r in rows if Path(r["image"]).stem in split]
    if name == "kermany":
        learnt = [r for r in rows if r["split"] == "training"]
        order = np.random.default_rng(0).permutation(len(learnt))[:KERMANY_FILMS]
        rows = [learnt[i] for i in sorted(order)] + [r for r in rows if r["split"] != "training"]
    path = cache / f"{name}_{size}.npy"
    if not path.exists():
        films = torch.stack([shrunk(read_radiograph(row["image"], min_size=1).array, size) for row in rows])
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, (films * 255).round().to(torch.uint8).numpy(), allow_pickle=False)
    images = torch.from_numpy(np.load(path, allow_pickle=False))
    if len(images) != len(rows):
        raise ValueError(f"{path} holds {len(images)} films, {manifest} asks for {len(rows)}: delete the former.")
    return FilmSet(images, rows)


def outlined_sets(data: Path, rendered: Path | None, test: bool, size: int) -> dict[str, OutlinedFilms]:
    """Films with outlines of lungs and heart: rendered ones, and manual ones of real films."""
    real = "covid_ieee8023_cc" if test else FOLDERS["wingspan"]
    sets = {"real": data / real / "manifest.csv"} | ({"rendered": rendered} if rendered else {})
    return {name: outlined_films(path, size) for name, path in sets.items()}


def tasks_of(sets: Mapping[str, FilmSet], test: bool) -> dict[str, Task]:
    """The tasks by name.

    Args:
        sets: what `film_sets` gave.
        test: the films that decide nothing, instead of those to choose by.
    """
    held = "test" if test else "validation"
    nih = _nih(sets["nih"].rows, test)
    views = np.array([str(sets["nih"].rows[i]["view"]) == "PA" for i in nih.places]).astype(int)
    inner = {name: label for name, label in nih.labels.items() if name != "view"}
    within = Task("nih", nih.places, inner, nih.patients, nih.folds, views)
    tasks = {"nih": nih, "nih_within_view": within, **_kermany(sets["kermany"].rows, held)}
    tasks["shenzhen"] = _folded("shenzhen", sets["shenzhen"].rows, "label_tuberculosis", "tuberculosis", test)
    if test:
        tasks["shenzhen_validation"] = _split("shenzhen", sets["shenzhen"].rows, "label_tuberculosis", "tuberculosis")
    tasks["wingspan"] = _ratio(sets["wingspan"].rows, test)
    return tasks


def _patients(rows: Rows) -> np.ndarray:
    return np.array([str(row.get("patient_id") or row["image"]) for row in rows])


def _stratified(kind: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """Fold of each film: no patient in two, the kinds spread evenly."""
    folds = np.zeros(len(kind), dtype=int)
    splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    for number, (_, held_out) in enumerate(splitter.split(kind, kind, patients)):
        folds[held_out] = number
    return folds


def _nih(rows: Rows, test: bool) -> Task:
    places = np.array([i for i, row in enumerate(rows) if test or row["part"] == "train"])
    chosen = [rows[i] for i in places]
    labels = {name: np.array([str(r[name]) == value for r in chosen]) for name, value in LABELS.items()}
    patients = _patients(chosen)
    kind = np.where(labels["Edema"], 2, labels["Effusion"])
    return Task("nih", places, labels, patients, _stratified(kind, patients))


def _kermany(rows: Rows, held: str) -> dict[str, Task]:
    wanted = {"training", "test"} if held == "test" else {"training", "validation"}
    official = [r["split"] != "test" or r["official_split"] == "test" for r in rows]
    ok = np.array([r["split"] in wanted and o for r, o in zip(rows, official, strict=True)])
    sick = np.array([str(r["label_pneumonia"]) == "1" for r in rows])
    folds = np.where([r["split"] == "training" for r in rows], -1, 0)
    bacterial, patients = np.array([str(r["label_bacterial"]) == "1" for r in rows]), _patients(rows)

    def task(name: str, label: np.ndarray, which: np.ndarray) -> Task:
        places = np.flatnonzero(which)
        return Task("kermany", places, {name: label[places]}, patients[places], folds[places])

    return {
        "kermany": task("pneumonia", sick, ok),
        "kermany_pneumonia": task("bacterial", bacterial, ok & sick),
    }


def _folded(films: str, rows: Rows, column: str, name: str, everything: bool) -> Task:
    places = np.array([i for i, row in enumerate(rows) if everything or row["split"] == "training"])
    label = np.array([str(rows[i][column]) == "1" for i in places])
    patients = _patients(rows)[places]
    return Task(films, places, {name: label}, patients, _stratified(label.astype(int), patients))


def _split(films: str, rows: Rows, column: str, name: str) -> Task:
    """Fitted to the training part, scored on the validation part."""
    folds = np.where([row["split"] == "training" for row in rows], -1, 0)
    label = np.array([str(row[column]) == "1" for row in rows])
    return Task(films, np.arange(len(rows)), {name: label}, _patients(rows), folds)


def _ratio(rows: Rows, test: bool) -> Task:
    """Cardiothoracic ratio: folds of the training part, or fitted to it and scored on the validation part."""
    known = [i for i, row in enumerate(rows) if row.get("label_cardiothoracic_ratio")]
    places = np.array([i for i in known if test or rows[i]["split"] == "training"])
    chosen = [rows[i] for i in places]
    fitted_to = np.array([row["split"] == "training" for row in chosen])
    folds = np.where(fitted_to, -1, 0) if test else np.arange(len(chosen)) % FOLDS
    ratio = np.array([float(row["label_cardiothoracic_ratio"]) for row in chosen])
    return Task("wingspan", places, {"ratio": ratio}, _patients(chosen), folds)
