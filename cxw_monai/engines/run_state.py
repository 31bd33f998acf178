"""Checkpoints of a run: everything that the next step depends on, written atomically."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer

from cxw_monai.checkpoints import CheckpointError, read_weights
from cxw_monai.io.atomic import atomic_file
from cxw_monai.networks import RadiographEmbedder

from .iteration import NonFiniteLossError, PretrainingStep, unwrapped
from .random_state import random_state, set_random_state

__all__ = ["RunState"]

logger = logging.getLogger(__name__)


def save(content: Any, path: Path) -> None:
    """`torch.save` to a file that is there whole or not at all."""
    with atomic_file(path) as stream:
        torch.save(content, stream)


def dist_size() -> int:
    """Number of processes of this run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_main_process() -> bool:
    """Whether this process writes files."""
    return dist_size() == 1 or dist.get_rank() == 0


def gathered(state: dict[str, Any]) -> list[dict[str, Any]]:
    """`state` of every process, in the order of ranks."""
    states: list[Any] = [state] * dist_size()
    if dist_size() > 1:
        dist.all_gather_object(states, state)
    return states


class RunState:
    """Saves and restores a pretraining run; an Ignite handler.

    A checkpoint `checkpoint_epoch=<n>.pt` holds network (context encoder, target, predictor), optimiser, mask
    sampler, global generators, epoch and iteration. View pairs are a function of seed, epoch and image, so that with
    these a resumed run repeats the numbers of an uninterrupted one. The last checkpoint's network is also written as
    plain state dicts: `model.pt` (all of the world model) and `encoder.pt` (the target encoder as `RadiographEmbedder`
    names it, for inference and export). Where the loss is not finite, `checkpoint_before_failure.pt` keeps the state
    before that step (before its group of accumulated micro-batches).

    Args:
        folder: where checkpoints go.
        step: the iteration update that owns the mask sampler.
        every: save every so many epochs, and at the end.
        keep: how many epoch checkpoints stay; older ones are deleted. None keeps all.

    Raises:
        ValueError: when `every` or `keep` is not positive.
    """

    def __init__(
        self,
        folder: str | Path,
        step: PretrainingStep,
        every: int = 1,
        keep: int | None = 2,
    ) -> None:
        if every < 1 or (keep is not None and keep < 1):
            raise ValueError(f"every and keep must be at least 1, got {every} and {keep}.")
        self.folder = Path(folder)
        self.step, self.every, self.keep = step, every, keep

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._epoch_completed)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._failed)

    def _epoch_completed(self, engine: SupervisedTrainer) -> None:
        epoch = engine.state.epoch
        if epoch % self.every and epoch != engine.state.max_epochs:
            return
        processes = gathered({"masks": self.step.masks.state_dict(), "random": random_state()})
        if not is_main_process():
            return
        self.save(engine, self.folder / f"checkpoint_epoch={epoch}.pt", engine.state.iteration, processes)
        model = unwrapped(engine.network)
        save(model.state_dict(), self.folder / "model.pt")
        embedder = RadiographEmbedder(model.target_encoder).state_dict()
        save(embedder, self.folder / "encoder.pt")
        if self.keep is not None:
            for path in self.epoch_checkpoints()[: -self.keep]:
                path.unlink()

    def _failed(self, engine: SupervisedTrainer, error: BaseException) -> None:
        if isinstance(error, NonFiniteLossError):
            name = f"checkpoint_before_failure{'' if is_main_process() else f'_rank{dist.get_rank()}'}.pt"
            path = self.folder / name
            before = dict(self.step.before)
            self.save(engine, path, before.pop("iteration"), [before])
            raise NonFiniteLossError(
                f"{error} The state before that step is in {path}. Lower the learning rate, lengthen the warm-up or "
                "look at the images of that batch; then go on from the last epoch (--resume true) or from "
                "that file (--resume FILE)."
            ) from error
        raise error

    def save(
        self, engine: SupervisedTrainer, path: Path, iteration: int, processes: Sequence[Mapping[str, Any]]
    ) -> None:
        """Write a checkpoint of `iteration` finished micro-batches; `processes` has each process's own states."""
        content = {
            "model": unwrapped(engine.network).state_dict(),
            "optimizer": engine.optimizer.state_dict(),
            "processes": list(processes),
            "iteration": iteration,
            "epoch_length": engine.state.epoch_length,
        }
        save(content, path)

    def epoch_checkpoints(self) -> list[Path]:
        """Epoch checkpoints in the folder, oldest first."""
        found = self.folder.glob("checkpoint_epoch=*.pt")
        return sorted(found, key=lambda path: int(path.stem.split("=")[1]))

    def resume(self, engine: SupervisedTrainer) -> bool:
        """Restore the newest epoch checkpoint of the folder, if there is one.

        Returns:
            Whether there was one.

        Raises:
            CheckpointError: when it does not fit the network, the optimiser or the data.
        """
        found = self.epoch_checkpoints()
        if not found:
            logger.info("Nothing to resume in %s: starting from the beginning.", self.folder)
            return False
        self.load(engine, found[-1])
        return True

    def load(self, engine: SupervisedTrainer, path: Path) -> None:
        """Restore one checkpoint; see `resume`."""
        content = read_weights(path)
        try:
            unwrapped(engine.network).load_state_dict(content["model"])
            engine.optimizer.load_state_dict(content["optimizer"])
        except (KeyError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise CheckpointError(
                path, f"of another network ({reason})", "resume with the settings it was made with, or without --resume"
            ) from error
        if content["epoch_length"] != engine.state.epoch_length:
            raise CheckpointError(
                path,
                f"made with {content['epoch_length']} batches an epoch, this run has {engine.state.epoch_length}",
                "resume with the same images, batch size and number of processes",
            )
        if len(content["processes"]) != dist_size():
            raise CheckpointError(
                path,
                f"made by {len(content['processes'])} processes, this run has {dist_size()}",
                "resume with the same number of processes",
            )
        own = content["processes"][dist.get_rank() if dist_size() > 1 else 0]
        self.step.masks.load_state_dict(own["masks"])
        set_random_state(own["random"])
        position = {"iteration": content["iteration"], "epoch_length": content["epoch_length"]}
        engine.load_state_dict({**position, "max_epochs": max(engine.state.max_epochs, self._epochs(content))})
        logger.info("Resumed %s at iteration %d.", path, content["iteration"])

    @staticmethod
    def _epochs(content: dict[str, Any]) -> int:
        return -(-content["iteration"] // content["epoch_length"])
