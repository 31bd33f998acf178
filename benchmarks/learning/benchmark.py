"""The learning benchmark: is an encoder worth having? Fixed films, fixed probes, one row a run.

Every row holds the same network (or what stands in its place) after some training of known cost, probed frozen.
Metrics are AUROC on the test films, means over five labels; intervals resample the test patients.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import StratifiedGroupKFold

from cxw_monai.io.files import csv_files
from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.files.own_files import own_lock
from cxw_monai.metrics.probes import bootstrap_weights, grouped_auroc
from cxw_monai.metrics.readings import COMPONENTS, attentive_scores, grid_pooled, linear_scores
from cxw_monai.metrics.world.spread import embedding_statistics

from .data import LABELS, STRUCTURES, LabelledFilms, OutlinedFilms
from .descriptors import Descriptor, Features
from .probes import few_shot_dice, nearest_scores, ridge_predictions

__all__ = ["Benchmark", "append_row", "config_hash", "read_rows"]

BOOTSTRAP = 1000
SHOTS = (8, 24)
FILM_SETS = ("drr", "real")
FOLDS = 5
Row = dict[str, Any]


@dataclass(frozen=True)
class Benchmark:
    """What is probed, the same for every row.

    Attributes:
        films: labelled films.
        outlined: films with outlines by name: `drr` rendered ones, `real` those of people.
    """

    films: LabelledFilms
    outlined: Mapping[str, OutlinedFilms]

    def evaluate(self, descriptor: Descriptor) -> tuple[Row, dict[str, np.ndarray]]:
        """Probe a descriptor.

        Returns:
            The row's metrics, and what paired comparisons need: scores `[N of test, 5]` by probe, and Dice
            `[repeats, 3]` by film set and shots.
        """
        films, train = self.films, self.films.train
        described = descriptor(films.images)
        scores = self._scores(described, train)
        row: Row = {}
        for probe, values in scores.items():
            row |= self._aurocs(probe, values)
        grid = grid_pooled(described.tokens)
        grown = ridge_predictions(grid, films.ages, train, COMPONENTS)
        error = grown - films.ages[~train]
        row["age_mae"] = float(np.abs(error).mean())
        row["age_r2"] = float(1 - np.square(error).mean() / films.ages[~train].var())
        kept = dict(scores)
        for name, outlined in self.outlined.items():
            tokens = descriptor(outlined.images).tokens
            for shots in SHOTS:
                dice = few_shot_dice(tokens, outlined.masks, outlined.patients, shots)
                kept[f"dice_{name}_{shots}"] = dice
                row[f"dice_{name}_{shots}"] = float(dice.mean())
                row[f"dice_{name}_{shots}_sd"] = float(dice.mean(axis=1).std(ddof=1))
                row |= {f"dice_{name}_{shots}_{s}": float(d) for s, d in zip(STRUCTURES, dice.mean(0), strict=True)}
        row |= self._ranks(described)
        return row, kept

    def folds(self) -> np.ndarray:
        """Number `[N]` of each film's fold: no patient in two, those with edema and with effusion spread evenly."""
        labels = dict(zip(LABELS, self.films.labels.T, strict=True))
        kind = np.where(labels["Edema"], 2, labels["Effusion"])
        found = np.zeros(len(kind), dtype=int)
        splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
        for number, (_, held_out) in enumerate(splitter.split(kind, kind, self.films.patients)):
            found[held_out] = number
        return found

    def fold_scores(self, descriptor: Descriptor) -> dict[str, np.ndarray]:
        """Probes fitted to four folds of all films, scores of the fifth: `[N, 5]` by probe."""
        described, folds = descriptor(self.films.images), self.folds()
        parts = {number: self._scores(described, folds != number) for number in range(FOLDS)}
        scores = {probe: np.zeros(self.films.labels.shape) for probe in parts[0]}
        for number, found in parts.items():
            for probe, values in found.items():
                scores[probe][folds == number] = values
        return scores

    def fold_aurocs(self, scores: np.ndarray) -> np.ndarray:
        """Mean AUROC `[1 + resamplings]` over pairs of films of one fold: of all films, then of resampled patients."""
        films, folds = self.films, self.folds()
        weights = _resampled(films.patients)
        found = [grouped_auroc(scores[:, i], films.labels[:, i], folds, weights) for i in range(len(LABELS))]
        return np.mean(found, axis=0)

    def _scores(self, described: Features, train: np.ndarray) -> dict[str, np.ndarray]:
        films = self.films

        def linear(values: np.ndarray, components: int | None) -> np.ndarray:
            fits = [linear_scores(values, one, films.patients, train, components=components) for one in films.labels.T]
            return np.stack([scores for scores, _ in fits], axis=1)

        wide = described.vector.shape[1] > COMPONENTS * 4
        return {
            "mean": linear(described.vector, COMPONENTS if wide else None),
            "grid": linear(grid_pooled(described.tokens), COMPONENTS),
            "attentive": attentive_scores(described.tokens, films.labels, train),
            "knn": nearest_scores(described.vector, films.labels, train),
        }

    def aurocs(self, scores: np.ndarray, resamplings: int = BOOTSTRAP) -> np.ndarray:
        """AUROC `[1 + resamplings, 5]` of scores `[N of test, 5]`: of the films, then of resampled test patients."""
        test = ~self.films.train
        weights = _resampled(self.films.patients[test], resamplings)
        one = np.zeros(weights.shape[1], dtype=int)
        labels = self.films.labels[test]
        return np.stack([grouped_auroc(scores[:, i], labels[:, i], one, weights) for i in range(len(LABELS))], axis=1)

    def _aurocs(self, probe: str, scores: np.ndarray) -> Row:
        found = self.aurocs(scores)
        means = found.mean(axis=1)
        low, high = np.nanquantile(means[1:], (0.025, 0.975))
        row: Row = {probe: float(means[0]), f"{probe}_low": float(low), f"{probe}_high": float(high)}
        return row | {f"{probe}_{name}": float(value) for name, value in zip(LABELS, found[0], strict=True)}

    def _ranks(self, described: Features) -> Row:
        if not described.learnt:
            return {"rank_tokens": None, "rank_pooled": None}
        test = ~self.films.train
        kinds = {"rank_tokens": described.tokens, "rank_pooled": described.vector}
        return {name: embedding_statistics(torch.from_numpy(values[test]))["rank"] for name, values in kinds.items()}

    def difference(self, ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float, float]:
        """Difference of the mean AUROC of two sets of scores, with its 95 % interval over the same patients."""
        spread = self.aurocs(ours).mean(axis=1) - self.aurocs(theirs).mean(axis=1)
        low, high = np.nanquantile(spread[1:], (0.025, 0.975))
        return float(spread[0]), float(low), float(high)


def _resampled(patients: np.ndarray, resamplings: int = BOOTSTRAP) -> np.ndarray:
    """Weights `[1 + resamplings, N]` of films: ones, then how often each film's patient was drawn."""
    return bootstrap_weights(patients, resamplings)


def config_hash(config: Mapping[str, Any]) -> str:
    """First 12 digits of the SHA-256 of a configuration, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()[:12]


def read_rows(path: str | Path) -> list[dict[str, str]]:
    """Rows of a result file; none where there is none yet."""
    path = Path(path)
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return csv_files.read_rows(stream)


def append_row(path: str | Path, row: Row) -> None:
    """Add a row to a result file; one of the same `run` and `config` is replaced."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with own_lock(path.with_suffix(".lock"), "the output"):  # several processes may be at it
        same = (str(row["run"]), str(row["config"]))
        rows: list[Mapping[str, Any]] = [r for r in read_rows(path) if (r["run"], r["config"]) != same]
        rows.append({key: f"{value:.4f}" if isinstance(value, float) else value for key, value in row.items()})
        columns = list(dict.fromkeys(name for each in rows for name in each))
        with atomic_file(path, "w", newline="", encoding="utf-8") as stream:
            csv_files.write_rows(stream, columns, rows)
