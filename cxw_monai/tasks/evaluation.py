"""What the tasks' evaluations have in common."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from torch import nn

from cxw_monai.training.processes import barrier, unwrapped
from cxw_monai.weights.kinds import read_weights

__all__ = ["EpochScoring", "test_once"]

logger = logging.getLogger(__name__)


class EpochScoring(ABC):
    """Scores the films of an evaluation, an epoch after the other; an Ignite handler.

    The epoch's summary goes into `engine.state.metrics`.
    """

    def attach(self, engine: Engine, name: str | None = None) -> None:
        """As a handler, or as a key metric, which is the summary's entry of that name."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._step)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._completed)

    @abstractmethod
    def start(self) -> None:
        """Forget the scores of an earlier epoch."""

    @abstractmethod
    def add(self, output: Mapping[str, Any]) -> None:
        """Score the films of a batch from what the evaluation's step gave."""

    @abstractmethod
    def summary(self) -> dict[str, float]:
        """Of the films since `start`."""

    def _step(self, engine: Engine) -> None:
        outputs: Any = engine.state.output
        self.add(outputs[0])

    def _completed(self, engine: Engine) -> None:
        engine.state.metrics.update(self.summary())


def test_once(films: int, network: nn.Module, ckpt: str | Path, folder: str | Path, test: Callable[[], None]) -> None:
    """Test the best epoch's weights, after the training, unless that was done.

    Args:
        films: number of the test films; nothing is done where there are none.
        network: the evaluator's; takes the weights.
        ckpt: the run's `model.pt`.
        folder: where the scores go; nothing is done where it holds their `summary.json`.
        test: runs the evaluation and writes the folder.
    """
    if not films:
        logger.info("No test films: set test_datalist, test_fraction or splits for a test of the best epoch.")
        return
    if (Path(folder) / "summary.json").exists():  # a test that was killed while it wrote is made again
        logger.info("%s: the test was done already.", folder)
        return
    barrier()  # the main process may still be writing
    unwrapped(network).load_state_dict(read_weights(ckpt).state)
    test()


test_once.__test__ = False  # type: ignore[attr-defined]  # not one of pytest's
