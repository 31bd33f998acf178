"""Training runs of the learning benchmark at a fixed cost in processor time.

The cost of a step is measured before a run, with the settings of the run, and the run gets as many epochs as fit: its
schedules then end where the time does. A neighbour on the other hyperthread slows a core down by half, so steps are
timed in turn with a fixed computation, and the budget is in seconds of a core on which that takes `REFERENCE_SECONDS`:
runs at other hours and on other cores get the same work done. What a run really took is recorded too. All is computed
in bfloat16 where that is the faster one, else in float32: then a run does the same steps in more time.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Events
from monai.bundle import ConfigWorkflow
from torch import nn
from torch.nn import functional as F

from benchmarks.command import training_workflow
from cxw_monai.data.manifest import read_datalist
from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.files.csv_files import CsvWriter
from cxw_monai.networks import RadiographViT, radiograph_vit
from cxw_monai.training.precision import autocast

from .data import LabelledFilms

__all__ = ["Cost", "pretrain", "train_supervised", "write_training_manifest"]

Cost = dict[str, float]
TIMED_STEPS = 8
REFERENCE_SECONDS = 0.36
"""What `_reference_step` takes on the core that the budgets are meant for (one hyperthread of a Xeon with AMX)."""


class _StepTimer:
    """Times steps against a fixed computation: ViT-Tiny forward and backward on 8 films of 160 px."""

    def __init__(self) -> None:
        self.encoder, self.films = radiograph_vit("tiny", image_size=160), torch.zeros(8, 1, 160, 160)
        self.own: list[float] = []
        self.reference: list[float] = []
        self.start = time.process_time()

    def step_completed(self) -> None:
        """To be called after each step; the first one is a warm-up."""
        now = time.process_time()
        self.own.append(now - self.start)
        with autocast("cpu", "auto"):
            loss = self.encoder(self.films).square().mean()
        loss.backward()
        self.start = time.process_time()
        self.reference.append(self.start - now)

    def seconds(self) -> float:
        """Of a step, on the core that the budgets are meant for."""
        return statistics.median(self.own[1:]) / statistics.median(self.reference[1:]) * REFERENCE_SECONDS


def write_training_manifest(
    path: Path, films: LabelledFilms, others: Sequence[str | Path] = (), share: float = 1.0
) -> Path:
    """Manifest of the training films and of all films of other manifests, without any label.

    Args:
        path: CSV to write.
        films: of which those to learn from are taken.
        others: more manifests, all of whose films are taken.
        share: of the training patients, above 0 to 1; those of a smaller share are among those of a larger one. With
            `others` 0 leaves these alone.

    Raises:
        ValueError: for another share.
    """
    if not 0 <= share <= 1 or not (share or others):
        raise ValueError(f"share must lie in (0, 1], or be 0 with other manifests, got {share}.")
    learnt = np.random.default_rng(0).permutation(np.unique(films.patients[films.train]))
    count = max(1, round(share * len(learnt))) if share else 0
    chosen = films.train & np.isin(films.patients, learnt[:count])
    rows = [(name, who) for name, who, part in zip(films.files, films.patients, chosen, strict=True) if part]
    for other in others:
        rows += [(r["image"], str(r.get("patient_id") or "")) for r in read_datalist(other, section="all")]
    with atomic_file(path, "w", newline="", encoding="utf-8") as stream:
        CsvWriter(stream).writerows([("image", "patient_id"), *rows])
    return path


def _workflow(bundle: Path, presets: Sequence[str], folder: Path, settings: Mapping[str, Any]) -> ConfigWorkflow:
    settings = {"num_workers": 0, "val_fraction": 0.02, "val_interval": 10**6, "verdict": False, **settings}
    return training_workflow(bundle, presets, folder, **settings)


def _epochs_that_fit(
    bundle: Path, presets: Sequence[str], folder: Path, settings: Mapping[str, Any], seconds: float
) -> int:
    """Epochs of a run that take `seconds` of processor time, by a few steps of it that are thrown away."""
    longest = TIMED_STEPS + 1
    workflow = _workflow(bundle, presets, folder / "timing", {**settings, "epochs": longest})
    workflow.initialize()
    trainer = workflow.parser.get_parsed_content("train::trainer")
    timer = _StepTimer()

    @trainer.on(Events.ITERATION_COMPLETED)
    def _completed(engine: Any) -> None:
        timer.step_completed()
        if len(timer.own) > TIMED_STEPS:
            engine.terminate()

    workflow.run()
    steps = len(workflow.parser.get_parsed_content("train::dataloader"))
    return max(1, round(seconds / (timer.seconds() * steps)))


def pretrain(
    bundle: Path,
    presets: Sequence[str],
    folder: Path,
    settings: Mapping[str, Any],
    seconds: float = 0.0,
    epochs: int | None = None,
) -> tuple[Path, Cost]:
    """Pretrain with the bundle for so much processor time, or so many epochs; is resumed where it stopped.

    Args:
        bundle: the pretraining bundle.
        presets: its presets, in order.
        folder: of the run.
        settings: overrides; `warmup_fraction` of the epochs are the warm-up.
        seconds: processor time.
        epochs: passes over the films instead, with the settings' own warm-up.

    Returns:
        The encoder's file, and `processor_seconds`, `images_seen` and `epochs`.
    """
    record = folder / "cost.json"
    own = {name: value for name, value in settings.items() if name != "warmup_fraction"} | {"verdict": False}
    cost = json.loads(record.read_text()) if record.exists() else {"processor_seconds": 0.0}
    if "epochs" not in cost:
        cost["epochs"] = epochs or _epochs_that_fit(bundle, presets, folder, own, seconds)
        _write_cost(record, cost)
    own |= {"epochs": int(cost["epochs"]), "resume": True}
    if epochs is None:
        own["warmup_epochs"] = own["epochs"] * settings.get("warmup_fraction", 0.1)
    workflow = _workflow(bundle, presets, folder, own)
    workflow.initialize()
    trainer = workflow.parser.get_parsed_content("train::trainer")
    before, start = cost["processor_seconds"], time.process_time()

    @trainer.on(Events.EPOCH_COMPLETED)
    def _completed(engine: Any) -> None:
        cost["processor_seconds"] = before + time.process_time() - start
        cost["images_seen"] = engine.state.iteration * int(workflow.parser.get_parsed_content("batch_size"))
        _write_cost(record, cost)

    workflow.run()
    return folder / "encoder.pt", cost


def _write_cost(path: Path, cost: Mapping[str, float]) -> None:
    with atomic_file(path, "w", encoding="utf-8") as stream:
        json.dump(cost, stream)


def _random_crops(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Crops of 40 to 100 % of the area, where they fit, at the same size."""
    count = len(images)
    side = (0.4 + 0.6 * torch.rand(count, generator=generator)).sqrt()
    shift = (2 * torch.rand(count, 2, generator=generator) - 1) * (1 - side).unsqueeze(1)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = side
    theta[:, :, 2] = shift
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False, padding_mode="border")


def train_supervised(
    encoder: RadiographViT, films: LabelledFilms, seconds: float, batch: int = 32, seed: int = 0
) -> Cost:
    """Train an encoder on the labels of the training films for so much processor time (AdamW 5e-4, cosine).

    Returns:
        `processor_seconds`, `images_seen` and `epochs`.
    """
    generator = torch.Generator().manual_seed(seed)
    images, labels = films.images[films.train], torch.from_numpy(films.labels[films.train]).float()
    head = nn.Linear(encoder.embed_dim, labels.shape[1])
    parameters = [p for p in (*encoder.parameters(), *head.parameters()) if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=5e-4, weight_decay=0.05)
    timer, start, step, total = _StepTimer(), time.process_time(), 0, TIMED_STEPS + 1
    encoder.train()
    while step < total:
        share = step / total if step > TIMED_STEPS else 0.0
        rate = 5e-4 * min((step + 1) / 50, 0.5 * (1 + math.cos(math.pi * share)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        chosen = torch.randint(len(images), (batch,), generator=generator)
        with autocast("cpu", "auto"):
            logits = head(encoder(_random_crops(images[chosen], generator)).mean(dim=1))
        loss = F.binary_cross_entropy_with_logits(logits.float(), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        if step <= TIMED_STEPS + 1:
            timer.step_completed()
            total = max(TIMED_STEPS + 1, round(seconds / timer.seconds())) if step > TIMED_STEPS else total
    spent = time.process_time() - start
    return {"processor_seconds": spent, "images_seen": step * batch, "epochs": step * batch / len(images)}
