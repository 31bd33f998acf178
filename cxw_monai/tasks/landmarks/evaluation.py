"""Evaluation of a landmark network: its loss, and the errors of films in px and mm of the stored films."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from monai.engines import SupervisedEvaluator
from torch import Tensor, nn

from cxw_monai.tasks.evaluation import EpochScoring, test_once
from cxw_monai.training.precision import Precision
from cxw_monai.training.processes import is_main_process
from cxw_monai.training.step import moved, scalars_of

from .dataset import LandmarkFilms
from .scores import LandmarkScores
from .step import PointLoss

__all__ = ["FilmScoring", "LandmarkEvaluationStep", "evaluate_films", "test_best"]

logger = logging.getLogger(__name__)


class LandmarkEvaluationStep:
    """`iteration_update` of a `SupervisedEvaluator`: loss and points of a batch.

    The engine's output is one dictionary with `scalars`, `count`, `found` (float32 `[B, P, 3]`, see `HeatMapPoints`)
    and `index` (the films' numbers).

    Args:
        loss, amp: see `LandmarkStep`.
        reading: takes maps `[B, P, h, w]` to points.
    """

    def __init__(self, loss: PointLoss, reading: nn.Module, amp: str = "auto") -> None:
        self.loss, self.reading, self.precision = loss, reading, Precision(amp)

    @torch.no_grad()
    def __call__(self, engine: SupervisedEvaluator, batch: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        device = engine.state.device
        inputs = moved(batch, device)
        with self.precision.autocast(device):
            logits = engine.network.eval()(inputs["image"])
        logits = logits.float()
        scalars = scalars_of(self.loss(logits, inputs["points"], inputs["known"]))
        found = self.reading(logits)
        return [{"scalars": scalars, "count": len(logits), "found": found, "index": batch["index"].tolist()}]


class FilmScoring(EpochScoring):
    """Scores each film of an evaluation on its stored pixels; see `EpochScoring`.

    Args:
        films: the films whose numbers the step gives.
        make: makes the empty scores of an epoch from the landmarks' names.

    Attributes:
        scores: those of the last epoch.
    """

    def __init__(
        self, films: LandmarkFilms, make: Callable[[tuple[str, ...]], LandmarkScores] = LandmarkScores
    ) -> None:
        self.films, self.make = films, make
        self.start()

    def start(self) -> None:
        self.scores = self.make(self.films.points)

    def add(self, output: Mapping[str, Any]) -> None:
        films = self.films
        for index, found in zip(output["index"], output["found"].double().cpu().numpy(), strict=True):
            pred, true = films.to_stored(index, found[:, :2]), films.stored_points(index)
            about = films.stored_shape(index), films.spacing_mm(index)
            self.scores.add(films.name(index), films.patient(index), pred, true, found[:, 2], *about)
            self.scores.show(films.image(index)[0], found[:, :2], films.shares(index))

    def summary(self) -> dict[str, float]:
        return self.scores.summary()


def evaluate_films(evaluator: SupervisedEvaluator, scores: FilmScoring, folder: str | Path) -> None:
    """Run an evaluation, log its summary and write its scores to a folder (main process)."""
    evaluator.run()
    if not is_main_process():
        return
    summary = scores.summary()
    shown = ", ".join(f"{name} {value:.4g}" for name, value in summary.items() if "/" not in name)
    logger.info("%d films: %s. Written to %s.", len(scores.films), shown, folder)
    scores.scores.write(Path(folder))


def test_best(
    evaluator: SupervisedEvaluator, scores: FilmScoring, network: nn.Module, ckpt: str | Path, folder: str | Path
) -> None:
    """Test the best epoch's weights once, after the training.

    Args:
        evaluator: runs the test films; does nothing where there are none, or where the folder holds their summary.
        scores: of those films.
        network: the evaluator's; takes the weights.
        ckpt: the run's `model.pt`.
        folder: where the scores go.
    """
    test_once(len(scores.films), network, ckpt, folder, lambda: evaluate_films(evaluator, scores, folder))


test_best.__test__ = False  # type: ignore[attr-defined]  # not one of pytest's
