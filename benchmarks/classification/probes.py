"""Frozen starts, read by logistic regression and by neighbours: seconds a row, for any share of the labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.learning.benchmark import append_row, config_hash, read_rows
from benchmarks.learning.descriptors import Descriptor, encoder_tokens
from benchmarks.learning.experiment import FIXED
from benchmarks.learning.probes import nearest_scores
from cxw_monai.io import read_radiograph
from cxw_monai.metrics.classification import Score
from cxw_monai.metrics.probes import bootstrap_weights, grouped_auroc
from cxw_monai.metrics.readings import COMPONENTS, linear_scores
from cxw_monai.tasks.classification.items import classification_splits, labelled_items
from cxw_monai.training.precision import autocast
from cxw_monai.transforms.whole_film import whole_film
from cxw_monai.weights.classifier import classifier_settings, new_classifier

from .films import TASKS

__all__ = ["READINGS", "Films", "probe", "read_labels"]

SIDE = 160
DRAWS = 1000
BATCH = 128
READINGS = ("linear", "knn")
Row = dict[str, Any]
Item = dict[str, Any]


def descriptor_of(start: str) -> Descriptor:
    """A descriptor by its name in `FIXED`, or the encoder of a file; `none` has random weights."""
    if start in FIXED:
        return FIXED[start]
    size = "tiny" if start == "none" else None
    settings = classifier_settings(["any"], image_size=SIDE, size=size, encoder_ckpt=start)
    torch.manual_seed(0)
    return encoder_tokens(new_classifier(settings, start).encoder)


class Films:
    """The films of one task, described once by each arm.

    Args:
        task: one of `TASKS`.
        manifests: folder of the manifests.
    """

    def __init__(self, task: str, manifests: Path) -> None:
        self.task, self.manifests, self.classes = task, manifests, TASKS[task].classes
        self.tests = {name: self._items(f"{task}_{name}") for name in TASKS[task].tests}

    def _items(self, name: str) -> list[Item]:
        return labelled_items(self.manifests / f"{name}.csv", self.classes)

    def parts(self, fraction: float, seed: int) -> dict[str, list[Item]]:
        """Films to learn from, as the bundle draws them, and those of each part that is scored."""
        split = classification_splits(
            self.manifests / f"{self.task}.csv", self.classes, splits="column", label_fraction=fraction, seed=seed
        )
        return {"train": split.train, "validation": split.validation, **self.tests}

    def vectors(self, descriptor: Descriptor) -> dict[str, np.ndarray]:
        """A vector of each film, by its file."""
        items = [item for part in self.parts(1.0, 0).values() for item in part]
        found: dict[str, np.ndarray] = {}
        for start in range(0, len(items), BATCH):
            files = [item["image"] for item in items[start : start + BATCH]]
            films = torch.stack([whole_film(read_radiograph(file, min_size=1).array, SIDE) for file in files])
            with autocast("cpu", "auto"):
                found.update(zip(files, descriptor(films).vector.astype(np.float32), strict=True))
        return found


def probe(films: Films, arm: str, start: str, table: Path, fractions: Sequence[float], seeds: Sequence[int]) -> None:
    """Read an arm's labels off the films of a task; rows that the table has are not computed again.

    Args:
        films: of the task.
        arm: its name in the table.
        start: see `descriptor_of`.
        table: CSV with a row a task, arm, reading, share, seed, label and part.
        fractions: shares of the training patients; one seed where that is 1.
        seeds: of the draws.
    """
    done = {(r["task"], r["run"], r["reading"], float(r["fraction"]), int(r["seed"])) for r in read_rows(table)}
    wanted = [(f, s) for f in fractions for s in (seeds if f < 1 else seeds[:1])]
    todo = [(r, f, s) for f, s in wanted for r in READINGS if (films.task, arm, r, f, s) not in done]
    if not todo:
        return
    vectors = films.vectors(descriptor_of(start))
    for reading, fraction, seed in todo:
        of = {"task": films.task, "reading": reading, "fraction": fraction, "seed": seed}
        for row in read_labels(films.parts(fraction, seed), vectors, films.classes, reading):
            config = config_hash({**of, "label": row["label"], "part": row["part"]})
            append_row(table, {"run": arm, "config": config, **of, **row})


def read_labels(
    parts: dict[str, list[Item]], vectors: dict[str, np.ndarray], classes: Sequence[str], reading: str
) -> list[Row]:
    """Fit to the part `train`, and score the others: a row a label and part; none of a label without both values.

    Args:
        parts: films by part, with `labels` as of `labelled_items`.
        vectors: of each film, by its `image`.
        classes: names of the labels.
        reading: one of `READINGS`.
    """
    items = [item for part in parts.values() for item in part]
    place = np.array([name for name, part in parts.items() for _ in part])
    values = np.stack([vectors[item["image"]] for item in items])
    patients = np.array([str(item["patient_id"]) for item in items])
    views = np.array([str(item.get("view") or "") for item in items])
    train, rows = place == "train", []
    wide = COMPONENTS if values.shape[1] > 4 * COMPONENTS else None
    for number, label in enumerate(classes):
        positive = np.array([item["labels"][number] == 1 for item in items])
        if len(np.unique(positive[train])) < 2:  # a small draw without a positive film
            continue
        scores = np.zeros(len(items))
        if reading == "linear":
            scores[~train] = linear_scores(values, positive, patients, train, components=wide)[0]
        else:
            scores[~train] = nearest_scores(values, positive[:, None], train)[:, 0]
        for part in list(parts)[1:]:
            at = place == part
            rows.append({"label": label, "part": part, **_scored(scores[at], positive[at], patients[at], views[at])})
    return rows


def _scored(scores: np.ndarray, positive: np.ndarray, patients: np.ndarray, views: np.ndarray) -> Row:
    """AUROC with its interval over patients, and that of pairs of films of one view."""
    weights = bootstrap_weights(patients, DRAWS)
    row: Row = {"films": len(scores), "positives": int(positive.sum())}
    for name, groups in {
        "auroc": np.zeros(len(scores), int),
        "within_view": np.unique(views, return_inverse=True)[1],
    }.items():
        found = Score.of(grouped_auroc(scores, positive, groups, weights))
        bounds = {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
        row |= {key: "" if one is None else f"{one:.4f}" for key, one in bounds.items()}
    return row
