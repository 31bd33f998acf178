"""Frozen probes: how much of a label can be read linearly off embeddings that were made without it.

Standardised descriptors go to a logistic regression under cross-validation that never has a patient on both sides:
scikit-learn's ``StratifiedGroupKFold`` for the outer folds, and again inside each training part to choose the
strength of the regularisation.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from os import PathLike
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from cxw_monai.data.manifest import read_datalist

from .descriptors import Descriptors, load_descriptors, pixel_descriptors

__all__ = [
    "ProbeResult",
    "ProbeSettings",
    "binary_label",
    "format_results",
    "grouped_auroc",
    "probe",
    "probe_files",
]

Paths = Sequence[str | PathLike[str]]

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
    strengths: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
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
        auroc: see :func:`grouped_auroc`; None where it cannot be computed.
        low, high: 95 % percentile interval over resampled patients (of the scores, the probes are not fitted again).
        positive: the label's value that scores high.
        counts: images by value of the label.
        missing: images left out because the label has no value there.
        patients: patients among the images that count.
        strengths: chosen C of each outer fold.
        reason: why there is no AUROC, else None.
    """

    descriptor: str
    label: str
    auroc: float | None = None
    low: float | None = None
    high: float | None = None
    positive: str | None = None
    counts: dict[str, int] | None = None
    missing: int = 0
    patients: int = 0
    strengths: tuple[float, ...] = ()
    reason: str | None = None


def _plain(value: Any) -> str | None:
    """A label value as text, None where there is none; 1, 1.0, True and "1.0" are all "1"."""
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
    plain = [_plain(value) for value in values]
    names = sorted({value for value in plain if value is not None})
    places = {name: place for place, name in enumerate(names)}
    return np.array([places.get(value, -1) for value in plain], dtype=np.int64), names


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


def _patients_per_class(classes: np.ndarray, groups: np.ndarray) -> list[int]:
    return [len(np.unique(groups[classes == value])) for value in (0, 1)]


def _folds(classes: np.ndarray, groups: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Number of the fold in which each image is held out, ``[N]``; a patient is in one fold only."""
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    folds = np.full(len(classes), -1)
    for number, (_, held_out) in enumerate(splitter.split(np.zeros((len(classes), 1)), classes, groups)):
        folds[held_out] = number
    return folds


def _classifier(strength: float) -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))


def _held_out_probabilities(
    values: np.ndarray, classes: np.ndarray, folds: np.ndarray, strength: float
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of the held-out images and which images have one (a one-class training part gives none)."""
    found = np.full(len(classes), np.nan)
    for fold in np.unique(folds):
        held_out = folds == fold
        if len(np.unique(classes[~held_out])) == 2:
            fitted = _classifier(strength).fit(values[~held_out], classes[~held_out])
            found[held_out] = fitted.predict_proba(values[held_out])[:, 1]
    return found, ~np.isnan(found)


def _choose_strength(values: np.ndarray, classes: np.ndarray, groups: np.ndarray, settings: ProbeSettings) -> float:
    """The C of least log loss on patients held out within a training part; the strongest penalty where none can be."""
    count = min(settings.inner_folds, *_patients_per_class(classes, groups))
    if count < 2 or len(settings.strengths) == 1:
        return min(settings.strengths)
    folds = _folds(classes, groups, count, settings.seed)
    losses = {}
    for strength in sorted(settings.strengths):
        found, known = _held_out_probabilities(values, classes, folds, strength)
        losses[strength] = log_loss(classes[known], found[known], labels=[0, 1]) if known.any() else math.inf
    return min(losses, key=losses.__getitem__)


def _obstacle(names: list[str], classes: np.ndarray, groups: np.ndarray, folds: int) -> str | None:
    """Why a label cannot be probed, or None."""
    if len(names) != 2:
        shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
        return f"{len(names)} values ({shown}), two are needed" if names else "no values"
    patients = _patients_per_class(classes, groups)
    if min(patients) < folds:
        place = int(np.argmin(patients))
        return f"{patients[place]} patients with {names[place]}, {folds} folds need at least {folds}"
    return None


def _bootstrap_weights(groups: np.ndarray, settings: ProbeSettings) -> np.ndarray:
    """How often each image counts when the patients are drawn with replacement, ``[R, N]``."""
    _, member = np.unique(groups, return_inverse=True)
    patients = int(member.max()) + 1
    rng = np.random.default_rng(settings.seed)
    drawn = rng.multinomial(patients, np.full(patients, 1 / patients), size=settings.bootstrap)
    return drawn.astype(np.uint16)[:, member]


def probe(
    values: np.ndarray,
    labels: Sequence[Any],
    patients: Sequence[Any],
    settings: ProbeSettings | None = None,
    descriptor: str = "",
    label: str = "",
) -> ProbeResult:
    """Probe descriptors for one binary label.

    Args:
        values: ``[N, D]``, a row an image.
        labels: ``N`` values, see :func:`binary_label`.
        patients: ``N`` patient ids.
        settings: folds, strengths, bootstrap and seed.
        descriptor, label: names for the result.

    Returns:
        The result; one without AUROC and with a ``reason`` where the label has not two values or too few patients.

    Raises:
        ValueError: if the lengths differ.
    """
    settings = settings or ProbeSettings()
    if not len(values) == len(labels) == len(patients):
        raise ValueError(f"values, labels and patients differ in length: {len(values)}, {len(labels)}, {len(patients)}")
    classes, names = binary_label(labels)
    known = classes >= 0
    groups = np.unique(np.array([str(patient) for patient in patients]), return_inverse=True)[1][known]
    classes, values = classes[known], np.asarray(values, dtype=np.float64)[known]
    result = ProbeResult(
        descriptor,
        label,
        positive=names[1] if len(names) == 2 else None,
        counts={name: int((classes == place).sum()) for place, name in enumerate(names)},
        missing=int((~known).sum()),
        patients=len(np.unique(groups)),
    )
    reason = _obstacle(names, classes, groups, settings.folds)
    if reason is not None:
        return replace(result, reason=reason)
    folds = _folds(classes, groups, settings.folds, settings.seed)
    scores, strengths = np.empty(len(classes)), []
    for fold in range(settings.folds):
        held_out = folds == fold
        if len(np.unique(classes[~held_out])) < 2:
            return replace(
                result, reason=f"all patients with one of the values fell into one of {settings.folds} folds"
            )
        strength = _choose_strength(values[~held_out], classes[~held_out], groups[~held_out], settings)
        fitted = _classifier(strength).fit(values[~held_out], classes[~held_out])
        scores[held_out] = fitted.decision_function(values[held_out])
        strengths.append(strength)
    positive = classes == 1
    auroc = float(grouped_auroc(scores, positive, folds, np.ones((1, len(scores))))[0])
    if math.isnan(auroc):
        return replace(result, reason="no fold holds images of both values")
    result = replace(result, auroc=auroc, strengths=tuple(strengths))
    if settings.bootstrap == 0:
        return result
    spread = grouped_auroc(scores, positive, folds, _bootstrap_weights(groups, settings))
    low, high = np.nanquantile(spread, _QUANTILES)
    return replace(result, low=float(low), high=float(high))


def _rows_of(descriptors: Descriptors, rows: dict[str, dict[str, Any]], datalist: str) -> list[dict[str, Any]]:
    """The manifest's rows of the images, in their order."""
    unmatched = [image for image in descriptors.images if image not in rows]
    if unmatched:
        shown = ", ".join(unmatched[:_SHOWN]) + (", ..." if len(unmatched) > _SHOWN else "")
        raise ValueError(
            f"{descriptors.name}: {len(unmatched)} of {len(descriptors.images)} images are not in {datalist} "
            f"({shown}); give the manifest that the embeddings were made from, images are matched by absolute path"
        )
    return [rows[image] for image in descriptors.images]


def _patient_of(row: dict[str, Any]) -> tuple[str, str]:
    patient = _plain(row.get("patient_id"))
    return ("image", row["image"]) if patient is None else ("patient", patient)


def probe_files(
    embeddings: Paths,
    datalist: str | PathLike[str],
    labels: Sequence[str],
    settings: ProbeSettings | None = None,
    pixels: int | None = None,
    tokens: bool = False,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Probe embedding files for the labels of a manifest.

    An image without ``patient_id`` counts as a patient of its own, and is counted in the report.

    Args:
        embeddings: ``.npz`` files (see :func:`load_descriptors`).
        datalist: manifest with ``image``, ``patient_id`` and the labels.
        labels: its columns to probe for.
        settings: of the probes.
        pixels: add a row for the films of the first file shrunk to this many pixels a side.
        tokens: add a row per file for its patch tokens (mean and standard deviation per channel).
        progress: called with a line before each probe.

    Returns:
        ``{"datalist", "settings", "descriptors": [...], "results": [...]}`` of JSON types, a result a descriptor and
        label with the fields of :class:`ProbeResult`.

    Raises:
        ValueError: a malformed file, an image that the manifest lacks or has twice, or a label that is no column.
        FileNotFoundError: a missing file.
    """
    settings = settings or ProbeSettings()
    rows = {}
    for item in read_datalist(datalist, section="all"):
        if item["image"] in rows:
            raise ValueError(f"{datalist}: image {item['image']} is there more than once")
        rows[item["image"]] = item
    columns = {name for row in rows.values() for name in row}
    for label in labels:
        if label not in columns:
            raise ValueError(f"{datalist}: no column {label!r} among {sorted(columns)}")
    described = [
        load_descriptors(path, kind) for path in embeddings for kind in ((False, True) if tokens else (False,))
    ]
    matched = [_rows_of(each, rows, str(datalist)) for each in described]
    if pixels is not None:
        described.append(pixel_descriptors(described[0].images, pixels))
        matched.append(matched[0])
    summaries, results = [], []
    for each, items in zip(described, matched, strict=True):
        patients = [_patient_of(row) for row in items]
        summaries.append(
            {
                "name": each.name,
                "images": len(items),
                "dimensions": each.values.shape[1],
                "images_without_patient_id": sum(kind == "image" for kind, _ in patients),
                "manifest_rows_without_embedding": len(rows) - len(items),
            }
        )
        for label in labels:
            if progress is not None:
                progress(f"{each.name}: {label}")
            result = probe(each.values, [row.get(label) for row in items], patients, settings, each.name, label)
            results.append(asdict(result))
    report = {"datalist": str(datalist), "settings": asdict(settings), "descriptors": summaries, "results": results}
    return json.loads(json.dumps(report))  # tuples become lists, as a reader of the file sees them


def format_results(results: Sequence[dict[str, Any]]) -> str:
    """A table of the results of :func:`probe_files`, one row a descriptor and label."""
    lines = [("descriptor", "label", "AUROC [95 % interval]", "n", "patients", "positive", "missing")]
    for r in results:
        value = f"not computable: {r['reason']}"
        if r["auroc"] is not None:
            value = f"{r['auroc']:.3f}" + ("" if r["low"] is None else f" [{r['low']:.3f}, {r['high']:.3f}]")
        positive = "-" if r["positive"] is None else f"{r['counts'][r['positive']]} {r['positive']}"
        counts = [str(number) for number in (sum(r["counts"].values()), r["patients"])]
        lines.append((r["descriptor"], r["label"], value, *counts, positive, str(r["missing"])))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)
