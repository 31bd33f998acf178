"""What a pretrained encoder brings to segmentation: the same training from several starts, on fewer and more films.

Every run trains on manual masks of one source for the same number of steps, with the same augmentation and loss, and is
scored on films of its validation split and of other hospitals. `unet` is MONAI's `BasicUNet`, which has no encoder.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from monai.networks.nets import BasicUNet
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks.learning.benchmark import append_row, config_hash, read_rows
from cxw_monai.data.dataset import EpochSampler
from cxw_monai.inference.predictor import Predictor
from cxw_monai.losses import DiceBCELoss
from cxw_monai.networks import RadiographSegmenter
from cxw_monai.tasks.segmentation.components import augmentation
from cxw_monai.tasks.segmentation.dataset import SegmentationDataset, annotated_films
from cxw_monai.tasks.segmentation.items import annotated_items
from cxw_monai.tasks.segmentation.settings import FineTuningSettings
from cxw_monai.training import layer_decay_groups
from cxw_monai.training.precision import autocast
from cxw_monai.training.schedules import warmup_cosine
from cxw_monai.weights.segmenter import new_segmenter, segmenter_settings

from .score import score_films, summary

__all__ = ["Comparison", "chosen_films", "trained"]

STRUCTURES = ("lung_field_left", "lung_field_right", "heart")
UNET = "unet"
RANDOM = "random"
BATCH = 8
LR = {UNET: 1e-3, "segmenter": 1e-3}
LAYER_DECAY = 0.9

Item = dict[str, Any]


def chosen_films(items: Sequence[Item], share: float, seed: int) -> list[Item]:
    """A share of the patients, at least one, with all of their films; those of a smaller share are among them."""
    patients = sorted({str(item["patient_id"]) for item in items})
    order = np.random.default_rng(seed).permutation(len(patients))
    kept = {patients[number] for number in order[: max(1, round(share * len(patients)))]}
    return [item for item in items if str(item["patient_id"]) in kept]


def trained(network: nn.Module, dataset: SegmentationDataset, steps: int, seed: int) -> nn.Module:
    """Train a network for a number of steps of `BATCH` films (AdamW, cosine, Dice and cross-entropy)."""
    kind = "segmenter" if isinstance(network, RadiographSegmenter) else UNET
    groups: list[dict[str, Any]] = (
        layer_decay_groups(network, LAYER_DECAY)
        if kind == "segmenter"
        else [{"params": list(network.parameters()), "lr_scale": 1.0}]
    )
    optimizer = torch.optim.AdamW(groups, lr=LR[kind], weight_decay=0.05)
    schedule = warmup_cosine(LR[kind], 1e-6, steps, 1, 0.05)
    loss, batches = DiceBCELoss(), _batches(dataset, seed)
    network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = schedule(step) * group["lr_scale"]
        batch = next(batches)
        with autocast("cpu", "auto"):
            logits = network(batch["image"].contiguous(memory_format=torch.channels_last))
        total = loss(logits.float(), batch["label"].float(), batch["known"])["loss"]
        optimizer.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    return network.eval()


def _batches(dataset: SegmentationDataset, seed: int) -> Iterator[dict[str, Tensor]]:
    """Batches without end; few films come several times in one."""
    repeats = math.ceil(BATCH / len(dataset))
    sampler = EpochSampler(len(dataset), seed, mix=[(np.arange(len(dataset)), repeats * len(dataset))])
    epoch = 0
    while True:
        sampler.set_epoch(epoch)
        yield from DataLoader(dataset, BATCH, sampler=sampler, drop_last=True)
        epoch += 1


@dataclass(frozen=True)
class Comparison:
    """The runs of a comparison.

    Attributes:
        films: manifest of `python -m benchmarks.segmentation films`.
        source: of whose films the runs learn.
        encoders: file or bundle of an encoder by the arm's name; the arms `random` and `unet` need none.
        tests: manifest of the films scored, by source.
        output: folder to make or continue.
        steps: of a run.
        image_size: px.
    """

    films: Path
    source: str
    encoders: Mapping[str, str]
    tests: Mapping[str, Path]
    output: Path
    steps: int = 600
    image_size: int = 192

    @property
    def table(self) -> Path:
        """A row a run."""
        return self.output / "runs.csv"

    def run(self, arm: str, share: float, seed: int) -> None:
        """Train and score a run, where it has no row yet.

        Raises:
            ValueError: an unknown arm.
        """
        if arm not in (UNET, RANDOM, *self.encoders):
            raise ValueError(f"No arm {arm!r}; there are {[UNET, RANDOM, *self.encoders]}.")
        config = config_hash({"steps": self.steps, "size": self.image_size, "arm": arm, "share": share, "seed": seed})
        name = f"{arm}_{share:g}_{seed}"
        if any(row["run"] == name and row["config"] == config for row in read_rows(self.table)):
            return
        began = time.process_time()
        network = trained(self._network(arm, seed), self._dataset(share, seed), self.steps, seed)
        spent = round(time.process_time() - began)
        size = (self.image_size, self.image_size)
        predictor = Predictor(network, size, structures=STRUCTURES, amp="auto")
        model = cast(Any, SimpleNamespace(structures=STRUCTURES, predictor=predictor))
        row: dict[str, Any] = {"run": name, "config": config, "arm": arm, "share": share, "seed": seed}
        row["processor_seconds"] = spent
        for source, manifest in self.tests.items():
            split = "validation" if source == self.source else None
            scores = score_films(model, source, manifest, self.output / "films" / f"{name}_{source}.csv", split)
            row |= {f"{source}_{column}": found[0] for column, found in summary(scores, draws=1).items()}
        append_row(self.table, row)

    def _dataset(self, share: float, seed: int) -> SegmentationDataset:
        items = annotated_items(self.films, STRUCTURES, all_columns=False)
        training = [item for item in items if item["source"] == self.source and item["split"] == "training"]
        films = annotated_films(chosen_films(training, share, seed), STRUCTURES, self.output / "cache", progress=False)
        settings = FineTuningSettings(structures=list(STRUCTURES), image_size=self.image_size, rotate=15.0)
        return SegmentationDataset(films, augmentation(settings), seed)

    def _network(self, arm: str, seed: int) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            if arm == UNET:
                return BasicUNet(spatial_dims=2, in_channels=1, out_channels=len(STRUCTURES))
            start = {"encoder_ckpt": None if arm == RANDOM else self.encoders[arm]}
            size = "tiny" if arm == RANDOM else None
            sizes = segmenter_settings(STRUCTURES, self.image_size, size, 16, "hybrid", 16, **start)
            return new_segmenter(sizes, **start)
