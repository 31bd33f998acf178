"""Rendered films to films of people: the segmentation bundle in several arms, splits and seeds, as one table.

Training on rendered films (DRRs) needs no manual label: the masks come from the CT. Each arm is the bundle's own
training with other settings; each run is a folder that is made once, so a stopped experiment is resumed.
"""

from __future__ import annotations

import csv
import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.command import training_workflow
from cxw_monai.data.manifest import read_datalist
from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.files.csv_files import write_rows

__all__ = ["Run", "few_shot_runs", "film_scores", "from_rendered_runs", "run_all", "summarise"]

STRUCTURES = ("lung_left", "lung_right", "mediastinum")
MASK_COLUMNS = {
    "mask_lung_left": ("mask_lung_left", "mask_lung_field_left", "mask_left_lung"),
    "mask_lung_right": ("mask_lung_right", "mask_lung_field_right", "mask_right_lung"),
    "mask_mediastinum": ("mask_mediastinum", "mask_cardiomediastinum"),
}
"""Columns of the preset that are scored, and what they are called in other manifests, the first that exists."""
UNSCORED = ("mask_heart", "mask_clavicle_left", "mask_clavicle_right")
"""Columns of the preset that are learnt from rendered films but need not be drawn on real ones."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """One training and its test.

    Attributes:
        group: experiment, a table of its own, such as `rendered` or `few_shot_8`.
        arm: row of the table.
        repeat: seed or split; the runs of the arms with the same repeat are compared with each other.
        overrides: settings of the bundle.
        presets: names of presets after `sim_to_real`.
    """

    group: str
    arm: str
    repeat: int
    overrides: Mapping[str, Any] = field(default_factory=dict)
    presets: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.group}/{self.arm}/{self.repeat}"


def annotated_manifest(datalist: str | Path) -> list[dict[str, Any]]:
    """Films of a manifest that have both lungs and mediastinum outlined, under the preset's column names.

    Raises:
        ValueError: no film has all three.
    """
    folder = Path(datalist).resolve().parent
    rows = []
    for item in read_datalist(datalist, section="all"):
        row = {"image": item["image"], "patient_id": item.get("patient_id") or ""}
        for column, names in MASK_COLUMNS.items():
            found = next((item[name] for name in names if item.get(name)), None)
            row[column] = str(folder / found) if found else ""
        row |= {column: str(folder / item[column]) if item.get(column) else "" for column in UNSCORED}
        if all(row[column] for column in MASK_COLUMNS):
            rows.append(row)
    if not rows:
        raise ValueError(f"{datalist}: no film has masks of both lungs and the mediastinum ({list(MASK_COLUMNS)}).")
    return rows


def write_manifest(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows with the same columns as a CSV manifest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path, "w", newline="", encoding="utf-8") as stream:
        write_rows(stream, list(rows[0]), rows)
    return path


def from_rendered_runs(
    rendered: str | Path,
    real: str | Path,
    encoders: Mapping[str, str | None],
    output: Path,
    seeds: int = 3,
    appearance: Iterable[str] = (),
) -> list[Run]:
    """Training on rendered films alone, test on all real ones.

    Args:
        rendered: manifest of rendered films (:mod:`cxw_monai.rendering`).
        real: manifest of real films with outlines.
        encoders: arm to checkpoint of a pretraining, None for random weights.
        output: folder of the experiment.
        seeds: runs of each arm.
        appearance: arms that are run with strong domain perturbations too, as `<arm>+appearance`.
    """
    tests = write_manifest(output / "real.csv", annotated_manifest(real))
    runs = []
    for seed in range(seeds):
        for arm, checkpoint in encoders.items():
            settings = {
                "datalist": str(Path(rendered).resolve()),
                "test_datalist": str(tests.resolve()),
                "encoder_ckpt": checkpoint or "none",
                "seed": seed,
            }
            runs.append(Run("rendered", arm, seed, settings))
            if arm in appearance:
                runs.append(Run("rendered", f"{arm}+appearance", seed, settings, ("film_appearance",)))
    return runs


def few_shot_runs(
    real: str | Path,
    encoders: Mapping[str, str | None],
    output: Path,
    shots: Sequence[int] = (4, 8, 16),
    splits: int = 5,
    steps: int = 150,
) -> list[Run]:
    """Training on a few real films, test on those of all other patients; no validation, the last step counts.

    Args:
        real, encoders, output: as in :func:`from_rendered_runs`.
        shots: numbers of training films, each of another patient.
        splits: random splits, the same for all arms.
        steps: optimiser steps of a run.
    """
    rows = annotated_manifest(real)
    patients = list(dict.fromkeys(row["patient_id"] or row["image"] for row in rows))
    runs = []
    for count in shots:
        for split in range(splits):
            order = np.random.default_rng([split, 20]).permutation(len(patients))
            chosen = {patients[i] for i in order[:count]}
            spare = patients[order[-1]]  # the bundle wants a validation set; it is not looked at
            named = []
            seen: set[str] = set()
            for row in rows:
                patient = row["patient_id"] or row["image"]
                if patient in chosen and patient in seen:
                    continue  # one film of each training patient
                seen.add(patient)
                part = "training" if patient in chosen else "validation" if patient == spare else "test"
                named.append({**row, "patient_id": patient, "split": part})
            manifest = write_manifest(output / f"few_shot_{count}_split_{split}.csv", named)
            batch = min(8, count)
            epochs = max(1, round(steps * batch / count))
            for arm, checkpoint in encoders.items():
                settings = {
                    "datalist": str(manifest.resolve()),
                    "structures": list(STRUCTURES),
                    "splits": "column",
                    "encoder_ckpt": checkpoint or "none",
                    "seed": split,
                    "batch_size": batch,
                    "epochs": epochs,
                    "warmup_epochs": epochs / 10,
                    "val_interval": epochs + 1,
                    "save_interval": epochs,
                }
                runs.append(Run(f"few_shot_{count}", arm, split, settings))
    return runs


def run_all(
    runs: Sequence[Run], bundle: str | Path, output: Path, settings: Mapping[str, Any] | None = None
) -> dict[str, dict[str, float]]:
    """Make the runs that are not there yet, one after the other.

    Args:
        runs: what to run; the folder of each is `output/runs/<name>`.
        bundle: folder of the segmentation bundle.
        output: folder of the experiment; the films' cache is shared.
        settings: overrides for all runs, such as `epochs`.

    Returns:
        Mean test Dice of each structure by run name (see :func:`film_scores`).
    """
    results = {}
    for number, run in enumerate(runs, start=1):
        folder = output / "runs" / run.name
        if not (folder / "test" / "films.csv").exists():
            logger.info("Run %d of %d: %s.", number, len(runs), run.name)
            workflow = training_workflow(
                Path(bundle),
                ("sim_to_real", *run.presets),
                folder,
                cache_dir=str((output / "cache").resolve()),
                resume=True,
                **{**run.overrides, **(settings or {})},
            )
            workflow.initialize()
            workflow.run()
            workflow.finalize()
        results[run.name] = film_scores(folder / "test" / "films.csv")
    return results


def film_scores(path: Path) -> dict[str, float]:
    """Mean Dice of each structure, and `lungs`, the mean of both, from the films' CSV of a test."""
    columns: dict[str, list[float]] = defaultdict(list)
    with path.open(newline="") as stream:
        for row in csv.DictReader(stream):
            for name in STRUCTURES:
                if row.get(f"dice_{name}"):
                    columns[name].append(float(row[f"dice_{name}"]))
    means = {name: float(np.mean(values)) for name, values in columns.items()}
    lungs = columns["lung_left"] + columns["lung_right"]
    return {**means, "lungs": float(np.mean(lungs))}


def summarise(runs: Sequence[Run], results: Mapping[str, Mapping[str, float]], output: Path) -> str:
    """Mean and spread (standard deviation over repeats) of every arm, written as `summary.json`.

    Returns:
        The tables in Markdown, with the difference to the arm `random` within each repeat.
    """
    tables: dict[str, dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        tables[run.group][run.arm].append(run)
    measures = ("lungs", *STRUCTURES)
    lines, record = [], {}
    for group, arms in tables.items():
        lines += [f"### {group}", "", "| arm | runs | " + " | ".join(measures) + " | lungs, less random |"]
        lines.append("| --- " * (len(measures) + 3) + "|")
        base = {run.repeat: results[run.name]["lungs"] for run in arms.get("random", [])}
        for arm, members in arms.items():
            values = {m: [results[run.name][m] for run in members] for m in measures}
            paired = [results[r.name]["lungs"] - base[r.repeat] for r in members if r.repeat in base]
            record[f"{group}/{arm}"] = {"runs": len(members), **values, "lungs_less_random": paired}
            cells = [_spread(values[m]) for m in measures]
            difference = _spread(paired, sign=True) if paired and arm != "random" else ""
            lines.append(f"| {arm} | {len(members)} | " + " | ".join(cells) + f" | {difference} |")
        lines.append("")
    with atomic_file(output / "summary.json", "w", encoding="utf-8") as stream:
        json.dump(record, stream, indent=1)
    return "\n".join(lines)


def _spread(values: Sequence[float], sign: bool = False) -> str:
    spread = np.std(values, ddof=1) if len(values) > 1 else float("nan")
    return f"{np.mean(values):{'+' if sign else ''}.3f} ± {spread:.3f}"
