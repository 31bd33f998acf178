"""Ignite handlers of training: epoch means, the record of a run, sampler epochs."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from ignite.handlers.tqdm_logger import ProgressBar

from cxw_monai.data.dataset import EpochSampler
from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.files.csv_files import read_rows, write_rows

from .processes import dist_size, gathered, is_main_process

__all__ = ["EpochMeans", "RunRecord", "SamplerEpoch", "StepProgress", "attached"]

logger = logging.getLogger(__name__)


class Handler(Protocol):
    """What MONAI's engines attach."""

    def attach(self, engine: Engine) -> None: ...


def attached(handler: Handler) -> Handler:
    """A handler that has an entry of its own in a config, in the list of an engine's handlers.

    MONAI's check of a bundle's properties takes no references there, but components alone.
    """
    return handler


class EpochMeans:
    """Puts the epoch's mean of every `engine.state.output[0]["scalars"]` into `engine.state.metrics`.

    Means are over the images of the steps that reported a scalar, and over the processes of a distributed run. A
    scalar that no step of the epoch reported is not in the metrics. Its state belongs into checkpoints that are
    written within an epoch. As an engine's key metric it gives the mean of that name.
    """

    def __init__(self) -> None:
        self.sums: dict[str, float] = defaultdict(float)
        self.counts: dict[str, int] = defaultdict(int)

    def attach(self, engine: Engine, name: str | None = None) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self._started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._step)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._completed)

    def state_dict(self) -> dict[str, Any]:
        return {"sums": dict(self.sums), "counts": dict(self.counts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sums = defaultdict(float, state["sums"])
        self.counts = defaultdict(int, state["counts"])

    def _started(self, engine: Engine) -> None:
        if engine.state.iteration % (engine.state.epoch_length or 1):  # resumed half way
            return
        for name in self.sums:
            engine.state.metrics.pop(name, None)
        self.sums.clear()
        self.counts.clear()

    def _step(self, engine: Any) -> None:
        output = engine.state.output[0]
        for name, value in output["scalars"].items():
            self.sums[name] += value * output["count"]
            self.counts[name] += output["count"]

    def _completed(self, engine: Any) -> None:
        names = sorted(set().union(*gathered(dict.fromkeys(self.sums))))
        totals = torch.tensor([[self.sums[n], self.counts[n]] for n in names], dtype=torch.float64)
        if dist_size() > 1:
            totals = totals.to(engine.state.device)
            dist.all_reduce(totals)
        engine.state.metrics.update({n: (s / c).item() for n, (s, c) in zip(names, totals.cpu(), strict=True)})


class SamplerEpoch:
    """Tells the sampler the epoch before each epoch, and where to start in one that was resumed half way.

    Args:
        sampler: of the training items.
        batch_size: items a micro-batch of this process.
    """

    def __init__(self, sampler: EpochSampler, batch_size: int) -> None:
        self.sampler, self.batch_size = sampler, batch_size

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Any) -> None:
        done = engine.state.iteration - (engine.state.epoch - 1) * engine.state.epoch_length
        self.sampler.set_epoch(engine.state.epoch - 1, start=max(done, 0) * self.batch_size)


class StepProgress(ProgressBar):
    """Ignite's progress bar with the losses of the step, on the main process only."""

    def attach(self, engine: Engine) -> None:  # type: ignore[override]
        if is_main_process():
            super().attach(engine, output_transform=self._shown)

    @staticmethod
    def _shown(output: list[dict[str, Any]]) -> dict[str, str]:
        scalars = output[0]["scalars"]
        return {k: f"{v:.3g}" for k, v in scalars.items() if k.startswith("loss") or k == "images_per_second"}


class RunRecord:
    """Appends the epochs' metrics to `metrics.csv` and draws `curves.png` from it.

    Attach it to the trainer after the handlers that make its metrics. A resumed run adds to the same file; rows of
    epochs that are run again are replaced.

    Args:
        folder: where the files go.
        validator: engine whose `state.metrics` are recorded as `val_<name>` in the epochs in which it ran.
        draw: function of (csv path, png path) that draws the curves, called in epochs with a validation and in the
            last; None for no picture.
    """

    def __init__(
        self,
        folder: str | Path,
        validator: Engine | None = None,
        draw: Callable[[Path, Path], None] | None = None,
    ) -> None:
        self.folder, self.validator, self.draw = Path(folder), validator, draw

    def attach(self, engine: Engine) -> None:
        if is_main_process():
            engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        row = {"epoch": engine.state.epoch, "iteration": engine.state.iteration, **engine.state.metrics}
        if self.validator is not None and self.validator.state.epoch == engine.state.epoch:
            row.update({f"val_{name}": value for name, value in self.validator.state.metrics.items()})
        path = self.folder / "metrics.csv"
        rows = []
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                rows = [r for r in read_rows(file) if int(r["epoch"]) < engine.state.epoch]
        rows.append(row)
        names = list(dict.fromkeys(name for r in rows for name in r))
        with atomic_file(path, "w", newline="", encoding="utf-8") as file:
            write_rows(file, names, rows)
        validated = any(name.startswith("val_") for name in row)
        if self.draw is not None and (validated or engine.state.epoch == engine.state.max_epochs):
            self.draw(path, self.folder / "curves.png")
