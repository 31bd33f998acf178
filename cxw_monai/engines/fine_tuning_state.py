"""Checkpoints of a fine-tuning run."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch.distributed as dist
from monai.engines import SupervisedTrainer

from cxw_monai.checkpoints import CheckpointError, read_weights

from .best_model import BestModel
from .iteration import NonFiniteLossError, unwrapped
from .random_state import random_state, set_random_state
from .run_state import RunState, dist_size, gathered, is_main_process

__all__ = ["FineTuningState"]

logger = logging.getLogger(__name__)


class FineTuningState(RunState):
    """`RunState` of a network that is chosen by validation: saves and restores what the next step depends on.

    A checkpoint holds network, optimiser, global generators, the best epoch's score, epoch and iteration. The best
    weights are `BestModel`'s to write.

    Args:
        folder: where checkpoints go.
        step: the iteration update; its `before` holds `iteration` and `random` for the case that a step fails.
        best: keeps the best epoch.
        every: save every so many epochs, and at the end.
        keep: how many epoch checkpoints stay; older ones are deleted. None keeps all.
    """

    def __init__(self, folder: str | Path, step: Any, best: BestModel, every: int = 1, keep: int | None = 2) -> None:
        super().__init__(folder, step, every, keep)
        self.best = best

    def _epoch_completed(self, engine: SupervisedTrainer) -> None:
        epoch = engine.state.epoch
        if epoch % self.every and epoch != engine.state.max_epochs and not engine.should_terminate:
            return
        processes = gathered({"best": self.best.state_dict(), "random": random_state()})
        if not is_main_process():
            return
        self.save(engine, self.folder / f"checkpoint_epoch={epoch}.pt", engine.state.iteration, processes)
        if self.keep is not None:
            for path in self.epoch_checkpoints()[: -self.keep]:
                path.unlink()

    def _failed(self, engine: SupervisedTrainer, error: BaseException) -> None:
        if isinstance(error, NonFiniteLossError):
            self.step.before["best"] = self.best.state_dict()
        super()._failed(engine, error)

    def load(self, engine: SupervisedTrainer, path: Path) -> None:
        """Restore one checkpoint; see `resume`."""
        content = read_weights(path)
        try:
            unwrapped(engine.network).load_state_dict(content["model"])
            engine.optimizer.load_state_dict(content["optimizer"])
            own = content["processes"][dist.get_rank() if dist_size() > 1 else 0]
            self.best.load_state_dict(own["best"])
        except (KeyError, IndexError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise CheckpointError(
                path, f"of another run ({reason})", "resume with the settings it was made with, or without --resume"
            ) from error
        made = (content["epoch_length"], len(content["processes"]))
        if made != (engine.state.epoch_length, dist_size()):
            raise CheckpointError(
                path,
                f"made with {made[0]} batches an epoch by {made[1]} processes, this run has "
                f"{engine.state.epoch_length} and {dist_size()}",
                "resume with the same films, batch size and number of processes",
            )
        set_random_state(own["random"])
        position = {"iteration": content["iteration"], "epoch_length": content["epoch_length"]}
        engine.load_state_dict({**position, "max_epochs": max(engine.state.max_epochs, self._epochs(content))})
        logger.info("Resumed %s at iteration %d.", path, content["iteration"])
