"""Does pretraining beat the same network at random, and 16 x 16 pixels? Questions, paired differences, and an answer.

An encoder passes a question when it is ahead of four random networks and of pixels:

- of the best random network, by the lower end of an interval over patients, and by more than the four differ among
  themselves (one more random network does so in 3 of 100 tries);
- of pixels, by the lower end of an interval.

Intervals are at 95 % for all comparisons of a verdict together (Bonferroni). Labels are one question, the mean AUROC
over ten of them at most: with more labels there are not more chances to pass. Films are shown in random order and one
by one, and some of them twice: a network that answers by anything but the film fails.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cxw_monai.metrics.descriptors import shrunk
from cxw_monai.metrics.probes import binary_label, bootstrap_weights, grouped_auroc, patient_folds
from cxw_monai.metrics.readings import linear_scores
from cxw_monai.settings.names import nearest
from cxw_monai.transforms import perturb

from .correspondence import match_errors, moved_films, pixel_neighbourhoods
from .encoding import place_errors
from .films import WorldFilms, crops, random_actions, random_boxes
from .scores import resampled_means

__all__ = [
    "Comparison",
    "Contestant",
    "Question",
    "answer",
    "check_columns",
    "choose_labels",
    "compare",
    "contestant_of",
    "depends_on_more_than_the_film",
    "label_aurocs",
    "pixel_contestant",
    "questions",
]

NETWORKS = 4  # random ones
DRAWS = 2000
FEWEST = 24  # patients
LABEL_PATIENTS = 15  # with each of a label's values
MOST_LABELS = 10
STRENGTHS = (1e-3, 1e-2, 1e-1)
PIXELS = 16


@dataclass(frozen=True)
class Contestant:
    """What is compared: films and crops of `size` px to vectors.

    Attributes:
        name: for the page.
        vector: `[N, 1, H, W]` in [0, 1] to `[N, D]`.
        tokens: to `[N, n, C]` on `grid`.
    """

    name: str
    vector: Callable[[Tensor], np.ndarray]
    tokens: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Question:
    """What contestants are asked.

    Attributes:
        name: `labels`, `place`, `correspondence`, `film`.
        measure: what its number is, in words.
        ask: a contestant to its number, resampled: `[1 + DRAWS]`, the first over the films as they are; higher is
            better.
        sign: -1 where `ask` gives an error with its sign turned.
    """

    name: str
    measure: str
    ask: Callable[[Contestant], np.ndarray]
    sign: int = 1


@dataclass(frozen=True)
class Comparison:
    """An encoder and a baseline on one question; differences are positive where the encoder is better.

    Attributes:
        question, measure, baseline: what was compared with what.
        own, other: their numbers.
        difference, low, high: and its interval.
        margin: what the difference has to exceed beside its interval's end at 0.
        outcome: `ahead`, `behind`, or `level` (the interval holds 0, or the margin is not reached).
    """

    question: str
    measure: str
    baseline: str
    own: float
    other: float
    difference: float
    low: float
    high: float
    margin: float
    outcome: str


def contestant_of(tokens: Callable[[Tensor], Tensor], name: str) -> Contestant:
    """An encoder by its tokens (images `[N, 1, H, W]` to `[N, n, D]`); its vector is their mean."""
    return Contestant(name, lambda images: tokens(images).mean(dim=1).numpy(), tokens)


def pixel_contestant(grid: tuple[int, int]) -> Contestant:
    """16 x 16 grey values of an image, and those around each patch."""

    def vector(images: Tensor) -> np.ndarray:
        return torch.stack([shrunk(image.numpy(), PIXELS).flatten() for image in images]).numpy()

    return Contestant("16 x 16 pixels", vector, lambda images: pixel_neighbourhoods(images, grid))


def questions(
    films: WorldFilms, size: tuple[int, int], grid: tuple[int, int], labels: Sequence[str] = (), seed: int = 0
) -> list[Question]:
    """What these films can be asked for: their labels where there are any, else what needs none.

    Args:
        films: of at least `FEWEST` patients.
        size, grid: of the network's images, in px and in tokens.
        labels: columns to look at, of `choose_labels`.
        seed: of crops, folds and resamplings.
    """
    if labels:
        return [_label_question(films, labels, seed)]
    moved = moved_films(films, size, seed)
    views = perturb(
        crops(films.pixels, random_boxes(len(films), np.random.default_rng(seed), (0.75, 0.9)), size),
        random_actions(len(films), seed),
    )

    def mean(values: np.ndarray) -> np.ndarray:
        return resampled_means(values, films.patients, DRAWS, seed)

    return [
        Question(
            "place",
            "distance of a crop's place from the one read off its vector, share of the film",
            lambda each: mean(-place_errors(each.vector, films, size, seed)),
            -1,
        ),
        Question(
            "correspondence",
            "distance of a point found again in a perturbed crop of the film, share of the film",
            lambda each: mean(-match_errors(each.tokens, films, moved, grid)),
            -1,
        ),
        Question(
            "film",
            "share of perturbed crops whose film is the nearest of all",
            lambda each: mean(_found_films(each, films, views)),
        ),
    ]


def choose_labels(films: WorldFilms, labels: Sequence[str] | None = None) -> tuple[list[str], dict[str, str]]:
    """Labels that the films can be asked for, and why the others are left out.

    Args:
        films: with the labels in their rows.
        labels: columns to choose from; None for all binary ones, `view` and `sex` among them.

    Returns:
        At most `MOST_LABELS`, those of which most patients have the rarer value, in the order they come in; and a
        reason by name.
    """
    names = _binary_columns(films) if labels is None else list(labels)
    rarer, left_out = {}, {}
    for name in names:
        classes, values = binary_label([row.get(name) for row in films.rows])
        patients = [len(np.unique(films.patients[classes == value])) for value in (0, 1)]
        if len(values) != 2:
            left_out[name] = f"{len(values)} values, two are needed"
        elif min(patients) < LABEL_PATIENTS:
            left_out[name] = f"{min(patients)} patients with the rarer value, {LABEL_PATIENTS} are needed"
        else:
            rarer[name] = min(patients)
    kept = sorted(rarer, key=lambda name: -rarer[name])[:MOST_LABELS]
    left_out |= {name: f"{MOST_LABELS} others are less rare" for name in rarer if name not in kept}
    return [name for name in rarer if name in kept], left_out


def _binary_columns(films: WorldFilms) -> list[str]:
    """Columns of the values 0 and 1, `view`, `sex`."""
    names = list(dict.fromkeys(str(name) for row in films.rows for name in row))
    found = {name: binary_label([row.get(name) for row in films.rows])[1] for name in names}
    return [name for name, values in found.items() if values == ["0", "1"] or name in ("view", "sex")]


def check_columns(names: Sequence[str], rows: Sequence[Mapping[str, Any]], source: str) -> None:
    """Refuse labels that a manifest doesn't have.

    Args:
        names: the labels.
        rows: of the manifest or folder.
        source: its path, for the message.

    Raises:
        ValueError: one of them is no column.
    """
    columns = list(dict.fromkeys(str(name) for row in rows for name in row))
    for name in names:
        if name not in columns:
            there = ", ".join(columns)
            raise ValueError(f"{source}: no column {name!r} for labels{nearest(name, columns)} It has {there}.")


def label_aurocs(values: np.ndarray, films: WorldFilms, label: str, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """AUROC of logistic regression on vectors, patients held out: of the films, then of resampled patients.

    Args:
        values: `[N, D]`, a vector a film.
        films: with the label in their rows.
        label: one of `choose_labels`.
        draws, seed: of the resamplings; the same for all vectors of the same films.

    Returns:
        `[1 + draws]`.
    """
    classes = binary_label([row.get(label) for row in films.rows])[0]
    known = classes >= 0
    patients, positive = films.patients[known], classes[known] == 1
    folds, scores = patient_folds(positive, patients, 5, seed), np.zeros(known.sum())
    for fold in range(5):
        train, vectors = folds != fold, values[known].astype(np.float64)
        scores[~train] = linear_scores(vectors, positive, patients, train, strengths=STRENGTHS, seed=seed)[0]
    return grouped_auroc(scores, positive, folds, bootstrap_weights(films.patients, draws, seed)[:, known])


def _label_question(films: WorldFilms, names: Sequence[str], seed: int) -> Question:
    """Mean AUROC over labels of the whole films' vectors."""

    def ask(each: Contestant) -> np.ndarray:
        values = each.vector(films.whole())
        return np.nanmean([label_aurocs(values, films, name, seed=seed) for name in names], axis=0)

    measure = f"mean AUROC of {len(names)} label{'s' * (len(names) > 1)} ({', '.join(names)})"
    return Question("labels", measure, ask)


def _found_films(each: Contestant, films: WorldFilms, views: Tensor) -> np.ndarray:
    """Is the whole film the nearest (standardised cosine) to its view, among all films? `[N]`."""
    known, asked = (torch.from_numpy(each.vector(images)).double() for images in (films.whole(), views))
    known, asked = ((x - x.mean(dim=0)) / (x.std(dim=0) + 1e-6) for x in (known, asked))
    likeness = F.normalize(asked, dim=1) @ F.normalize(known, dim=1).T  # [N, N]
    best = likeness.max(dim=1, keepdim=True).values
    share = (likeness == best).double()
    return (share.diagonal() / share.sum(dim=1)).numpy()


def depends_on_more_than_the_film(each: Contestant, films: WorldFilms, count: int = 8) -> bool:
    """Whether a film's vector changes when it is shown again, alone and in another order."""
    chosen = films.whole(list(range(min(count, len(films)))))
    first = each.vector(chosen)
    again = np.concatenate([each.vector(image[None]) for image in chosen.flip(0)])[::-1]
    scale = np.abs(first - first.mean(axis=0)).mean() + 1e-6
    return bool(np.abs(first - again).max() > 0.05 * scale + 0.02 * np.abs(first).mean())


def compare(
    encoder: Contestant, randoms: Sequence[Contestant], pixels: Contestant, asked: Sequence[Question]
) -> list[Comparison]:
    """Compare an encoder with random networks (with the best of them) and with pixels on each question."""
    level = 0.05 / (2 * len(asked))
    found = []
    for question in asked:
        own, fixed = question.ask(encoder), question.ask(pixels)
        fresh = np.stack([question.ask(each) for each in randoms])
        numbers = fresh[:, 0]
        best = f"best of {len(randoms)} random networks"
        for name, other, margin in (
            (best, fresh.max(axis=0), float(numbers.max() - numbers.min())),
            (pixels.name, fixed, 0.0),
        ):
            gap = own - other
            low, high = (float(x) for x in np.nanquantile(gap[1:], (level / 2, 1 - level / 2)))
            outcome = "ahead" if low > 0 and gap[0] > margin else "behind" if high < 0 else "level"
            found.append(
                Comparison(
                    question.name,
                    question.measure,
                    name,
                    own=float(question.sign * own[0]),
                    other=float(question.sign * other[0]),
                    difference=float(gap[0]),
                    low=low,
                    high=high,
                    margin=margin,
                    outcome=outcome,
                )
            )
    return found


def answer(comparisons: Sequence[Comparison], patients: int, steady: bool = True) -> tuple[str, str]:
    """The verdict, `yes`, `no` or `cannot tell`, and the sentence that explains it.

    Yes: ahead of both baselines in more than half of the questions, and behind neither in any.

    Args:
        comparisons: of all questions.
        patients: how many the films are of.
        steady: false where a film's vector depends on more than the film.
    """
    if not steady:
        return "no", "The network gives a film another vector when it is shown again: it answers by more than the film."
    if not comparisons:
        return "cannot tell", f"The films are of {patients} patients; {FEWEST} are the fewest that allow a comparison."
    names = list(dict.fromkeys(one.question for one in comparisons))
    outcomes = {name: {one.outcome for one in comparisons if one.question == name} for name in names}
    ahead = [name for name, found in outcomes.items() if found == {"ahead"}]
    behind = [f"{one.baseline} ({one.question})" for one in comparisons if one.outcome == "behind"]
    if 2 * len(ahead) > len(names) and not behind:
        return "yes", f"This encoder beats random networks and 16 x 16 pixels: {', '.join(ahead)}."
    if behind:
        return "no", f"This encoder is behind {', '.join(behind)}."
    level = [f"{one.baseline} ({one.question})" for one in comparisons if one.outcome == "level"]
    return "no", f"It is not shown that this encoder beats {', '.join(level)}."
