"""Is an encoder worth having? Trains arms at equal processor time, probes them frozen, a CSV row each.

Example:
    python scripts/learning_benchmark.py --nih nih_cxr14_subset/manifest.csv --rendered drr/manifest.csv \\
        --real covid_ieee8023_cc/manifest.csv --output learning --minutes 6 --runs random pixels16 hog mae wm_anchor

Runs are `random`, `pixels16`, `pixels32`, `hog`, `supervised`, any arm of --arms, or NAME=FILE for an encoder file. A
run that has its row is left as it is, a training that was stopped goes on. `--compare A B` prints the paired difference
of the frozen probes of two runs, `--all-films A B ...` probes runs in five patient-disjoint folds of training and test
films together: narrower intervals, at the price that the trainings saw two thirds of the films, without their labels.
"""

from __future__ import annotations

import argparse
import logging
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # benchmarks/ stands beside scripts/, in no wheel

from benchmarks.learning.benchmark import Benchmark, append_row, averaged, config_hash, read_rows
from benchmarks.learning.data import labelled_films, outlined_films, read_split
from benchmarks.learning.runs import Cost, pretrain, train_supervised, write_training_manifest
from benchmarks.learning.table import draw_curves, draw_rows, markdown
from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.files.printable import printable
from cxw_monai.metrics.token_descriptors import Descriptor, encoder_tokens, gradient_histograms, pixels
from cxw_monai.networks import RadiographViT, radiograph_vit
from cxw_monai.training.errors import plain_message, root_cause
from cxw_monai.weights.bundles import find_bundle
from cxw_monai.weights.encoder import load_weights

BUNDLE = find_bundle("chexworld_pretraining").resolve()
FIXED = {"pixels16": partial(pixels, 16), "pixels32": partial(pixels, 32), "hog": lambda: gradient_histograms}
IMAGE_PX = 160
TRAINED_PROBES = ("mean", "grid", "attentive")
PROBES = (*TRAINED_PROBES, "knn")

logger = logging.getLogger(__name__)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nih", type=Path, required=True, help="manifest with the NIH films of the split")
    parser.add_argument("--rendered", type=Path, required=True, help="manifest of rendered films with outlines")
    parser.add_argument("--real", type=Path, required=True, help="manifest of real films with outlines, never learnt")
    parser.add_argument("--output", type=Path, required=True, help="folder to make or continue")
    parser.add_argument("--table", type=Path, help="CSV of the rows (default: OUTPUT/learning.csv)")
    parser.add_argument("--arms", type=Path, default=BUNDLE / "configs" / "learning_arms.yaml")
    parser.add_argument("--runs", nargs="+", default=[], help="what to run, in order")
    parser.add_argument("--minutes", type=float, default=6.0, help="processor minutes of a training (default 6)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compare", nargs=2, metavar=("A", "B"), help="two run folders' names in OUTPUT/scores")
    parser.add_argument("--all-films", nargs="+", default=[], metavar="RUN", help="runs to probe in folds of all films")
    parser.add_argument("--show", type=Path, metavar="PNG", help="print all rows as Markdown and draw them")
    parser.add_argument(
        "--curves", type=Path, metavar="PNG", help="draw the trainings of --runs instead of making them"
    )
    return parser.parse_args(argv)


def read_benchmark(a: argparse.Namespace) -> Benchmark:
    """The films, decoded once into the output folder."""
    outlined = {"drr": outlined_films(a.rendered, IMAGE_PX), "real": outlined_films(a.real, IMAGE_PX)}
    return Benchmark(labelled_films(a.nih, IMAGE_PX), outlined)


def fresh_encoder(seed: int, patch_size: int = 16) -> RadiographViT:
    """ViT-Tiny at 160 px with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return radiograph_vit("tiny", image_size=IMAGE_PX, patch_size=patch_size)


def settings_of(name: str, arms: dict[str, Any], a: argparse.Namespace) -> dict[str, Any]:
    """What makes a run, for its hash: the same settings, the same hash.

    Raises:
        ValueError: for an unknown name.
    """
    common = {"seed": a.seed, "split": config_hash(read_split())}
    if name in FIXED or name == "random":
        return {"kind": name, **common}
    if "=" in name:
        return {"kind": "file", "file": name.split("=", 1)[1], **common}
    if name == "supervised":
        return {"kind": name, "minutes": a.minutes, **common}
    if name not in arms:
        raise ValueError(f"{a.arms}: no arm {name!r}; it has {sorted(arms)}, and there are {[*FIXED]}.")
    presets = ("learning_base", *arms[name].get("presets", ()))
    base = {preset: (BUNDLE / "configs" / "presets" / f"{preset}.yaml").read_text() for preset in presets}
    return {"kind": "arm", "minutes": a.minutes, "arm": arms[name], "base": config_hash(base), **common}


def run_folder(name: str, arms: dict[str, Any], a: argparse.Namespace) -> Path:
    """Where an arm is trained."""
    return (a.output / "runs" / f"{name}_{config_hash(settings_of(name, arms, a))}").resolve()


def train_arm(name: str, arms: dict[str, Any], benchmark: Benchmark, a: argparse.Namespace) -> tuple[Path, Cost]:
    """Train an arm (and first the one that it starts from); its encoder's file and cost."""
    arm = dict(arms[name])
    presets = ("learning_base", *arm.pop("presets", ()))
    minutes = arm.pop("minutes", a.minutes)
    settings: dict[str, Any] = {"seed": a.seed, "cache_dir": str((a.output / "cache").resolve())}
    before: Cost = {"processor_seconds": 0.0, "images_seen": 0.0}
    if (start := arm.pop("start_from_arm", None)) is not None:
        encoder, before = train_arm(start, arms, benchmark, a)
        settings["start_from"] = str(encoder.resolve())
    others = [a.rendered] if arm.pop("add_rendered", False) else []
    share = arm.pop("share_of_films", 1.0)
    folder = run_folder(name, arms, a)
    settings["datalist"] = str(write_training_manifest(folder / "films.csv", benchmark.films, others, share))
    encoder, cost = pretrain(BUNDLE, presets, folder, settings | arm, 60 * minutes)
    return encoder, {key: cost[key] + before.get(key, 0) for key in ("processor_seconds", "images_seen")}


def made(name: str, arms: dict[str, Any], benchmark: Benchmark, a: argparse.Namespace) -> tuple[Descriptor, Cost]:
    """The descriptor of a run and what it took."""
    if name in FIXED:
        return FIXED[name](), {}
    encoder, cost = fresh_encoder(a.seed), {}
    if name == "supervised":
        cost = train_supervised(encoder, benchmark.films, 60 * a.minutes, seed=a.seed)
    elif "=" in name:
        load_weights(encoder, name.split("=", 1)[1])
    elif name != "random":
        path, cost = train_arm(name, arms, benchmark, a)
        encoder = load_weights(fresh_encoder(a.seed, arms[name].get("patch_size", 16)), path)
    return encoder_tokens(encoder), cost


def run(name: str, arms: dict[str, Any], benchmark: Benchmark, a: argparse.Namespace) -> None:
    """Make a run's row where there is none."""
    table = a.table or a.output / "learning.csv"
    shown, config = name.split("=", 1)[0], config_hash(settings_of(name, arms, a))
    if any(row["run"] == shown and row["config"] == config for row in read_rows(table)):
        logger.info("%s has its row (%s).", shown, config)
        return
    descriptor, cost = made(name, arms, benchmark, a)
    metrics, kept = benchmark.evaluate(descriptor)
    scores = f"{shown}_seed{a.seed}" if a.seed else shown
    with atomic_file(a.output / "scores" / f"{scores}.npz") as stream:
        np.savez(stream, **kept)
    spent = {key: round(cost.get(key, 0)) for key in ("processor_seconds", "images_seen")}
    append_row(table, {"run": shown, "config": config, "seed": a.seed, **spent, **metrics})
    logger.info("%s: %s", shown, {probe: round(metrics[probe], 3) for probe in PROBES})


def compare(first: str, second: str, benchmark: Benchmark, a: argparse.Namespace) -> None:
    """Print paired differences of two runs."""
    ours, theirs = (np.load(a.output / "scores" / f"{name}.npz", allow_pickle=False) for name in (first, second))
    line = "{}: {:+.3f} [{:+.3f}, {:+.3f}]"
    for probe in PROBES:
        print(line.format(probe, *benchmark.difference(ours[probe], theirs[probe])))
    one, other = (averaged([scores[probe] for probe in TRAINED_PROBES]) for scores in (ours, theirs))
    print(line.format(f"ranks by {', '.join(TRAINED_PROBES)} averaged", *benchmark.difference(one, other)))
    both = benchmark.difference(averaged([one, other]), other)
    print(line.format(f"{first} and {second} averaged, less {second} alone", *both))
    for name in (n for n in ours.files if n.startswith("dice")):
        gap = (ours[name] - theirs[name]).mean(axis=1)
        print(f"{name}: {gap.mean():+.3f} (splits {gap.min():+.3f} to {gap.max():+.3f})")


def probe_all_films(names: list[str], arms: dict[str, Any], benchmark: Benchmark, a: argparse.Namespace) -> None:
    """Print the mean AUROC of runs in folds of all films, and how much more it is than that of each run before."""
    line, found = "{:+.3f} [{:+.3f}, {:+.3f}]", {}
    for name in names:
        scores = benchmark.fold_scores(made(name, arms, benchmark, a)[0])
        found[name] = {probe: benchmark.fold_aurocs(scores[probe]) for probe in PROBES}
    for place, name in enumerate(names):
        for probe, means in found[name].items():
            low, high = np.quantile(means[1:], (0.025, 0.975))
            print(f"{name.split('=')[0]} {probe}: {means[0]:.3f} [{low:.3f}, {high:.3f}]")
            for other in names[:place]:
                best = max(TRAINED_PROBES, key=lambda each: found[other][each][0])
                for kind, against in (("same probe", probe), ("best probe", best)):
                    gap = means - found[other][against]
                    low, high = np.quantile(gap[1:], (0.025, 0.975))
                    print(f"    less {other.split('=')[0]}, {kind}: {line.format(gap[0], low, high)}")


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    a = parse_arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        arms = yaml.safe_load(a.arms.read_text())
        for name in (*a.runs, *a.all_films):
            settings_of(name, arms, a)
        if a.curves:
            draw_curves({name: run_folder(name, arms, a) / "metrics.csv" for name in a.runs}, a.curves)
            return 0
        benchmark = read_benchmark(a) if a.runs or a.compare or a.all_films else None
        for name in a.runs:
            run(name, arms, benchmark, a)
        if a.compare:
            compare(*a.compare, benchmark, a)
        if a.all_films:
            probe_all_films(a.all_films, arms, benchmark, a)
        if a.show:
            rows = read_rows(a.table or a.output / "learning.csv")
            print(markdown(rows))
            draw_rows(rows, a.show)
    except (OSError, ValueError, RuntimeError) as error:  # MONAI's RuntimeError around what a bundle raises
        message = plain_message(root_cause(error))
        if message is None:
            raise
        print(f"error: {printable(message)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
