"""The best epoch of a fine-tuning: kept, and the run stopped when no better one comes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from torch import nn

from .processes import dist_size, is_main_process, unwrapped

__all__ = ["BestModel"]

logger = logging.getLogger(__name__)


class BestModel:
    """Keeps the weights of the epoch with the highest validation score; an Ignite handler of the trainer.

    Attach it after the handler that validates. Its state belongs into the run's checkpoints, so that a resumed run
    neither forgets its best epoch nor starts to be patient anew.

    Args:
        path: file that holds the best weights.
        save: function of (network, path) that writes them.
        validator: engine whose `state.metrics[metric]` is the score, in the epochs in which it ran.
        metric: name of the score; higher is better.
        patience: stop after so many validations without a better score; None never stops.

    Raises:
        ValueError: `patience` is not positive.
    """

    def __init__(
        self,
        path: str | Path,
        save: Callable[[nn.Module, Path], None],
        validator: Engine,
        metric: str = "dice",
        patience: int | None = None,
    ) -> None:
        if patience is not None and patience < 1:
            raise ValueError(f"patience must be 1 or more, or null, got {patience}.")
        self.path, self.save, self.validator = Path(path), save, validator
        self.metric, self.patience = metric, patience
        self.score: float | None = None
        self.epoch, self.waited = 0, 0

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self._started)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    @property
    def exhausted(self) -> bool:
        """Whether the patience is at its end."""
        return self.patience is not None and self.waited >= self.patience

    def state_dict(self) -> dict[str, Any]:
        return {"score": self.score, "epoch": self.epoch, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.score, self.epoch, self.waited = state["score"], state["epoch"], state["waited"]

    def _started(self, engine: Engine) -> None:
        if self.exhausted:
            engine.terminate()

    def __call__(self, engine: SupervisedTrainer) -> None:
        epoch = engine.state.epoch
        if self.validator.state.epoch == epoch:
            self._compare(engine, self._agreed(float(self.validator.state.metrics[self.metric]), engine))
        elif epoch == engine.state.max_epochs and self.score is None:
            logger.warning("No epoch was validated: the last one is kept. Set val_interval to at most epochs.")
            self._keep(engine)

    def _compare(self, engine: SupervisedTrainer, score: float) -> None:
        if self.score is None or score > self.score:
            self.score, self.epoch, self.waited = score, engine.state.epoch, 0
            self._keep(engine)
            return
        self.waited += 1
        if self.exhausted:
            logger.info(
                "Stopped after epoch %d: no better %s than %.4f of epoch %d in %d validations.",
                *(engine.state.epoch, self.metric, self.score, self.epoch, self.waited),
            )
            engine.terminate()

    def _keep(self, engine: SupervisedTrainer) -> None:
        if is_main_process():
            self.save(unwrapped(engine.network), self.path)

    @staticmethod
    def _agreed(score: float, engine: SupervisedTrainer) -> float:
        """The main process's score, so that all processes stop together."""
        if dist_size() == 1:
            return score
        shared = torch.tensor(score, dtype=torch.float64, device=engine.state.device)
        dist.broadcast(shared, src=0)
        return shared.item()
