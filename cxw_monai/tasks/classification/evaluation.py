"""Evaluation of a classifier: its loss, and the scores of films."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from monai.engines import SupervisedEvaluator
from torch import Tensor, nn

from cxw_monai.metrics.calibration import Temperature
from cxw_monai.metrics.operating_points import OperatingPoint, choose_points
from cxw_monai.tasks.evaluation import EpochScoring, test_once
from cxw_monai.training.processes import barrier, is_main_process, unwrapped
from cxw_monai.training.step import moved, scalars_of
from cxw_monai.weights.classifier import ClassifierSettings, read_settings
from cxw_monai.weights.kinds import read_weights, save_network

from .class_scores import ClassScores, missing_classes
from .dataset import LabelledFilms
from .scored_films import ScoredFilms
from .scores import write_scores
from .step import LabelLoss, logits_of

__all__ = [
    "ClassificationEvaluationStep",
    "FilmScoring",
    "calibrate_best",
    "calibrate_weights",
    "evaluate_films",
    "test_best",
    "write_films",
]

logger = logging.getLogger(__name__)


class ClassificationEvaluationStep:
    """`iteration_update` of a `SupervisedEvaluator`: loss and logits of a batch, in float32 as inference computes.

    The engine's output is one dictionary with `scalars`, `count`, `logits` (float32 `[B, L]`) and `index` (the films'
    numbers).

    Args:
        loss: see `ClassificationStep`.
    """

    def __init__(self, loss: LabelLoss) -> None:
        self.loss = loss

    @torch.no_grad()
    def __call__(self, engine: SupervisedEvaluator, batch: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        inputs = moved(batch, engine.state.device)
        logits = logits_of(engine.network.eval(), inputs).float()
        scalars = scalars_of(self.loss(logits, inputs["label"]))
        return [{"scalars": scalars, "count": len(logits), "logits": logits, "index": batch["index"].tolist()}]


class FilmScoring(EpochScoring):
    """Scores the films of an evaluation; see `EpochScoring`. The summary has `score`: the one that chooses the best
    epoch.

    Args:
        films: the films whose numbers the step gives.
        key_metric: which of `ClassScores.summary` is the score.

    Attributes:
        scores: those of the last epoch.
    """

    def __init__(self, films: LabelledFilms, key_metric: str = "auroc") -> None:
        self.films, self.key_metric = films, key_metric
        self.start()

    def start(self) -> None:
        self.scores = ClassScores(self.films.classes, self.films.target)

    def add(self, output: Mapping[str, Any]) -> None:
        for index, logits in zip(output["index"], output["logits"].cpu().numpy(), strict=True):
            self.scores.add(
                index, self.films.name(index), self.films.patient(index), logits, self.films.label(index).numpy()
            )

    def summary(self) -> dict[str, float]:
        summary = self.scores.summary()
        return {**summary, "score": summary[self.key_metric]}


def evaluate_films(
    evaluator: SupervisedEvaluator, scores: FilmScoring, settings: ClassifierSettings, folder: str | Path
) -> None:
    """Run an evaluation, log its summary and write its scores to a folder (main process).

    The folder gets what `write_scores` writes: tables of films, classes, operating points and subgroups, and a page.
    """
    evaluator.run()
    if not is_main_process():
        return
    found = scores.scores
    summary = found.summary()
    shown = ", ".join(f"{name} {value:.4f}" for name, value in summary.items())
    logger.info("%d films: %s. Written to %s.", len(found.films), shown, folder)
    if missing := missing_classes(summary, found.classes):
        logger.warning("No AUROC of %s: the films have not both values.", ", ".join(missing))
    write_films(scores.films, found, settings, folder)


def calibrate_best(evaluator: SupervisedEvaluator, scores: FilmScoring, network: nn.Module, ckpt: str | Path) -> None:
    """Fit temperatures and choose operating points on the validation films, and put them into the best weights' file.

    Nothing is done where the file has them.

    Args:
        evaluator: runs the validation films.
        scores: of those films.
        network: the evaluator's; takes the weights.
        ckpt: the run's `model.pt`.
    """
    barrier()  # the main process may still be writing
    settings = read_settings(ckpt)
    barrier()  # none writes before all have read
    if settings.temperatures:
        return
    unwrapped(network).load_state_dict(read_weights(ckpt).state)
    evaluator.run(max(evaluator.state.epoch, 1))
    if is_main_process():
        _save_calibrated(scores.scores, network, settings, ckpt)


def calibrate_weights(
    evaluator: SupervisedEvaluator,
    scores: FilmScoring,
    network: nn.Module,
    settings: ClassifierSettings,
    output: str | Path,
) -> None:
    """Fit temperatures and choose operating points on films, and write the weights with them; one process.

    Args:
        evaluator: runs the films.
        scores: of those films.
        network: the evaluator's, with the weights.
        settings: the classifier's; its temperatures and operating points are replaced.
        output: file to write.

    Raises:
        ValueError: there is such a file, or the films have one value of each class.
    """
    output = Path(output)
    if output.exists():
        raise ValueError(f"{output}: is there already; give another output_dir.")
    evaluator.run()
    found = scores.scores
    if missing_classes(found.summary(), found.classes) == list(found.classes):
        raise ValueError(
            f"{output}: no class has both 1 and 0 on the {len(found.films)} films: nothing to calibrate by; give films "
            "with and without."
        )
    _save_calibrated(found, network, settings, output)


def _save_calibrated(found: ClassScores, network: nn.Module, settings: ClassifierSettings, output: str | Path) -> None:
    """Write the weights with temperatures and operating points of the scored films."""
    temperature = Temperature.fit(found.logits, found.labels)
    points = choose_points(temperature.probabilities(found.logits), found.labels, found.classes)
    plain = {name: {one.name: one.threshold for one in chosen} for name, chosen in points.items()}
    settings = replace(settings, temperatures=temperature.values, operating_points=plain)
    save_network(unwrapped(network), settings, output)
    shown = ", ".join(f"{value:.3g}" for value in temperature.values)
    logger.info("%s: temperatures %s, of %d films.", output, shown, len(found.films))
    _log_points(plain)


def _log_points(points: Mapping[str, Mapping[str, float]]) -> None:
    """Say which classes got operating points."""
    chosen, without = (", ".join(name for name in points if bool(points[name]) is have) for have in (True, False))
    if chosen:
        logger.info("Operating points were chosen for %s.", chosen)
    if without:
        logger.warning("No operating point of %s: the validation films with a known label all have the same.", without)


def write_films(films: LabelledFilms, scores: ClassScores, settings: ClassifierSettings, folder: str | Path) -> None:
    """Write all scores of an evaluation's films; see `write_scores`.

    Args:
        films: the evaluation's.
        scores: what the classifier said of them.
        settings: the classifier's, with its temperatures and operating points.
        folder: where the files go.
    """
    points = {
        name: [OperatingPoint(point, threshold) for point, threshold in chosen.items()]
        for name, chosen in settings.operating_points.items()
    }
    multi_class = settings.target == "multi_class"
    write_scores(
        folder,
        ScoredFilms(
            names=scores.classes,
            films=scores.films,
            patients=scores.patients,
            logits=scores.logits,
            label=scores.labels,
            temperature=Temperature(settings.temperatures, multi_class) if settings.temperatures else None,
            points=points,
            variables=films.variables(scores.indices),
        ),
        picture=lambda number: films.image(scores.indices[number])[0],
    )


def test_best(
    evaluator: SupervisedEvaluator, scores: FilmScoring, network: nn.Module, ckpt: str | Path, folder: str | Path
) -> None:
    """Test the best epoch's weights once, after the training.

    Args:
        evaluator: runs the test films.
        scores: of those films.
        network: the evaluator's; takes the weights.
        ckpt: the run's `model.pt`.
        folder: where the scores go.
    """
    test_once(
        len(scores.films),
        network,
        ckpt,
        folder,
        lambda: evaluate_films(evaluator, scores, read_settings(ckpt), folder),
    )


test_best.__test__ = False  # type: ignore[attr-defined]  # not one of pytest's
