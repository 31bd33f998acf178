"""Checkpoints of a run: everything that the next step depends on, written so that no failure loses what was saved."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from torch import nn

from cxw_monai.weights.encoder import CheckpointError

from .checkpoint_files import CheckpointFiles, read_checkpoint, write_checkpoint
from .non_finite import NonFiniteLossError
from .preemption import Preemption
from .processes import any_process, barrier, dist_size, from_main_process, gathered, is_main_process, rank, unwrapped
from .random_state import random_state, set_random_state
from .sharding import load_model, load_optimizer, whole
from .step import Stateful, TrainingStep

__all__ = ["RunState"]

logger = logging.getLogger(__name__)


class RunState:
    """Saves and restores a training run; an Ignite handler, to be attached after all others.

    A checkpoint holds network, optimiser, epoch and iteration, and for each process its global generators, the step's
    own parts and `parts`. It is written at the end of epochs and, where asked for, within them, always between two
    optimiser steps, so that a resumed run repeats the numbers of an uninterrupted one. After SIGTERM the step at hand
    is finished, the state saved, by all processes together, and the engine stopped (`preempted` is then true). See
    `CheckpointFiles` for the files; a saved epoch also leaves what the step's `export` writes.

    Where a step is not finite and the run stops, `checkpoint_before_failure.pt` keeps the state before that step
    (before its group of accumulated micro-batches).

    Args:
        folder: where checkpoints go.
        step: the iteration update.
        every: save every so many epochs, and at the end.
        keep: how many checkpoints stay; older ones are deleted. None keeps all.
        save_steps: save also within epochs, after every so many micro-batches. None does not.
        save_minutes: save also within epochs, after so many minutes without a checkpoint. None does not.
        parts: by name, what else has a state of its own, such as the epoch's means.
        settings: what the run was set to, in plain values, kept in its checkpoints: `fixed` ones, which a resumed run
            must have too, and `others`, of which it says what changed.
        best: keeps the best epoch, where a validation chooses one; its weights are its own to write.

    Raises:
        ValueError: when `every`, `keep`, `save_steps` or `save_minutes` is not positive.
    """

    def __init__(
        self,
        folder: str | Path,
        step: TrainingStep,
        every: int = 1,
        keep: int | None = 2,
        save_steps: int | None = None,
        save_minutes: float | None = None,
        parts: Mapping[str, Stateful] | None = None,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        best: Stateful | None = None,
    ) -> None:
        if every < 1 or (keep is not None and keep < 1):
            raise ValueError(f"every and keep must be at least 1, got {every} and {keep}.")
        if (save_steps is not None and save_steps < 1) or (save_minutes is not None and save_minutes <= 0):
            raise ValueError(f"save_steps and save_minutes must be positive, got {save_steps} and {save_minutes}.")
        self.files = CheckpointFiles(folder, keep)
        self.step, self.every, self.save_steps, self.save_minutes = step, every, save_steps, save_minutes
        self.parts = {**({} if best is None else {"best": best}), **step.parts, **(parts or {})}
        self.settings = None if settings is None else {name: dict(values) for name, values in settings.items()}
        self.preemption, self.preempted = Preemption(), False
        self._saved_iteration, self._saved_time = 0, time.monotonic()

    @property
    def folder(self) -> Path:
        return self.files.folder

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self._started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._step_completed)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._epoch_completed)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._failed)

    def _started(self, engine: SupervisedTrainer) -> None:
        self._saved_iteration, self._saved_time = engine.state.iteration, time.monotonic()

    def _step_completed(self, engine: SupervisedTrainer) -> None:
        position = engine.state.iteration % engine.state.epoch_length
        if position and position % engine.accumulation_steps == 0:  # an epoch's last step: after its validation
            self._save_or_leave(engine)

    def _epoch_completed(self, engine: SupervisedTrainer) -> None:
        epoch = engine.state.epoch
        ends = epoch == engine.state.max_epochs or bool(engine.should_terminate)
        self._save_or_leave(engine, ends or epoch % self.every == 0)

    def _save_or_leave(self, engine: SupervisedTrainer, due: bool = False) -> None:
        """Save where that is due or asked for in any process, and stop after SIGTERM in any."""
        preempted, asked = any_process((self.preemption.requested, self._late(engine)), engine.state.device)
        if preempted or asked or due:
            self._save(engine)
        if preempted:
            self._leave(engine)

    def _late(self, engine: SupervisedTrainer) -> bool:
        """Whether steps or minutes enough have passed since the last checkpoint."""
        steps = engine.state.iteration - self._saved_iteration
        minutes = (time.monotonic() - self._saved_time) / 60
        return (self.save_steps is not None and steps >= self.save_steps) or (
            self.save_minutes is not None and minutes >= self.save_minutes
        )

    def _own(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self.parts.items()} | {"random": random_state()}

    def _save(self, engine: SupervisedTrainer) -> None:
        iteration = engine.state.iteration
        content = self._content(engine, iteration, self._own())
        if is_main_process():
            if iteration % engine.state.epoch_length == 0:
                self.step.export(content["model"], self.folder)  # before the checkpoint: killed here, it is done again
            self.files.write(content, self.files.path(iteration, engine.state.epoch_length))
        self._saved_iteration, self._saved_time = iteration, time.monotonic()

    def _content(self, engine: SupervisedTrainer, iteration: int, own: dict[str, Any]) -> dict[str, Any]:
        """A checkpoint after `iteration` micro-batches, from this process's `own` states; called by all processes."""
        return {
            "model": whole(unwrapped(engine.network).state_dict()),
            "optimizer": whole(engine.optimizer.state_dict()),
            "processes": gathered(own),
            "iteration": iteration,
            "epoch_length": engine.state.epoch_length,
            **({} if self.settings is None else {"settings": self.settings}),
        }

    def _leave(self, engine: SupervisedTrainer) -> None:
        barrier()  # the main process may still be writing
        self.preempted = True
        engine.terminate()
        logger.warning(
            "Ended by SIGTERM after step %d: all is saved in %s, continue with --resume true.",
            *(engine.state.iteration, self.folder),
        )

    def _failed(self, engine: SupervisedTrainer, error: BaseException) -> None:
        if isinstance(error, NonFiniteLossError):  # in all processes alike
            before = dict(self.step.before)
            iteration = before.pop("iteration")
            content = self._content(engine, iteration, self._own() | before)
            path = self.folder / "checkpoint_before_failure.pt"
            if is_main_process():
                write_checkpoint(content, path)
            raise NonFiniteLossError(
                f"{error} The state before that step is in {path}. Lower the learning rate, lengthen the warm-up or "
                "look at the images of that batch; then resume from the last epoch (--resume true) or from "
                "that file (--resume FILE)."
            ) from error
        if is_main_process() and (saved := self.files.all()):
            logger.error(
                "Stopped at step %d. %s is whole: continue from there with --resume true.",
                *(engine.state.iteration, saved[-1]),
            )
        raise error

    def resume(self, engine: SupervisedTrainer) -> bool:
        """Restore the newest checkpoint of the folder that is whole, if there is one.

        Returns:
            Whether there was one.

        Raises:
            CheckpointError: when it does not fit the network, the optimiser or the data, or none is whole.
        """
        found = None
        if is_main_process():
            self.files.remove_leftovers()
            found = self.files.newest()
        path = from_main_process(None if found is None else found[0])
        if path is None:
            logger.info("Nothing to resume in %s: starting from the beginning.", self.folder)
            return False
        self._restore(engine, path, read_checkpoint(path) if found is None else found[1])
        return True

    def load(self, engine: SupervisedTrainer, path: Path) -> None:
        """Restore one checkpoint; see `resume`. Newer ones in the folder are set aside."""
        self._restore(engine, path, read_checkpoint(path))
        if is_main_process():
            self.files.set_aside_after(Path(path))

    def _restore(self, engine: SupervisedTrainer, path: Path, content: dict[str, Any]) -> None:
        check_content(path, content, self.settings, unwrapped(engine.network))
        if content["epoch_length"] != engine.state.epoch_length:
            reason = f"made with {content['epoch_length']} batches an epoch, this run has {engine.state.epoch_length}"
            remedy = (
                "resume with the same images, batch size and number of processes; with others begin a run of its own "
                "from these weights, in another --output_dir"
            )
            raise CheckpointError(path, reason, remedy)
        log_changes(path, content, self.settings)
        options = [{k: v for k, v in group.items() if k != "params"} for group in engine.optimizer.param_groups]
        try:
            load_model(unwrapped(engine.network), content["model"])
            load_optimizer(engine.optimizer, content["optimizer"])
        except (KeyError, ValueError, RuntimeError) as error:
            raise _of_another_run(path, str(error)) from error
        for group, own in zip(engine.optimizer.param_groups, options, strict=True):
            group.update(own)  # such as a weight decay that was changed
        own = content["processes"][rank()]
        for name, part in self.parts.items():
            if name in own:
                part.load_state_dict(own[name])
            else:
                logger.warning("%s is of an older version and has no %s: these start anew.", path, name)
        set_random_state(own["random"])
        iteration, epoch_length = content["iteration"], content["epoch_length"]
        epochs = max(engine.state.max_epochs, -(-iteration // epoch_length))
        engine.load_state_dict({"iteration": iteration, "epoch_length": epoch_length, "max_epochs": epochs})
        logger.info("Resumed %s at iteration %d.", path, iteration)


def check_content(
    path: Path, content: Mapping[str, Any], settings: Mapping[str, Mapping[str, Any]] | None, network: nn.Module
) -> None:
    """Check a checkpoint against the run that is to be resumed from it; changes neither.

    Args:
        path: its file, for the error.
        content: what it holds.
        settings: see `RunState`.
        network: the run's.

    Raises:
        CheckpointError: it is no checkpoint of a run, or one with other `fixed` settings, another network, or another
            number of processes.
    """
    missing = [name for name in ("model", "optimizer", "epoch_length", "iteration", "processes") if name not in content]
    if missing:
        raise _of_another_run(path, f"it has no {', '.join(missing)}")
    changed = changes(content, settings, "fixed")
    if changed:
        raise CheckpointError(
            path,
            f"made with other settings, without which its state means nothing: {'; '.join(changed)}",
            "give those again, or start a run of its own in another --output_dir",
        )
    own = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    held = {name: tuple(value.shape) for name, value in content["model"].items()}
    for name in own.keys() | held.keys():
        if own.get(name) != held.get(name):
            raise _of_another_run(path, f"{name} is {held.get(name, 'not there')}, the network's {own.get(name)}")
    if (processes := len(content["processes"])) != dist_size():
        reason = f"made by {processes} processes, this run has {dist_size()}"
        raise CheckpointError(path, reason, "resume with the same number of processes")


def _of_another_run(path: Path, why: str) -> CheckpointError:
    reason = f"of another run or of another network ({' '.join(why.split())[:300]})"
    return CheckpointError(path, reason, "resume with the settings it was made with, or without --resume")


def changes(content: Mapping[str, Any], settings: Mapping[str, Mapping[str, Any]] | None, part: str) -> list[str]:
    """`name was ... and is now ...` of the settings that are in a checkpoint and in this run, and differ.

    Args:
        content: the checkpoint's.
        settings: the run's.
        part: `fixed` or `others`, as this run divides them.
    """
    kept = content.get("settings") or {}
    before = {name: value for values in kept.values() for name, value in values.items()}
    now = (settings or {}).get(part, {})
    return [
        f"{name} was {before[name]!r} and is now {value!r}"
        for name, value in now.items()
        if name in before and before[name] != value
    ]


def log_changes(path: Path, content: Mapping[str, Any], settings: Mapping[str, Mapping[str, Any]] | None) -> None:
    """Log which settings a resumed run changes."""
    if settings is None:
        return
    if "settings" not in content:
        logger.warning(
            "%s is of an older version and keeps no settings: whether these are the same is not known.", path
        )
    for change in changes(content, settings, "others"):
        logger.warning("Resuming with another setting: %s.", change)
