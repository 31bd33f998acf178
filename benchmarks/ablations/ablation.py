"""One row of the ablations: a short pretraining, the frozen probes, and the tests of its predictor and encoder."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from benchmarks.learning.benchmark import Benchmark, append_row, config_hash, read_rows
from benchmarks.learning.data import LabelledFilms, labelled_films, read_split
from benchmarks.learning.descriptors import encoder_tokens
from benchmarks.learning.runs import pretrain, write_training_manifest
from cxw_monai.metrics.world.encoding import localizability_scores, position_scores
from cxw_monai.metrics.world.films import WorldFilms, read_world_films
from cxw_monai.metrics.world.prediction import domain_scores, layout_scores, local_scores
from cxw_monai.metrics.world.scores import WorldScore
from cxw_monai.metrics.world.worlds import ModelWorld
from cxw_monai.networks import WorldModel
from cxw_monai.tasks.pretraining.components import network_to_load
from cxw_monai.tasks.pretraining.settings import PretrainingSettings
from cxw_monai.weights.bundles import find_bundle
from cxw_monai.weights.encoder import load_weights

__all__ = ["RANDOM", "ROWS", "Ablations", "world_metrics"]

BUNDLE = find_bundle("chexworld_pretraining").resolve()
ROWS = Path(__file__).with_name("rows.yaml")
RANDOM = "random"
"""The row of a network that has learned nothing."""
METRICS = {
    "domain": (domain_scores, "domain", "recall@5", "action given"),
    "domain_withheld": (domain_scores, "domain", "recall@5", "action withheld"),
    "layout": (layout_scores, "layout", "mean reciprocal rank", "geometry given"),
    "layout_withheld": (layout_scores, "layout", "mean reciprocal rank", "no geometry"),
    "local": (local_scores, "local, other patients", "mean reciprocal rank", "film given"),
    "position": (position_scores, "position", "R2 of the column", "token"),
    "places": (localizability_scores, "localizability", "accuracy of the place", "embedding"),
}
"""Columns of the table: the test, and which of its scores."""

SLOW, MOST_FILMS = (domain_scores, layout_scores), 8
"""Tests that take a hundred crops or exposures of each film, and how many films they look at."""

logger = logging.getLogger(__name__)


def world_metrics(world: ModelWorld, films: WorldFilms, seed: int = 0) -> dict[str, float | None]:
    """The scores of `METRICS`; None for what the model does not predict."""
    few, tests = films.first(MOST_FILMS), dict.fromkeys(test for test, *_ in METRICS.values())
    found: dict[Any, list[WorldScore]] = {test: test(world, few if test in SLOW else films, seed) for test in tests}
    values: dict[str, float | None] = {}
    for name, (test, *wanted) in METRICS.items():
        means = [float(np.nanmean(s.values)) for s in found[test] if [s.test, s.measure, s.condition] == wanted]
        values[name] = means[0] if means else None
    return values


@dataclass(frozen=True)
class Ablations:
    """Where films and results are.

    Attributes:
        nih: manifest with the NIH films of the learning benchmark's split: 499 to learn from, 251 to test on.
        output: folder to make or continue.
        rows_file: YAML of the rows.
        overrides: settings of all rows, after the row's own.
        world_films: test films that the tests of the world model look at.
    """

    nih: Path
    output: Path
    rows_file: Path = ROWS
    overrides: Mapping[str, Any] | None = None
    world_films: int = 24

    @cached_property
    def rows(self) -> dict[str, dict[str, Any]]:
        """By name: `presets`, and the settings that the row changes."""
        read = yaml.safe_load(self.rows_file.read_text(encoding="utf-8"))
        base = read.pop("_base", {})
        extra = dict(self.overrides or {})
        return {RANDOM: {**base, **extra}} | {name: {**base, **row, **extra} for name, row in read.items()}

    @property
    def table(self) -> Path:
        return self.output / "ablations.csv"

    def settings(self, name: str, seed: int) -> dict[str, Any]:
        """Settings of a row, those of its presets first.

        Raises:
            ValueError: for an unknown name.
        """
        if name not in self.rows:
            raise ValueError(f"{self.rows_file}: no row {name!r}; it has {', '.join(self.rows)}")
        row = dict(self.rows[name])
        found: dict[str, Any] = {}
        for preset in ("learning_base", *row.pop("presets", ())):
            found |= yaml.safe_load((BUNDLE / "configs" / "presets" / f"{preset}.yaml").read_text(encoding="utf-8"))
        return found | row | {"seed": seed}

    @cached_property
    def films(self) -> LabelledFilms:
        """Of the split, at the size that the rows share."""
        return labelled_films(self.nih, int(self.settings(RANDOM, 0)["image_size"]))

    @cached_property
    def shown(self) -> WorldFilms:
        """Test films of the world model's tests, drawn once."""
        films, size = self.films, int(self.settings(RANDOM, 0)["image_size"])
        items = [
            {"image": file, "patient_id": patient}
            for file, patient, train in zip(films.files, films.patients, films.train, strict=True)
            if not train
        ]
        return read_world_films(items, (size, size), self.world_films)

    def run(self, names: Iterable[str], seeds: int) -> None:
        """Make the rows that are not there, seed by seed; a training that was stopped is resumed."""
        wanted = [(name, seed) for seed in range(seeds) for name in names]
        configs = {one: self._config(*one) for one in wanted}  # a wrong name is refused before anything is trained
        for (name, seed), config in configs.items():
            if any((row["run"], row["config"]) == (name, config) for row in read_rows(self.table)):
                logger.info("%s, seed %d has its row.", name, seed)
                continue
            append_row(self.table, {"run": name, "config": config, "seed": seed, **self._measured(name, seed, config)})
            logger.info("%s, seed %d is done.", name, seed)

    def finished(self) -> list[dict[str, str]]:
        """Rows of the table that were made with these settings."""
        return [
            row
            for row in read_rows(self.table)
            if row["run"] in self.rows and row["config"] == self._config(row["run"], int(row["seed"]))
        ]

    def _config(self, name: str, seed: int) -> str:
        return config_hash(
            {
                "settings": self.settings(name, seed),
                "split": read_split(),
                "world_films": self.world_films,
                "trained": name != RANDOM,
            }
        )

    def _measured(self, name: str, seed: int, config: str) -> dict[str, Any]:
        model, cost = self._model(name, seed, config)
        world = ModelWorld(model, "none")
        metrics, _ = Benchmark(self.films, {}).evaluate(encoder_tokens(world.encoder))
        return {key: round(cost.get(key, 0)) for key in ("processor_seconds", "images_seen")} | {
            **metrics,
            **world_metrics(world, self.shown),
        }

    def _model(self, name: str, seed: int, config: str) -> tuple[WorldModel, Mapping[str, float]]:
        folder = (self.output / "runs" / f"{name}_{config}").resolve()
        settings = self.settings(name, seed)
        read = PretrainingSettings(**settings, output_dir=str(folder))
        if name == RANDOM:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                return network_to_load(read), {}
        films = write_training_manifest(folder / "films.csv", self.films)
        places = {"datalist": str(films), "cache_dir": str((self.output / "cache").resolve())}
        encoder, cost = pretrain(BUNDLE, (), folder, {**settings, **places}, epochs=int(settings["epochs"]))
        model = network_to_load(read)
        load_weights(model, encoder.with_name("model.pt"))
        return model, cost
