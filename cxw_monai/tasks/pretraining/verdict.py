"""The verdict on a run: a page that says in words and numbers whether pretraining helped, and what to try if not."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from cxw_monai.data.cache import RadiographCache
from cxw_monai.data.manifest import load_items
from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.metrics.descriptors import with_random_weights
from cxw_monai.metrics.world.encoding import place_errors, token_rank
from cxw_monai.metrics.world.films import WorldFilms, patient_numbers, read_world_films
from cxw_monai.metrics.world.prediction import layout_scores
from cxw_monai.metrics.world.verdict import (
    FEWEST,
    NETWORKS,
    Comparison,
    answer,
    choose_labels,
    compare,
    contestant_of,
    depends_on_more_than_the_film,
    pixel_contestant,
    questions,
)
from cxw_monai.metrics.world.worlds import EncoderWorld, ModelWorld
from cxw_monai.tasks.pages import write_html
from cxw_monai.training.checkpoint_files import CheckpointFiles
from cxw_monai.training.processes import is_main_process
from cxw_monai.weights.encoder import load_weights
from cxw_monai.weights.kinds import read_weights

from .components import check_labels, network_to_load
from .settings import EvaluationSettings, PretrainingSettings, WorldSettings
from .world import world_of

__all__ = ["advice", "best_checkpoint", "judge", "judge_run", "judge_weights"]

VIEWS_A_FILM = 100  # films shown in training for each one of the verdict, which keeps it under a tenth of the time
MOST_FILMS, FEWEST_FILMS = 800, 32
CHECKPOINTS, CHECKPOINT_FILMS = 6, 16
LEAST_RANK = 0.5  # of the highest effective rank among the checkpoints
LOW_RANK = 0.15  # of a token's channels
FEW_VIEWS = 50_000
_TEMPLATE = Path(__file__).with_name("verdict.html.j2")

logger = logging.getLogger(__name__)


def judge_run(settings: PretrainingSettings, train: RadiographCache, validation: RadiographCache) -> None:
    """Judge a run that has ended, once, in the main process; writes `verdict.html` and `verdict.json`.

    Films are those held out where they are enough, else all of them; the decoded ones are used. The weights are of
    `model.pt`, so that it does not matter how many processes made them.

    Args:
        settings: the run's.
        train, validation: its films.
    """
    page = Path(settings.output_dir) / "verdict.json"
    if not settings.verdict or not is_main_process():
        return
    if page.is_file() and json.loads(page.read_text(encoding="utf-8"))["epochs"] == settings.epochs:
        logger.info("%s: the run was judged already.", page)
        return
    seen = settings.epochs * (settings.epoch_films or len(train))
    wanted = min(MOST_FILMS, max(FEWEST_FILMS, seen // VIEWS_A_FILM))
    held = len(validation)
    held_out = held >= wanted and len(np.unique(patient_numbers(validation.items))) >= FEWEST
    items = [*validation.items, *train.items][: held if held_out else None]

    def decoded(place: int) -> np.ndarray:
        return np.asarray(validation.image(place) if place < held else train.image(place - held))

    model = network_to_load(settings).to(settings.device)
    load_weights(model, Path(settings.output_dir) / "model.pt")
    world = ModelWorld(model, settings.amp)
    films = read_world_films(items, world.size, wanted, settings.seed, decoded=decoded)
    judge(world, films, settings, seen, held_out)


def judge_weights(settings: EvaluationSettings | WorldSettings) -> None:
    """Judge the weights of `ckpt` on the films of `datalist` or `dataset_dir`, all of them or a random choice."""
    given = settings.model_dump() | {"ckpt": settings.ckpt}
    plain = WorldSettings(**{name: value for name, value in given.items() if name in WorldSettings.model_fields})
    world = world_of(plain, read_weights(plain.ckpt))
    items = load_items(plain.dataset_dir, plain.datalist, section="all")
    check_labels(plain, items)
    films = read_world_films(items, world.size, plain.verdict_films, plain.seed, plain.reader())
    judge(world, films, plain, seen=None)


def judge(
    world: EncoderWorld,
    films: WorldFilms,
    settings: PretrainingSettings,
    seen: int | None = None,
    held_out: bool | None = None,
) -> dict[str, Any]:
    """Compare a network with random ones and pixels, choose among its checkpoints, and write the page.

    Args:
        world: the network.
        films: to judge it on.
        settings: of its run; `output_dir` is where its checkpoints are and where the page goes.
        seen: films shown in training; None where that is not known.
        held_out: whether the films were held out of the training; None where that is not known.

    Returns:
        The content of `verdict.json`.
    """
    start, patients = time.monotonic(), len(np.unique(films.patients))
    own = contestant_of(world.tokens, "this encoder")
    comparisons: list[Comparison] = []
    checkpoints: list[dict[str, Any]] = []
    steady, rank, left_out = True, None, dict[str, str]()
    if patients >= FEWEST:
        steady = not depends_on_more_than_the_film(own, films)
        randoms = [contestant_of(each, f"random {n}") for n, each in enumerate(_random_tokens(world))]
        labels, left_out = choose_labels(films, [] if settings.labels == ["none"] else settings.labels)
        asked = questions(films, world.size, world.grid, labels, settings.seed)
        comparisons = compare(own, randoms, pixel_contestant(world.grid), asked)
        rank = token_rank(world, films.first(CHECKPOINT_FILMS))
        checkpoints = score_checkpoints(settings, films)
    said, because = answer(comparisons, patients, steady)
    channels = world.encoder.embed_dim
    content = {
        "verdict": said,
        "because": because,
        "comparisons": [asdict(one) for one in comparisons],
        "labels_left_out": left_out,
        "films": len(films),
        "patients": patients,
        "films_held_out": held_out,
        "unreadable": films.unreadable,
        "effective_rank": rank,
        "channels": channels,
        "checkpoints": checkpoints,
        "best_checkpoint": best_checkpoint(checkpoints),
        "advice": [] if said == "yes" else advice(settings, comparisons, rank, channels, seen, patients),
        "epochs": settings.epochs,
        "seconds": round(time.monotonic() - start, 1),
    }
    folder = Path(settings.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(folder / "verdict.json", "w", encoding="utf-8") as stream:
        stream.write(json.dumps(content, indent=2) + "\n")
    write_html(folder / "verdict.html", _TEMPLATE, **content, title=_TITLES[said], outcome_words=_OUTCOMES)
    logger.info("Verdict: %s. %s (%s)", said, because, folder / "verdict.html")
    return content


_TITLES = {
    "yes": "Yes: pretraining helped",
    "no": "No: it is not shown that pretraining helped",
    "cannot tell": "Too few films to tell",
}
_OUTCOMES = {"ahead": "ahead", "behind": "behind", "level": "no difference shown"}


def _random_tokens(world: EncoderWorld) -> list[Callable[[Tensor], Tensor]]:
    """Tokens of the same encoder with the weights of new ones."""
    return [
        EncoderWorld(with_random_weights(world.encoder, seed), world.precision.amp).tokens for seed in range(NETWORKS)
    ]


def score_checkpoints(settings: PretrainingSettings, films: WorldFilms) -> list[dict[str, Any]]:
    """Effective rank and layout of up to six kept checkpoints of a run, the last among them; needs no labels.

    `layout` is the mean reciprocal rank of the right crop with the geometry given, or, of a model that predicts no
    other crops, the distance by which a crop's place is missed, with its sign turned.
    """
    paths = CheckpointFiles(settings.output_dir).all()
    if len(paths) < 2:
        return []
    chosen = sorted({round(place) for place in np.linspace(0, len(paths) - 1, CHECKPOINTS)})
    few, model, found = films.first(CHECKPOINT_FILMS), network_to_load(settings).to(settings.device), []
    for place in chosen:
        load_weights(model, paths[place])
        world = ModelWorld(model, settings.amp)
        found.append({"file": paths[place].name, **label_free_scores(world, few, settings.seed)})
    return found


def label_free_scores(world: EncoderWorld, films: WorldFilms, seed: int = 0) -> dict[str, float]:
    """`rank` and `layout` of a network, see `score_checkpoints`."""
    rank = token_rank(world, films)
    if "global" in world.predicts:
        scores = layout_scores(world, films, seed, controls=False)
        values = next(
            each.values
            for each in scores
            if (each.test, each.measure, each.condition) == ("layout", "mean reciprocal rank", "geometry given")
        )
        return {"rank": rank, "layout": float(values.mean())}
    errors = place_errors(lambda images: world.tokens(images).mean(dim=1).numpy(), films, world.size, seed)
    return {"rank": rank, "layout": -float(errors.mean())}


def best_checkpoint(scores: Sequence[Mapping[str, Any]]) -> str | None:
    """The checkpoint of the best layout among those with at least half of the highest effective rank; None for none."""
    if not scores:
        return None
    least = LEAST_RANK * max(each["rank"] for each in scores)
    kept = [each for each in scores if each["rank"] >= least]
    return str(max(kept, key=lambda each: each["layout"])["file"])


def advice(
    settings: PretrainingSettings,
    comparisons: Sequence[Comparison],
    rank: float | None,
    channels: int,
    seen: int | None,
    patients: int,
) -> list[str]:
    """What to try where the answer is not yes, most promising first."""
    found = []
    if patients < FEWEST:
        return [f"Give films of {FEWEST} patients or more; a column patient_id tells which films are of one."]
    if rank is not None and rank < LOW_RANK * channels:
        found.append(
            f"The tokens have an effective rank of {rank:.0f} of {channels}, close to a collapse: "
            "regulariser: sigreg and targets: both (preset cpu_tiny) keep it up."
        )
    if seen is not None and seen < FEW_VIEWS:
        found.append(f"It saw {seen} films, each counted as often as it was shown; the shipped encoder saw 138,288.")
    if seen is not None and not settings.start_from:
        found.append("Start from the shipped encoder: --start_from models/model.pt.")
    if any(one.outcome == "level" and one.difference > 0 for one in comparisons):
        found.append("It is ahead, but by less than chance allows on so few films: judge it again on more.")
    if seen is not None and any(one.outcome != "ahead" and "random" in one.baseline for one in comparisons):
        found.append("Look at world_views.png: cropped or inverted films teach nothing.")
    found.append("Use the shipped encoder as it is, or fine-tune from it.")
    return found
