"""The best epoch of a training: kept, and the run stopped when no better one comes."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from monai import handlers
from torch import nn

from .processes import from_main_process, is_main_process, unwrapped

__all__ = ["CheckpointSaver", "EarlyStopHandler"]

logger = logging.getLogger(__name__)


class CheckpointSaver(handlers.CheckpointSaver):
    """MONAI's, for the weights of the epoch with the highest validation score; a handler of the trainer.

    MONAI's keeps no state that resumes to the same bits, and writes a network without its settings. Attach it after the
    handler that validates; its state belongs into the run's checkpoints.

    Args:
        path: file that holds the best weights.
        save: function of (network, path) that writes them.
        validator: engine whose `state.metrics[metric]` is the score, in the epochs in which it ran.
        metric: name of the score; higher is better.

    Attributes:
        score: the best one so far, of epoch `epoch`; None before the first that is a number.
        waited: validations since then.
    """

    def __init__(
        self, path: str | Path, save: Callable[[nn.Module, Path], None], validator: Engine, metric: str = "dice"
    ) -> None:
        self.path, self.save, self.validator, self.metric = Path(path), save, validator, metric
        super().__init__(str(self.path.parent), {"model": save}, key_metric_name=metric)
        self.score: float | None = None
        self.epoch, self.waited = 0, 0

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.metrics_completed)

    def state_dict(self) -> dict[str, Any]:
        return {"score": self.score, "epoch": self.epoch, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.score, self.epoch, self.waited = state["score"], state["epoch"], state["waited"]

    def metrics_completed(self, engine: Engine) -> None:
        epoch = engine.state.epoch
        if self.validator.state.epoch == epoch:
            score = from_main_process(float(self.validator.state.metrics[self.metric]))  # so that all stop together
            self._compare(engine, score)
        elif epoch == engine.state.max_epochs and self.score is None and self.epoch == 0:
            logger.warning("No epoch was validated: the last one is kept. Set val_interval to at most epochs.")
            self._keep(engine)

    def _compare(self, engine: Engine, score: float) -> None:
        if math.isnan(score):  # such as the Dice of structures that no validation film has
            logger.warning("Epoch %d: %s is undefined on the validation films.", engine.state.epoch, self.metric)
            self.waited += 1
            if self.score is None:  # the latest, until an epoch has a score
                self.epoch = engine.state.epoch
                self._keep(engine)
        elif self.score is None or score > self.score:
            self.score, self.epoch, self.waited = score, engine.state.epoch, 0
            self._keep(engine)
        else:
            self.waited += 1

    def _keep(self, engine: Any) -> None:
        if is_main_process():
            self.save(unwrapped(engine.network), self.path)


class EarlyStopHandler(handlers.EarlyStopHandler):
    """MONAI's, which counts what `CheckpointSaver` has counted, so that a resumed run is no more patient than one run.

    Args:
        patience: stop after so many validations without a better score; None never stops.
        best: attached before.

    Raises:
        ValueError: `patience` is not positive.
    """

    def __init__(self, patience: int | None, best: CheckpointSaver) -> None:
        if patience is not None and patience < 1:
            raise ValueError(f"patience must be 1 or more, or null, got {patience}.")
        super().__init__(patience or sys.maxsize, lambda engine: -float(best.waited))
        self.best = best

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self._started)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    @property
    def exhausted(self) -> bool:
        """Whether the patience is at its end."""
        return self.best.waited >= self.patience

    def _started(self, engine: Engine) -> None:
        if self.exhausted:
            engine.terminate()

    def __call__(self, engine: Engine) -> None:
        if self.exhausted and self.best.validator.state.epoch == engine.state.epoch:
            best = self.best
            score = "an undefined one" if best.score is None else f"{best.score:.4f}"
            logger.info(
                "Stopped after epoch %d: no better %s than %s of epoch %d in %d validations.",
                *(engine.state.epoch, best.metric, score, best.epoch, best.waited),
            )
            engine.terminate()
