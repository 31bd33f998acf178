"""Run a trainer to its end, from its beginning or from a checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from monai.engines import SupervisedTrainer
from torch import nn

from cxw_monai.io.files.atomic import check_writable
from cxw_monai.io.results.folders import hold_output, release_output

from .batch_plan import BatchPlan
from .checkpoint_files import CheckpointFiles, read_checkpoint
from .processes import is_main_process, unwrapped
from .run_state import RunState, check_content

__all__ = ["check_run", "run_training"]

logger = logging.getLogger(__name__)


def check_run(
    folder: str | Path,
    resume: bool | str | None,
    settings: Mapping[str, Any],
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    plan: BatchPlan,
    films: int,
    others: object = None,
    called: str = "films",
) -> None:
    """Refuse, before any film is read and anything is written, a run that could not be made.

    That its arguments could be made is a part of the check. From here on, no other run may write to the folder
    (`hold_output`).

    Args:
        folder: where the run goes.
        resume: see `run_training`.
        settings: see `RunState`.
        network, optimizer: the run's.
        plan: images of a step.
        films: number of training films.
        others: what else the settings make.
        called: see `BatchPlan.check_films`.

    Raises:
        CheckpointError: the checkpoint to resume is of another run; see `check_content`.
        FileExistsError: see `run_training`.
        ValueError: there are fewer films than a step takes.
        OutputBusyError: another run is writing there.
        OSError: the folder cannot be written.
    """
    plan.check_films(films, called)
    if is_main_process() and Path(folder).is_dir():
        hold_output(folder)
    try:
        _check_earlier(CheckpointFiles(folder), _choice(resume), settings, network)
    except Exception:
        release_output(folder)  # nothing was begun: the program ends with status 2
        raise
    if is_main_process():
        hold_output(folder)


def _check_earlier(files: CheckpointFiles, choice: bool | str, settings: Mapping[str, Any], network: nn.Module) -> None:
    """Refuse checkpoints that are there and not to be resumed, or a checkpoint of another run."""
    if choice is False:
        _refuse_earlier(files)
    elif is_main_process():
        found = (Path(choice), read_checkpoint(choice)) if isinstance(choice, str) else files.newest(set_aside=False)
        if found is not None:
            check_content(*found, settings, unwrapped(network))


def _choice(resume: bool | str | None) -> bool | str:
    """Whether to resume, or the path of the checkpoint."""
    known = {"true": True, "false": False, "none": False}
    return known.get(str(resume).lower(), str(resume))


def _refuse_earlier(files: CheckpointFiles) -> None:
    """Raise where there are checkpoints."""
    if files.all():
        raise FileExistsError(
            f"{files.folder} holds checkpoints of an earlier run: continue with --resume true, or choose another "
            "--output_dir."
        )


def run_training(
    trainer: SupervisedTrainer,
    run_state: RunState,
    resume: bool | str | None = False,
    before: Callable[[], object] | None = None,
) -> None:
    """Run a trainer to its last epoch.

    Args:
        trainer: the engine.
        run_state: its checkpoints.
        resume: true to resume from the newest checkpoint where there is one, or the path of a checkpoint; a finished
            run stays as it is.
        before: what the main process writes before the first step, once nothing can be refused any more. It must leave
            the global random generators alone.

    Raises:
        FileExistsError: when the folder holds checkpoints of an earlier run and `resume` is false.
        OSError: when the folder cannot be written.
        SystemExit: with status 143, after SIGTERM; see `RunState`.
    """
    epochs = trainer.state.max_epochs
    choice = _choice(resume)
    if isinstance(choice, str):
        run_state.load(trainer, Path(choice))
    elif choice:
        if run_state.resume(trainer) and trainer.state.epoch >= epochs:
            logger.info("The run in %s has finished its %d epochs.", run_state.folder, epochs)
            return
    else:
        _refuse_earlier(run_state.files)
    if is_main_process():
        check_writable(run_state.folder)
        if before is not None:
            before()
    with run_state.preemption:
        trainer.run()
    if run_state.preempted:
        raise SystemExit(run_state.preemption.exit_code)
