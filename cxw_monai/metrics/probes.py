"""Frozen probes: how much of a label can be read off descriptors that were made without it.

Standardised descriptors go to a logistic regression. It is fitted on one part of the films and tested on another, given
as such or by cross-validation (scikit-learn's ``StratifiedGroupKFold``), which never have a patient on both sides. The
strength of the regularisation is chosen by folds inside each training part. Descriptors that have tokens may also be
read by place and by attention (:data:`READINGS`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from .readings import COMPONENTS, STRENGTHS, attentive_scores, averaged, grid_pooled, linear_scores

__all__ = [
    "READINGS",
    "ProbeResult",
    "ProbeSettings",
    "binary_label",
    "grouped_auroc",
    "patient_folds",
    "bootstrap_weights",
    "patient_weights",
    "plain_value",
    "probe",
]

READINGS = {
    "mean": "logistic regression on the vector (an encoder's mean token)",
    "grid": "logistic regression on 128 principal components of the tokens averaged over 5 x 5 places",
    "attentive": "pooling of the tokens by a learnt query",
    "average": "mean of the ranks of the other three",
}
"""Ways to read a label off a film's descriptors; all but the first need tokens."""

_SHOWN = 3  # images or values named in a message
_QUANTILES = (0.025, 0.975)


@dataclass(frozen=True)
class ProbeSettings:
    """How a probe is run.

    Attributes:
        folds: outer folds, at least 2; a label needs as many patients with each of its values.
        inner_folds: folds within a training part that choose C (fewer where it has fewer patients of a value).
        strengths: values of C (inverse strength of the L2 penalty on standardised descriptors) to choose from.
        bootstrap: resamplings of the patients for the interval; 0 for no interval.
        seed: of folds and bootstrap.
    """

    folds: int = 5
    inner_folds: int = 3
    strengths: tuple[float, ...] = STRENGTHS
    bootstrap: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("folds", 2), ("inner_folds", 2), ("bootstrap", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}.")
        if not self.strengths or min(self.strengths) <= 0:
            raise ValueError(f"strengths must be positive values of C, got {self.strengths}.")


@dataclass(frozen=True)
class ProbeResult:
    """What one probe gave.

    Attributes:
        descriptor, label: what was probed for what.
        reading: how, see :data:`READINGS`.
        auroc: see :func:`grouped_auroc`; None where it cannot be computed.
        low, high: 95 % percentile interval over resampled patients (of the scores, the probes are not fitted again).
        positive: the label's value that scores high.
        counts: images by value of the label that are scored: all, or those of the test part.
        missing: images left out because the label has no value there.
        patients: patients among the images that count.
        trained_on: images that the probe is fitted on, where there is a test part.
        strengths: chosen C of each fit of a logistic regression.
        reason: why there is no AUROC, else None.
    """

    descriptor: str
    label: str
    reading: str = "mean"
    auroc: float | None = None
    low: float | None = None
    high: float | None = None
    positive: str | None = None
    counts: dict[str, int] | None = None
    missing: int = 0
    patients: int = 0
    trained_on: int | None = None
    strengths: tuple[float, ...] = ()
    reason: str | None = None


def plain_value(value: Any) -> str | None:
    """A cell's value as text, None where there is none; 1, 1.0, True and "1.0" are all "1"."""
    text = "" if value is None else str(int(value) if isinstance(value, bool) else value).strip()
    try:
        number = float(text)
    except ValueError:
        return text or None
    if math.isnan(number):
        return None
    return str(int(number)) if number.is_integer() else text


def binary_label(values: Sequence[Any]) -> tuple[np.ndarray, list[str]]:
    """Read a binary label column.

    Args:
        values: one an image; None, an empty string and NaN are missing values.

    Returns:
        ``(classes, names)``: int64 ``[N]`` with 0, 1 (place in ``names``) or -1 for missing, and the two values in
        sorted order (``0, 1``; ``AP, PA``; ``F, M``), the second of which is the positive one. Other numbers of
        values give longer or shorter ``names``.
    """
    plain = [plain_value(value) for value in values]
    names = sorted({value for value in plain if value is not None})
    places = {name: place for place, name in enumerate(names)}
    return np.array([-1 if value is None else places[value] for value in plain], dtype=np.int64), names


def grouped_auroc(scores: np.ndarray, positive: np.ndarray, folds: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Share of the (positive, negative) pairs of one fold that are ranked right, over all folds; a tie counts half.

    Pairs across folds do not count: their scores come from different probes, whose intercepts lean against the class
    balance of the fold that was held out, so pooling them would push the AUROC of a useless descriptor below 0.5
    (Airola et al., Comput. Stat. Data Anal. 55, 2011).

    Args:
        scores: ``[N]``.
        positive: ``[N]`` bool.
        folds: ``[N]`` int, the fold in which an image was held out.
        weights: ``[R, N]``, how often each image counts, for R resamplings.

    Returns:
        ``[R]``; NaN where a resampling leaves no pair.
    """
    right, pairs = np.zeros(len(weights)), np.zeros(len(weights))
    for fold in np.unique(folds):
        chosen = np.flatnonzero(folds == fold)
        chosen = chosen[np.argsort(scores[chosen], kind="stable")]
        starts = np.flatnonzero(np.diff(scores[chosen], prepend=-np.inf))  # first of each run of equal scores
        if len(starts) == 0 or starts[0] != 0:
            starts = np.concatenate([[0], starts])
        part = weights[:, chosen].astype(np.float64)
        upper = np.add.reduceat(part * positive[chosen], starts, axis=1)  # [R, runs]
        lower = np.add.reduceat(part * ~positive[chosen], starts, axis=1)
        right += (upper * (lower.cumsum(axis=1) - lower / 2)).sum(axis=1)
        pairs += upper.sum(axis=1) * lower.sum(axis=1)
    return np.divide(right, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)


def patient_folds(classes: np.ndarray, groups: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Number of the fold in which each image is held out, ``[N]``; a patient is in one fold only."""
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    folds = np.full(len(classes), -1)
    for number, (_, held_out) in enumerate(splitter.split(np.zeros((len(classes), 1)), classes, groups)):
        folds[held_out] = number
    return folds


def _obstacle(names: list[str], classes: np.ndarray, groups: np.ndarray, folds: int) -> str | None:
    """Why a label cannot be probed, or None."""
    if len(names) != 2:
        shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
        return f"{len(names)} values ({shown}), two are needed" if names else "no values"
    patients = [len(np.unique(groups[classes == value])) for value in (0, 1)]
    if min(patients) < folds:
        place = int(np.argmin(patients))
        return f"{patients[place]} patients with {names[place]}, {folds} folds need at least {folds}"
    return None


def _split_obstacle(names: list[str], classes: np.ndarray, train: np.ndarray) -> str | None:
    """Why a label cannot be learnt on one part and tested on the other, or None."""
    for part, chosen in (("training", train), ("test", ~train)):
        there = [name for place, name in enumerate(names) if (classes[chosen] == place).any()]
        if len(there) != 2 or len(names) != 2:
            shown = ", ".join(there[:_SHOWN]) + (", ..." if len(there) > _SHOWN else "")
            return f"{len(there)} values ({shown}) in the {part} part, the same two are needed in both"
    return None


def patient_weights(patients: np.ndarray, draws: int, seed: int = 0) -> np.ndarray:
    """How often each film counts when the patients are drawn with replacement, ``[draws, N]``."""
    _, member = np.unique(patients, return_inverse=True)
    count = int(member.max()) + 1
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)
    return drawn.astype(np.uint16)[:, member]


def bootstrap_weights(patients: np.ndarray, draws: int, seed: int = 0) -> np.ndarray:
    """Every film once, and then `patient_weights`, ``[1 + draws, N]``."""
    return np.concatenate([np.ones((1, len(patients)), np.uint16), patient_weights(patients, draws, seed)])


def probe(
    values: np.ndarray,
    labels: Sequence[Any],
    patients: Sequence[Any],
    settings: ProbeSettings | None = None,
    descriptor: str = "",
    label: str = "",
    *,
    train: np.ndarray | None = None,
    reading: str = "mean",
    tokens: np.ndarray | None = None,
) -> ProbeResult:
    """Probe descriptors for one binary label.

    Args:
        values: ``[N, D]``, a row an image.
        labels: ``N`` values, see :func:`binary_label`.
        patients: ``N`` patient ids.
        settings: folds, strengths, bootstrap and seed.
        descriptor, label: names for the result.
        train: bool ``[N]``, images to fit on; the others are tested on. None for cross-validation.
        reading: one of :data:`READINGS`.
        tokens: ``[N, n * n, C]``, for the readings that need them.

    Returns:
        The result; one without AUROC and with a ``reason`` where the label has not two values or too few patients.

    Raises:
        ValueError: if the lengths differ, a reading is unknown or lacks its tokens, or a patient is on both sides.
    """
    settings = settings or ProbeSettings()
    if not len(values) == len(labels) == len(patients):
        raise ValueError(f"values, labels and patients differ in length: {len(values)}, {len(labels)}, {len(patients)}")
    if reading not in READINGS:
        raise ValueError(f"reading must be one of {', '.join(READINGS)}, got {reading!r}")
    if reading != "mean" and tokens is None:
        raise ValueError(f"{descriptor}: the reading {reading!r} needs tokens, and there are none")
    classes, names = binary_label(labels)
    known = classes >= 0
    groups = np.unique(np.array([str(patient) for patient in patients]), return_inverse=True)[1]
    if train is not None and (both := np.intersect1d(groups[train], groups[~train])).size:
        raise ValueError(f"{len(both)} patients have films in the training and in the test part")
    scored = known if train is None else known & ~train
    result = ProbeResult(
        descriptor,
        label,
        reading,
        positive=names[1] if len(names) == 2 else None,
        counts={name: int((classes[scored] == place).sum()) for place, name in enumerate(names)},
        missing=int((~known).sum()),
        patients=len(np.unique(groups[scored])),
        trained_on=None if train is None else int((known & train).sum()),
    )
    classes, groups, values = classes[known], groups[known], np.asarray(values, dtype=np.float64)[known]
    tokens = None if tokens is None else tokens[known]
    if train is None:
        reason = _obstacle(names, classes, groups, settings.folds)
        if reason is not None:
            return replace(result, reason=reason)
        folds = patient_folds(classes, groups, settings.folds, settings.seed)
    else:
        reason = _split_obstacle(names, classes, train[known])
        if reason is not None:
            return replace(result, reason=reason)
        folds = np.where(train[known], -1, 0)
    scores, strengths = np.zeros(len(classes)), []
    for fold in range(folds.max() + 1):
        fitted = folds != fold
        if len(np.unique(classes[fitted])) < 2:
            return replace(
                result, reason=f"all patients with one of the values fell into one of {settings.folds} folds"
            )
        scores[~fitted], chosen = _read(reading, values, tokens, classes, groups, fitted, settings)
        strengths += chosen
    return _summarised(replace(result, strengths=tuple(strengths)), scores, classes, groups, folds, settings)


def _read(
    reading: str,
    values: np.ndarray,
    tokens: np.ndarray | None,
    classes: np.ndarray,
    groups: np.ndarray,
    train: np.ndarray,
    settings: ProbeSettings,
) -> tuple[np.ndarray, list[float]]:
    """Scores of the images that aren't trained on, and the strengths that were chosen."""
    if reading in ("mean", "grid") or tokens is None:
        components = None
        if reading == "grid" and tokens is not None:
            values, components = grid_pooled(tokens), COMPONENTS
        scores, strength = linear_scores(
            values,
            classes == 1,
            groups,
            train,
            components=components,
            strengths=settings.strengths,
            folds=settings.inner_folds,
            seed=settings.seed,
        )
        return scores, [strength]
    if reading == "attentive":
        return attentive_scores(tokens, classes[:, None] == 1, train, seed=settings.seed)[:, 0], []
    parts = [_read(one, values, tokens, classes, groups, train, settings) for one in ("mean", "grid", "attentive")]
    return averaged([scores[:, None] for scores, _ in parts])[:, 0], [c for _, chosen in parts for c in chosen]


def _summarised(
    result: ProbeResult,
    scores: np.ndarray,
    classes: np.ndarray,
    groups: np.ndarray,
    folds: np.ndarray,
    settings: ProbeSettings,
) -> ProbeResult:
    """The result with its AUROC and interval, of the images that a fold holds out."""
    test = folds >= 0
    scores, positive, folds, groups = scores[test], classes[test] == 1, folds[test], groups[test]
    auroc = float(grouped_auroc(scores, positive, folds, np.ones((1, len(scores))))[0])
    if math.isnan(auroc):
        return replace(result, reason="no fold holds images of both values")
    result = replace(result, auroc=auroc)
    if settings.bootstrap == 0:
        return result
    spread = grouped_auroc(scores, positive, folds, patient_weights(groups, settings.bootstrap, settings.seed))
    low, high = np.nanquantile(spread, _QUANTILES)
    return replace(result, low=float(low), high=float(high))
