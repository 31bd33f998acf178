"""Evaluation of a segmenter: its loss, and the scores of films on their own pixels."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.engines import SupervisedEvaluator
from torch import Tensor, nn
from torch.nn import functional as F

from cxw_monai.tasks.evaluation import EpochScoring, test_once
from cxw_monai.training.precision import Precision
from cxw_monai.training.processes import is_main_process
from cxw_monai.training.step import moved, scalars_of

from .dataset import AnnotatedFilms
from .dice_scores import DiceScores
from .step import MaskLoss

__all__ = ["FilmScoring", "SegmentationEvaluationStep", "channels_of", "evaluate_films", "test_best"]

logger = logging.getLogger(__name__)


class SegmentationEvaluationStep:
    """`iteration_update` of a `SupervisedEvaluator`: loss and logits of a batch.

    The engine's output is one dictionary with `scalars`, `count`, `logits` (float32 `[B, S, H, W]`) and `index` (the
    films' numbers).

    Args:
        loss, amp: see `SegmentationStep`.
        channels: those of the network's channels that the labels are of, in their order; None for all.
    """

    def __init__(self, loss: MaskLoss, amp: str = "auto", channels: Sequence[int] | None = None) -> None:
        self.loss, self.precision = loss, Precision(amp)
        self.channels = None if channels is None else list(channels)

    @torch.no_grad()
    def __call__(self, engine: SupervisedEvaluator, batch: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        device = engine.state.device
        inputs = moved(batch, device)
        with self.precision.autocast(device):
            logits = engine.network.eval()(inputs["image"])
        logits = (logits if self.channels is None else logits[:, self.channels]).float()
        scalars = scalars_of(self.loss(logits, inputs["label"].float(), inputs["known"]))
        return [{"scalars": scalars, "count": len(logits), "logits": logits, "index": batch["index"].tolist()}]


def channels_of(structures: Sequence[str], model: Sequence[str]) -> list[int]:
    """The channels of some of a model's structures, in the order of `structures`.

    Args:
        structures: those to score.
        model: the model's, in the order of its channels.

    Raises:
        ValueError: the model doesn't have one of them.
    """
    model = list(model)
    if unknown := [name for name in structures if name not in model]:
        raise ValueError(
            f"structures: the model has no {', '.join(map(repr, unknown))}; it has {', '.join(model)}. Name some of "
            "these, or say by structure_map which of the manifest's columns they are."
        )
    return [model.index(name) for name in structures]


class FilmScoring(EpochScoring):
    """Scores each film of an evaluation on the cached film's own pixels; see `EpochScoring`.

    The logits are resized (bilinear) from the network's size to the film's, a structure is where they are above 0
    (probability 0.5), and the masks are those of the cache, so that no score depends on the network's size.

    Args:
        films: the films whose numbers the step gives.
        make: makes the empty scores of an epoch from the structures' names.

    Attributes:
        scores: those of the last epoch.
    """

    def __init__(self, films: AnnotatedFilms, make: Callable[[tuple[str, ...]], DiceScores]) -> None:
        self.films, self.make = films, make
        self.start()

    def start(self) -> None:
        self.scores = self.make(self.films.structures)

    def add(self, output: Mapping[str, Any]) -> None:
        for index, logits in zip(output["index"], output["logits"], strict=True):
            label = self.films.label(index).astype(bool)  # [S, h, w]
            if logits.shape[1:] != label.shape[1:]:
                logits = F.interpolate(logits[None], label.shape[1:], mode="bilinear", antialias=True)[0]
            pred = (logits > 0).cpu().numpy()
            films = self.films
            about = films.known(index), films.spacing_mm(index), films.image(index)[0]
            self.scores.add(films.name(index), films.patient(index), pred, label, *about)

    def summary(self) -> dict[str, float]:
        return self.scores.summary()


def evaluate_films(evaluator: SupervisedEvaluator, scores: FilmScoring, folder: str | Path) -> None:
    """Run an evaluation, log its summary and write its scores to a folder (main process)."""
    evaluator.run()
    if not is_main_process():
        return
    summary = ", ".join(f"{k} {v:.4f}" for k, v in evaluator.state.metrics.items() if isinstance(v, float))
    logger.info("%d films: %s. Written to %s.", len(scores.films), summary, folder)
    if missing := [name for name in scores.films.structures if f"dice_{name}" not in evaluator.state.metrics]:
        logger.warning("No film has a mask of %s: not scored.", ", ".join(missing))
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
