"""What the tasks' evaluations have in common."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from torch import nn

from cxw_monai.training.processes import barrier, unwrapped
from cxw_monai.weights.kinds import read_weights

__all__ = ["test_once"]

logger = logging.getLogger(__name__)


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
