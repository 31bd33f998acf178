"""Calibrates a segmenter's probabilities on validation films.

Temperature scaling (Guo et al. 2017, https://arxiv.org/abs/1706.04599), a temperature per structure: its logits are
divided by it, which moves no mask at the threshold of 0.5. The temperature becomes part of the last convolution, so
that every way of using the weights gives calibrated probabilities.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit, logit
from torch import nn

from cxw_monai.data.manifest import read_datalist
from cxw_monai.inference.api import SegmentationModel
from cxw_monai.io.files.csv_files import write_rows
from cxw_monai.io.formats.pictures import read_mask
from cxw_monai.metrics.calibration import Temperature
from cxw_monai.metrics.classification import calibration_error as binned_error
from cxw_monai.quality.expected_dice import expected_dice

__all__ = ["calibration_error", "calibration_table", "fitted_temperature", "scale_logits", "validation_films"]

STEP = 4  # every 4th row and column of a film: neighbours are much alike

Film = tuple[np.ndarray, np.ndarray]
"""Logits and annotation of one structure on one film: float64 and bool `[h, w]`."""


def validation_films(model: SegmentationModel, manifest: Path, per_source: int) -> dict[str, list[Film]]:
    """By structure, the films of the validation split with a mask of it, of each source at most so many.

    Args:
        model: the segmenter.
        manifest: of `benchmarks.segmentation films`.
        per_source: films of a source; those whose names have the lowest checksum are taken.
    """
    items = [item for item in read_datalist(manifest, section="all") if item.get("split") == "validation"]
    taken: Counter[str] = Counter()
    films: dict[str, list[Film]] = {}
    for item in sorted(items, key=lambda item: zlib.crc32(str(item["id"]).encode())):
        taken[item["source"]] += 1
        if taken[item["source"]] > per_source:
            continue
        found = model.probabilities(item["image"])
        for name in model.structures:
            if item.get(f"mask_{name}"):
                values = logit(np.clip(found[name][::STEP, ::STEP].astype(np.float64), 1e-6, 1 - 1e-6))
                mask = read_mask(manifest.parent / str(item[f"mask_{name}"]))
                films.setdefault(name, []).append((values, mask[::STEP, ::STEP]))
    if not films:
        raise ValueError(f"{manifest}: no film of the split validation has a mask; give the manifest of `films`.")
    return films


def _pixels(films: Sequence[Film]) -> Film:
    logits, masks = zip(*films, strict=True)
    return np.concatenate([a.ravel() for a in logits]), np.concatenate([a.ravel() for a in masks])


def log_loss(films: Sequence[Film], temperature: float = 1.0) -> float:
    """Mean negative log likelihood of the pixels."""
    logits, masks = _pixels(films)
    return float(np.logaddexp(0, np.where(masks, -logits, logits) / temperature).mean())


def calibration_error(films: Sequence[Film], temperature: float = 1.0) -> float:
    """Expected calibration error of the pixels, in ten bins of equal width."""
    logits, masks = _pixels(films)
    return binned_error(expit(logits / temperature), masks)


def fitted_temperature(films: Sequence[Film]) -> float:
    """The temperature with the least log loss, see `Temperature.fit`."""
    logits, masks = _pixels(films)
    return Temperature.fit(logits[:, None], masks[:, None].astype(float)).values[0]


def _optimism(films: Sequence[Film], temperature: float) -> float:
    """Mean of the expected Dice less the true one."""
    surplus = []
    for logits, mask in films:
        drawn = logits >= 0
        if drawn.any():
            true = 2 * np.count_nonzero(drawn & mask) / (np.count_nonzero(drawn) + np.count_nonzero(mask))
            surplus.append(float(expected_dice(expit(logits / temperature)[None])[0]) - true)
    return float(np.mean(surplus)) if surplus else float("nan")


def calibration_table(films: Mapping[str, Sequence[Film]]) -> list[dict[str, Any]]:
    """A row per structure: the temperature of all its films, and what it brings on films that it wasn't fitted on.

    Each half of the films is measured with the temperature of the other half.

    Args:
        films: of `validation_films`; a structure needs two.

    Returns:
        `structure`, `films`, `temperature`, and `loss_*`, `error_*` (`calibration_error`) and `optimism_*` (expected
        less true Dice), each `before` and `after`.
    """
    measures = {"loss": log_loss, "error": calibration_error, "optimism": _optimism}
    rows = []
    for name, own in films.items():
        if len(own) < 2:
            raise ValueError(f"{name}: one validation film; at least two are needed to calibrate it")
        halves = own[::2], own[1::2]
        crossed = [(one, fitted_temperature(other)) for one, other in (halves, halves[::-1])]
        row = {"structure": name, "films": len(own), "temperature": fitted_temperature(own)}
        for measure, value in measures.items():
            row[f"{measure}_before"] = value(own, 1.0)
            row[f"{measure}_after"] = sum(value(one, t) * len(one) for one, t in crossed) / len(own)
        rows.append(row)
    return rows


def scale_logits(network: nn.Module, structures: Sequence[str], temperatures: Mapping[str, float]) -> None:
    """Divide a segmenter's logits by temperatures, within the weights of its last convolution.

    Args:
        network: `RadiographSegmenter` with a decoder whose last layer is `head`.
        structures: S names of its channels.
        temperatures: by structure; others stay as they are.
    """
    head: Any = network.decoder.head
    for parameter in (head.weight, head.bias):
        rows = parameter.data.view(len(structures), -1)
        for row, name in zip(rows, structures, strict=True):
            row.div_(temperatures.get(name, 1.0))


def write_table(rows: Sequence[Mapping[str, Any]], path: str | PathLike[str]) -> None:
    """The rows of `calibration_table` as a CSV."""
    with Path(path).open("w", newline="", encoding="utf-8") as stream:
        rounded = [{k: f"{v:.5f}" if isinstance(v, float) else v for k, v in row.items()} for row in rows]
        write_rows(stream, list(rows[0]), rounded)
