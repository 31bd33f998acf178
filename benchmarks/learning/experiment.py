"""Runs of the learning benchmark: trains what has to be trained, probes it frozen, and compares."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from benchmarks.learning.benchmark import Benchmark, append_row, config_hash, read_rows
from benchmarks.learning.data import labelled_films, outlined_films, read_split
from benchmarks.learning.descriptors import Descriptor, encoder_tokens, gradient_histograms, pixels
from benchmarks.learning.runs import Cost, pretrain, train_supervised, write_training_manifest
from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.metrics.readings import averaged
from cxw_monai.networks import RadiographViT, radiograph_vit
from cxw_monai.weights.bundles import find_bundle
from cxw_monai.weights.encoder import load_weights

__all__ = ["BUNDLE", "Experiment"]

BUNDLE = find_bundle("chexworld_pretraining").resolve()
FIXED: dict[str, Descriptor] = {"pixels16": pixels(16), "pixels32": pixels(32), "hog": gradient_histograms}
IMAGE_PX = 160
TRAINED_PROBES = ("mean", "grid", "attentive")
PROBES = (*TRAINED_PROBES, "knn")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Experiment:
    """Where films and results are, and what a run costs.

    Attributes:
        nih: manifest with the NIH films of the split.
        rendered, real: manifests of films with outlines.
        output: folder to make or continue.
        table: CSV of the rows.
        arms_file: YAML of what each arm changes in the bundle's settings.
        minutes: processor time of a training.
        seed: of weights and trainings.
    """

    nih: Path
    rendered: Path
    real: Path
    output: Path
    table: Path
    arms_file: Path
    minutes: float
    seed: int

    @cached_property
    def arms(self) -> dict[str, Any]:
        return yaml.safe_load(self.arms_file.read_text())

    @cached_property
    def benchmark(self) -> Benchmark:
        """The films, read at first use."""
        outlined = {"drr": outlined_films(self.rendered, IMAGE_PX), "real": outlined_films(self.real, IMAGE_PX)}
        return Benchmark(labelled_films(self.nih, IMAGE_PX), outlined)

    def settings_of(self, name: str) -> dict[str, Any]:
        """What makes a run, for its hash: the same settings, the same hash.

        Raises:
            ValueError: for an unknown name.
        """
        common = {"seed": self.seed, "split": config_hash(read_split())}
        if name in FIXED or name == "random":
            return {"kind": name, **common}
        if "=" in name:
            return {"kind": "file", "file": name.split("=", 1)[1], **common}
        if name == "supervised":
            return {"kind": name, "minutes": self.minutes, **common}
        if name not in self.arms:
            raise ValueError(
                f"{self.arms_file}: no arm {name!r}; it has {sorted(self.arms)}, and there are {[*FIXED]}."
            )
        presets = ("learning_base", *self.arms[name].get("presets", ()))
        base = {preset: (BUNDLE / "configs" / "presets" / f"{preset}.yaml").read_text() for preset in presets}
        return {"kind": "arm", "minutes": self.minutes, "arm": self.arms[name], "base": config_hash(base), **common}

    def folder_of(self, name: str) -> Path:
        """Where an arm is trained."""
        return (self.output / "runs" / f"{name}_{config_hash(self.settings_of(name))}").resolve()

    def run(self, name: str) -> None:
        """Make a run's row where there is none."""
        shown, config = name.split("=", 1)[0], config_hash(self.settings_of(name))
        if any(row["run"] == shown and row["config"] == config for row in read_rows(self.table)):
            logger.info("%s has its row (%s).", shown, config)
            return
        descriptor, cost = self._descriptor(name)
        metrics, kept = self.benchmark.evaluate(descriptor)
        scores = f"{shown}_seed{self.seed}" if self.seed else shown
        with atomic_file(self.output / "scores" / f"{scores}.npz") as stream:
            np.savez(stream, **kept)
        spent = {key: round(cost.get(key, 0)) for key in ("processor_seconds", "images_seen")}
        append_row(self.table, {"run": shown, "config": config, "seed": self.seed, **spent, **metrics})
        logger.info("%s: %s", shown, {probe: round(metrics[probe], 3) for probe in PROBES})

    def compare(self, first: str, second: str) -> None:
        """Print paired differences of two runs."""
        ours, theirs = (np.load(self.output / "scores" / f"{name}.npz", allow_pickle=False) for name in (first, second))
        difference, line = self.benchmark.difference, "{}: {:+.3f} [{:+.3f}, {:+.3f}]"
        for probe in PROBES:
            print(line.format(probe, *difference(ours[probe], theirs[probe])))
        one, other = (averaged([scores[probe] for probe in TRAINED_PROBES]) for scores in (ours, theirs))
        print(line.format(f"ranks by {', '.join(TRAINED_PROBES)} averaged", *difference(one, other)))
        both = difference(averaged([one, other]), other)
        print(line.format(f"{first} and {second} averaged, less {second} alone", *both))
        for name in (n for n in ours.files if n.startswith("dice")):
            gap = (ours[name] - theirs[name]).mean(axis=1)
            print(f"{name}: {gap.mean():+.3f} (splits {gap.min():+.3f} to {gap.max():+.3f})")

    def probe_all_films(self, names: Sequence[str]) -> None:
        """Print the mean AUROC of runs in folds of all films, and how much more it is than that of each run before."""
        found: dict[str, dict[str, np.ndarray]] = {}
        for name in names:
            scores = self.benchmark.fold_scores(self._descriptor(name)[0])
            found[name] = {probe: self.benchmark.fold_aurocs(scores[probe]) for probe in PROBES}
        for place, name in enumerate(names):
            for probe, means in found[name].items():
                low, high = np.quantile(means[1:], (0.025, 0.975))
                print(f"{name.split('=')[0]} {probe}: {means[0]:.3f} [{low:.3f}, {high:.3f}]")
                for other in names[:place]:
                    best = max(TRAINED_PROBES, key=lambda each: found[other][each][0])  # noqa: B023
                    for kind, against in (("same probe", probe), ("best probe", best)):
                        gap = means - found[other][against]
                        low, high = np.quantile(gap[1:], (0.025, 0.975))
                        shown = f"{gap[0]:+.3f} [{low:+.3f}, {high:+.3f}]"
                        print(f"    less {other.split('=')[0]}, {kind}: {shown}")

    def _descriptor(self, name: str) -> tuple[Descriptor, Cost]:
        """The descriptor of a run and what it took."""
        if name in FIXED:
            return FIXED[name], {}
        encoder, cost = fresh_encoder(self.seed), {}
        if name == "supervised":
            cost = train_supervised(encoder, self.benchmark.films, 60 * self.minutes, seed=self.seed)
        elif "=" in name:
            load_weights(encoder, name.split("=", 1)[1])
        elif name != "random":
            path, cost = self._train_arm(name)
            encoder = fresh_encoder(self.seed, self.arms[name].get("patch_size", 16))
            load_weights(encoder, path)
        return encoder_tokens(encoder), cost

    def _train_arm(self, name: str) -> tuple[Path, Cost]:
        """Train an arm (and first the one that it starts from); its encoder's file and cost."""
        arm = dict(self.arms[name])
        presets = ("learning_base", *arm.pop("presets", ()))
        minutes = arm.pop("minutes", self.minutes)
        settings: dict[str, Any] = {"seed": self.seed, "cache_dir": str((self.output / "cache").resolve())}
        before: Cost = {"processor_seconds": 0.0, "images_seen": 0.0}
        if (start := arm.pop("start_from_arm", None)) is not None:
            encoder, before = self._train_arm(start)
            settings["start_from"] = str(encoder.resolve())
        others = [self.rendered] if arm.pop("add_rendered", False) else []
        share = arm.pop("share_of_films", 1.0)
        folder = self.folder_of(name)
        films = write_training_manifest(folder / "films.csv", self.benchmark.films, others, share)
        encoder, cost = pretrain(BUNDLE, presets, folder, {**settings, "datalist": str(films), **arm}, 60 * minutes)
        return encoder, {key: cost[key] + before.get(key, 0) for key in ("processor_seconds", "images_seen")}


def fresh_encoder(seed: int, patch_size: int = 16) -> RadiographViT:
    """ViT-Tiny at 160 px with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return radiograph_vit("tiny", image_size=IMAGE_PX, patch_size=patch_size)
