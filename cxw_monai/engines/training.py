"""Run a trainer to its end, from its beginning or from a checkpoint."""

from __future__ import annotations

import logging
from pathlib import Path

from monai.engines import SupervisedTrainer

from cxw_monai.io.atomic import check_writable

from .processes import is_main_process
from .run_state import TrainingState

__all__ = ["run_training"]

logger = logging.getLogger(__name__)


def run_training(trainer: SupervisedTrainer, run_state: TrainingState, resume: bool | str = False) -> None:
    """Run a trainer to its last epoch.

    Args:
        trainer: the engine.
        run_state: its checkpoints.
        resume: true to go on from the newest checkpoint where there is one, or the path of a checkpoint; a finished
            run stays as it is.

    Raises:
        FileExistsError: when the folder holds checkpoints of an earlier run and `resume` is false.
        OSError: when the folder cannot be written.
        SystemExit: with status 143, after SIGTERM; see `TrainingState`.
    """
    epochs = trainer.state.max_epochs
    choice = str(resume)
    if choice.lower() not in ("true", "false", "none"):
        run_state.load(trainer, Path(choice))
    elif choice.lower() == "true":
        if run_state.resume(trainer) and trainer.state.epoch >= epochs:
            logger.info("The run in %s has finished its %d epochs.", run_state.folder, epochs)
            return
    elif run_state.checkpoints():
        raise FileExistsError(
            f"{run_state.folder} holds checkpoints of an earlier run: go on with --resume true, or choose another "
            "--output_dir."
        )
    if is_main_process():
        check_writable(run_state.folder)
    with run_state.preemption:
        trainer.run()
    if run_state.preempted:
        raise SystemExit(run_state.preemption.exit_code)
