"""What is a frozen encoder worth on films of other hospitals? Trains arms at equal processor time, a CSV row each.

Example:
    python -m benchmarks.learning.films --data DATA --output films.csv
    python -m benchmarks.learning.transfer --data DATA --films films.csv --output transfer --minutes 4 --seeds 0 1 2 \\
        --runs random pixels16 hog world_model pooled_mae shipped=bundles/chexworld_pretraining/models/model.pt

Runs are `random`, `pixels16`, `pixels32`, `hog`, any arm of --arms, or NAME=FILE for an encoder file. A run that has
its row is left as it is, a training that was stopped is resumed. Probes are fitted to and scored on training and
validation films; with --test on the films that decide nothing, with intervals, into another table.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from benchmarks.command import ended
from benchmarks.learning.benchmark import append_row, config_hash, read_rows
from benchmarks.learning.data import OutlinedFilms
from benchmarks.learning.descriptors import Descriptor, Features, encoder_tokens
from benchmarks.learning.experiment import BUNDLE, FIXED, IMAGE_PX, fresh_encoder
from benchmarks.learning.probes import few_shot_dice, nearest_scores, ridge_predictions
from benchmarks.learning.runs import Cost, pretrain
from benchmarks.learning.table import number
from benchmarks.learning.transfer_tasks import FilmSet, Task, film_sets, outlined_sets, tasks_of
from cxw_monai.metrics.readings import COMPONENTS, linear_scores
from cxw_monai.metrics.world.spread import embedding_statistics
from cxw_monai.training.precision import autocast
from cxw_monai.weights.encoder import load_encoder

__all__ = ["CHOSEN_BY", "Transfer", "main"]

BOOTSTRAP = 1000
SHOTS = 8
CHOSEN_BY = ("nih", "nih_within_view", "kermany", "kermany_pneumonia", "shenzhen")
"""Tasks whose mean AUROC, the column `choice`, arms are chosen by."""
SQUARE_ROOTS = {"rsna_normal": 74, "kermany": 68, "shenzhen": 24, "nih": 22, "rendered": 20, "wingspan": 12}
SQUARE_ROOTS |= {"hannover_covid": 12}
"""Shares of the sources where an arm gives none: square roots of their numbers of films."""
EPOCH_FILMS = 480
TITLES = {
    "nih": "NIH",
    "nih_within_view": "NIH within view",
    "kermany": "Kermany: pneumonia",
    "kermany_pneumonia": "bacterial",
    "shenzhen": "Shenzhen: TB",
}
KNN = ("nih", "kermany", "shenzhen")
DICE = {"dice_real_8": "Dice, 8 real films", "dice_rendered_8": "8 rendered films"}
Row = dict[str, Any]
Kept = dict[str, np.ndarray]

logger = logging.getLogger(__name__)


class Transfer:
    """The films, and what is read off them.

    Args:
        data: folder of the data sets, see `transfer_tasks.FOLDERS`.
        rendered: manifest of rendered films with outlines, that no training saw; or None.
        output: folder of decoded films and scores.
        test: read the test films.
    """

    def __init__(self, data: Path, rendered: Path | None, output: Path, test: bool) -> None:
        self.data, self.rendered, self.output, self.test = data, rendered, output, test

    @cached_property
    def sets(self) -> dict[str, FilmSet]:
        return film_sets(self.data, self.output / "probed", IMAGE_PX)

    @cached_property
    def tasks(self) -> dict[str, Task]:
        return tasks_of(self.sets, self.test)

    @cached_property
    def outlined(self) -> dict[str, OutlinedFilms]:
        return outlined_sets(self.data, self.rendered, self.test, IMAGE_PX)

    def evaluate(self, descriptor: Descriptor) -> tuple[Row, Kept]:
        """Metrics of a descriptor's vectors, and its scores by task and label."""
        row: Row = {}
        kept: Kept = {}
        described = {name: self._described(name, descriptor) for name in self.sets}
        for name, task in self.tasks.items():
            values = described[task.films].vector[np.isin(self.used[task.films], task.places)]
            row |= self._number(name, task, values) if name == "wingspan" else self._labels(name, task, values, kept)
        row["choice"] = float(np.mean([row[name] for name in CHOSEN_BY]))
        nih = described["nih"]
        for kind, values in {"tokens": nih.tokens, "pooled": nih.vector}.items():
            found = embedding_statistics(torch.from_numpy(values))["rank"] if nih.learnt else None
            row[f"rank_{kind}"] = found
        for name, films in self.outlined.items():
            dice = few_shot_dice(descriptor(films.images).tokens, films.masks, films.patients, SHOTS)
            row[f"dice_{name}_{SHOTS}"] = float(dice.mean())
            kept[f"dice_{name}_{SHOTS}"] = dice
        return row, kept

    def differences(self, ours: Kept, theirs: Kept) -> dict[str, tuple[float, float, float]]:
        """Mean AUROC of our scores less that of theirs by task, with its 95 % interval over the same patients."""
        found = {}
        for name, task in self.tasks.items():
            probes = [p for p in ("", "_knn") if all(f"{name}{p}_{label}" in ours for label in task.labels)]
            for probe in probes:
                one, other = (
                    np.mean([task.aurocs(kept[f"{name}{probe}_{label}"], label, BOOTSTRAP) for label in task.labels], 0)
                    for kept in (ours, theirs)
                )
                gap = one - other
                low, high = np.nanquantile(gap[1:], (0.025, 0.975))
                found[f"{name}{probe}"] = (float(gap[0]), float(low), float(high))
        return found

    @cached_property
    def used(self) -> dict[str, np.ndarray]:
        """Places of the films of each set that a task reads."""
        places: dict[str, list[np.ndarray]] = {}
        for task in self.tasks.values():
            places.setdefault(task.films, []).append(task.places)
        return {name: np.unique(np.concatenate(parts)) for name, parts in places.items()}

    def _described(self, name: str, descriptor: Descriptor) -> Features:
        return descriptor(self.sets[name].images[self.used[name]].float() / 255)

    def _labels(self, name: str, task: Task, values: np.ndarray, kept: Kept) -> Row:
        draws = BOOTSTRAP if self.test else 0
        wide = COMPONENTS if values.shape[1] > 4 * COMPONENTS else None
        found: dict[str, dict[str, np.ndarray]] = {"": {}, "_knn": {}}
        for label, positive in task.labels.items():
            scores = {"": np.zeros(len(values)), "_knn": np.zeros(len(values))}
            for fold in np.unique(task.folds[task.scored]):
                train = task.folds != fold
                scores[""][~train] = linear_scores(values, positive, task.patients, train, components=wide)[0]
                if self.test:
                    scores["_knn"][~train] = nearest_scores(values, positive[:, None], train)[:, 0]
            for probe in scores if self.test else ("",):
                found[probe][label] = task.aurocs(scores[probe], label, draws)
                kept[f"{name}{probe}_{label}"] = scores[probe]
        row: Row = {}
        for probe, aurocs in found.items():
            if aurocs:
                means = np.mean(list(aurocs.values()), axis=0)
                row[f"{name}{probe}"] = float(means[0])
                if draws:
                    low, high = np.nanquantile(means[1:], (0.025, 0.975))
                    row |= {f"{name}{probe}_low": float(low), f"{name}{probe}_high": float(high)}
                if len(aurocs) > 1:
                    row |= {f"{name}{probe}_{label}": float(values[0]) for label, values in aurocs.items()}
        return row

    @staticmethod
    def _number(name: str, task: Task, values: np.ndarray) -> Row:
        wanted = task.labels["ratio"]
        guessed = np.zeros(len(values))
        for fold in np.unique(task.folds[task.scored]):
            train = task.folds != fold
            guessed[~train] = ridge_predictions(values, wanted, train, COMPONENTS)
        error = (guessed - wanted)[task.scored]
        spread = wanted[task.scored].var()
        return {f"{name}_error": float(np.abs(error).mean()), f"{name}_r2": float(1 - np.square(error).mean() / spread)}


def settings_of(name: str, arms: dict[str, Any], minutes: float, seed: int) -> Row:
    """What makes a run, for its hash.

    Raises:
        ValueError: for an unknown name.
    """
    if name in FIXED or name == "random":
        return {"kind": name, "seed": seed}
    if "=" in name:
        return {"kind": "file", "file": name.split("=", 1)[1], "seed": seed}
    if name not in arms:
        raise ValueError(f"No arm {name!r}; there are {sorted(n for n in arms if n[0] != '_')}, and {[*FIXED]}.")
    return {"kind": "arm", "arm": arms[name], "minutes": minutes, "seed": seed}


def train_arm(
    arm: dict[str, Any], films: Path, folder: Path, cache: Path, minutes: float, seed: int
) -> tuple[Path, Cost]:
    """Train an arm for so many processor minutes; its encoder's file and cost."""
    arm = {"source_shares": SQUARE_ROOTS, "epoch_films": EPOCH_FILMS, **arm}
    presets = ("learning_base", *arm.pop("presets", ()))
    sources = {row["source"] for row in read_rows(films)}
    if start := arm.pop("start_from", None):
        arm["start_from"] = str(BUNDLE / start)
    arm["source_shares"] = {name: share for name, share in arm["source_shares"].items() if name in sources}
    settings = {"seed": seed, "cache_dir": str(cache.resolve()), "datalist": str(films.resolve()), **arm}
    return pretrain(BUNDLE, presets, folder, settings, 60 * minutes)


def encoder_descriptor(path: str | Path, deviation: bool = False) -> Descriptor:
    """Tokens of an encoder file, and their mean (and deviation) as the vector."""
    describe = encoder_tokens(load_encoder(path).encoder, deviation=deviation)

    def described(images: torch.Tensor) -> Features:
        with autocast("cpu", "auto"):
            return describe(images)

    return described


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets")
    parser.add_argument("--films", type=Path, help="manifest of the films to train on, of benchmarks.learning.films")
    parser.add_argument("--outlines", type=Path, help="manifest of rendered films with outlines, none of --films")
    parser.add_argument("--output", type=Path, required=True, help="folder to make or continue")
    parser.add_argument("--arms", type=Path, default=BUNDLE / "configs" / "transfer_arms.yaml")
    parser.add_argument("--runs", nargs="+", default=[], help="what to run, in order")
    parser.add_argument("--minutes", type=float, default=4.0, help="processor minutes of a training (default 4)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--test", action="store_true", help="read the test films, which decide nothing")
    parser.add_argument("--train-only", action="store_true", help="train and read nothing off")
    parser.add_argument(
        "--deviation", action="store_true", help="read encoder files by mean and deviation of the tokens"
    )
    parser.add_argument("--compare", nargs=2, metavar=("A", "B"), help="print A less B, paired over the patients")
    parser.add_argument("--show", action="store_true", help="print the table as Markdown")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    a = parse_arguments(argv)
    return ended(lambda: _work(a))


def _work(a: argparse.Namespace) -> None:
    arms = yaml.safe_load(a.arms.read_text())
    todo = [(name, seed) for name in a.runs for seed in a.seeds]
    for name, seed in todo:
        settings_of(name, arms, a.minutes, seed)  # a wrong name is refused before anything is trained
    transfer = Transfer(a.data, a.outlines, a.output, a.test)
    for name, seed in todo:
        _run(a, arms, transfer, name, seed)
    if a.compare:
        for name, values in transfer.differences(*(_scores(a, run) for run in a.compare)).items():
            print("{}: {:+.3f} [{:+.3f}, {:+.3f}]".format(name, *values))
    if a.show:
        print(markdown(read_rows(_table(a)), a.test))


def _scores(a: argparse.Namespace, run: str) -> Kept:
    """Scores of a run of the table, its first seed."""
    config = next((row["config"] for row in read_rows(_table(a)) if row["run"] == run), None)
    if config is None:
        raise ValueError(f"{_table(a)} has no row of {run!r}: give it to --runs first.")
    with np.load(_scores_file(a, run, config), allow_pickle=False) as file:
        return dict(file)


def _scores_file(a: argparse.Namespace, run: str, config: str) -> Path:
    return a.output / "scores" / f"{'test' if a.test else 'validation'}_{run}_{config}.npz"


def _table(a: argparse.Namespace) -> Path:
    return a.output / ("test.csv" if a.test else "validation.csv")


def markdown(rows: Sequence[Mapping[str, str]], test: bool) -> str:
    """One line a run: AUROC of each task (with its interval, and of neighbours, on test films), ratio, rank, Dice."""
    shown = dict(TITLES)
    if test:
        shown |= {f"{name}_knn": f"{title}, k-NN" for name, title in TITLES.items() if name in KNN}
    numbers = {"wingspan_error": "ratio off by", "rank_pooled": "rank", **DICE}
    lines = ["| " + " | ".join(["run", "seed", *shown.values(), *numbers.values()]) + " |"]
    lines.append("| --- " * (2 + len(shown) + len(numbers)) + "|")
    for row in rows:
        cells = [row["run"], row["seed"]]
        for name in shown:
            low, high = (number(row, f"{name}_{end}", ".3f") for end in ("low", "high"))
            cells.append(number(row, name, ".3f") + ("" if low == "-" else f" [{low}, {high}]"))
        cells += [number(row, name, ".1f" if name == "rank_pooled" else ".3f") for name in numbers]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _run(a: argparse.Namespace, arms: dict[str, Any], transfer: Transfer, name: str, seed: int) -> None:
    table = _table(a)
    settings = settings_of(name, arms, a.minutes, seed) | ({"deviation": True} if a.deviation and "=" in name else {})
    config, shown = config_hash(settings), name.split("=", 1)[0]
    if any(row["run"] == shown and row["config"] == config for row in read_rows(table)):
        logger.info("%s has its row (%s).", shown, config)
        return
    cost: Cost = {}
    if name in FIXED:
        descriptor = FIXED[name]
    elif name == "random":
        descriptor = encoder_tokens(fresh_encoder(seed))
    elif "=" in name:
        descriptor = encoder_descriptor(name.split("=", 1)[1], a.deviation)
    else:
        folder = a.output / "runs" / f"{name}_{config}"
        path, cost = train_arm(arms[name], a.films, folder, a.output / "cache", a.minutes, seed)
        descriptor = encoder_descriptor(path)
    if a.train_only:
        return
    metrics, kept = transfer.evaluate(descriptor)
    scores = _scores_file(a, shown, config)
    scores.parent.mkdir(parents=True, exist_ok=True)
    np.savez(scores, **kept)
    spent = {key: round(cost.get(key, 0)) for key in ("processor_seconds", "images_seen")}
    append_row(table, {"run": shown, "config": config, "seed": seed, **spent, **metrics})
    logger.info("%s, seed %d: %s", shown, seed, {name: round(metrics[name], 3) for name in ("choice", *CHOSEN_BY)})


if __name__ == "__main__":
    sys.exit(main())
