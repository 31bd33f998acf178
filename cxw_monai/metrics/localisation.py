"""Where a map says that a finding is, scored against boxes: the pointing game, and the overlap of boxes.

A map is any array over the whole film, higher where the finding is: attention, occlusion, surprise, similarity. Its
highest place is the point that it names; the connected parts above a share of its maximum are its boxes. The pointing
game is that of Zhang et al. (arXiv 1608.00507): a point in a box of the label is a hit.

Points are (x, y) and boxes (x, y, width, height) in fractions of the film, from its upper left corner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import find_objects, label
from torch.nn import functional as F

from .classification import Score
from .probes import bootstrap_weights

__all__ = [
    *("Box", "LocalisationScores", "MapFinding", "Point", "best_iou", "found_in", "hit", "iou"),
    *("localisation_scores", "moved_boxes", "union_share"),
]

SHARE = 0.5
"""Of a map's maximum, above which its boxes lie."""

_SIDE = 128  # rows and columns that maps are brought to
_MOVES = 200  # random places of a box, for chance

Point = tuple[float, float]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class MapFinding:
    """What a map names on one film.

    Attributes:
        point: its highest place; the middle of the film of a map that is even.
        boxes: of the parts above the threshold, that with the largest sum first; none of a map that is even.
    """

    point: Point
    boxes: list[Box]


def found_in(values: np.ndarray, share: float = SHARE, most: int = 3) -> MapFinding:
    """Point and boxes of a map.

    Args:
        values: `[rows, columns]` over the whole film, of any size; it is interpolated linearly.
        share: a box holds what is above this share of the way from the map's minimum to its maximum, in (0, 1).
        most: boxes at most.

    Raises:
        ValueError: no such map, values that are no numbers, or a share out of its range.
    """
    values = np.asarray(values, np.float32)
    if values.ndim != 2 or not values.size or not np.isfinite(values).all():
        raise ValueError(f"a map must be finite, of the shape [rows, columns]; got {list(values.shape)}.")
    if not 0 < share < 1 or most < 1:
        raise ValueError(f"share must lie between 0 and 1, and most be at least 1; got {share} and {most}.")
    if not np.ptp(values) > 0:
        return MapFinding((0.5, 0.5), [])
    fine = F.interpolate(torch.from_numpy(values)[None, None], (_SIDE, _SIDE), mode="bilinear")[0, 0].numpy()
    rows, columns = np.nonzero(fine == fine.max())
    point = float(columns.mean() + 0.5) / _SIDE, float(rows.mean() + 0.5) / _SIDE
    level = (fine - fine.min()) / np.ptp(fine)
    parts, count = label(level >= share)
    sums = [level[parts == number].sum() for number in range(1, count + 1)]
    slices = find_objects(parts)
    boxes = []
    for number in np.argsort(sums, kind="stable")[::-1][:most]:
        down, across = slices[int(number)]
        boxes.append((across.start / _SIDE, down.start / _SIDE, (across.stop - across.start) / _SIDE,
                      (down.stop - down.start) / _SIDE))  # fmt: skip
    return MapFinding(point, boxes)


def hit(point: Point, boxes: Sequence[Box]) -> bool:
    """Whether a point lies in one of the boxes, or on an edge of it."""
    x, y = point
    return any(left <= x <= left + width and top <= y <= top + height for left, top, width, height in boxes)


def iou(first: Box, second: Box) -> float:
    """Area that two boxes share, over the area that either has, in [0, 1]."""
    width = min(first[0] + first[2], second[0] + second[2]) - max(first[0], second[0])
    height = min(first[1] + first[3], second[1] + second[3]) - max(first[1], second[1])
    shared = max(width, 0.0) * max(height, 0.0)
    total = first[2] * first[3] + second[2] * second[3] - shared
    return shared / total if total > 0 else 0.0


def best_iou(predicted: Sequence[Box], true: Sequence[Box]) -> float:
    """Mean, over the true boxes, of the overlap with that predicted box which overlaps it most; 0 without any."""
    return float(np.mean([max((iou(one, box) for one in predicted), default=0.0) for box in true]))


def union_share(boxes: Sequence[Box]) -> float:
    """Share of the film that lies in one of the boxes: the hit rate of points drawn at random, in [0, 1]."""
    if not boxes:
        return 0.0
    table = np.array(boxes).clip(0, 1)
    xs = np.unique(np.concatenate([table[:, 0], (table[:, 0] + table[:, 2]).clip(0, 1)]))
    ys = np.unique(np.concatenate([table[:, 1], (table[:, 1] + table[:, 3]).clip(0, 1)]))
    middle_x, middle_y = (xs[:-1] + xs[1:]) / 2, (ys[:-1] + ys[1:]) / 2
    inside = np.array([[hit((x, y), boxes) for x in middle_x] for y in middle_y]).reshape(len(middle_y), len(middle_x))
    return float((inside * np.diff(ys)[:, None] * np.diff(xs)[None]).sum())


def moved_boxes(boxes: Sequence[Box], generator: np.random.Generator) -> list[Box]:
    """The same boxes, each at a place that is drawn evenly from those where it lies in the film."""
    places = generator.random((len(boxes), 2))
    return [
        (float(x * (1 - width)), float(y * (1 - height)), width, height)
        for (x, y), (_, _, width, height) in zip(places, boxes, strict=True)
    ]


@dataclass(frozen=True)
class LocalisationScores:
    """How well points and boxes name the places of a finding, over films.

    Attributes:
        films, patients: that have a box.
        hits: share of films whose point lies in a box (pointing game).
        chance_hits: the same of points drawn at random.
        overlap: mean of `best_iou`.
        chance_overlap: the same of the predicted boxes at random places.
        overlap_difference, hit_difference: to chance, with an interval of their own.
    """

    films: int
    patients: int
    hits: Score
    chance_hits: Score
    hit_difference: Score
    overlap: Score
    chance_overlap: Score
    overlap_difference: Score


def localisation_scores(
    found: Sequence[Sequence[MapFinding]],
    true: Sequence[Sequence[Box]],
    patients: Sequence[str],
    draws: int = 1000,
    seed: int = 0,
) -> LocalisationScores:
    """Scores of what was found on films, with 95 % intervals by bootstrap of the patients.

    Args:
        found: of each film, one finding; or several that stand for each other, whose mean counts (the centres of both
            lungs, say).
        true: of each film, at least one box.
        patients: of each film.
        draws: resamplings; 0 for no intervals.
        seed: of resamplings and random boxes.

    Raises:
        ValueError: lengths that differ, no film, or a film without a finding or without a box.
    """
    if not len(found) == len(true) == len(patients) or not len(true):
        raise ValueError(
            f"found, true and patients must be of the same films, at least one; got {len(found)}, {len(true)} and "
            f"{len(patients)}."
        )
    if not all(map(len, true)) or not all(map(len, found)):
        raise ValueError("every film needs at least one box and one finding.")
    generator = np.random.default_rng(seed)
    rows = [_of_film(own, boxes, generator) for own, boxes in zip(found, true, strict=True)]
    values = np.array(rows).T  # [4, N]
    groups = np.unique(np.array([str(one) for one in patients]), return_inverse=True)[1]
    weights = bootstrap_weights(groups, draws, seed).astype(np.float64)
    means = (weights @ values.T) / weights.sum(axis=1, keepdims=True)  # [1 + draws, 4]
    hits, chance_hits, overlap, chance_overlap = means.T
    return LocalisationScores(
        len(true),
        len(np.unique(groups)),
        Score.of(hits),
        Score.of(chance_hits),
        Score.of(hits - chance_hits),
        Score.of(overlap),
        Score.of(chance_overlap),
        Score.of(overlap - chance_overlap),
    )


def _of_film(
    found: Sequence[MapFinding], true: Sequence[Box], generator: np.random.Generator
) -> tuple[float, float, float, float]:
    """Hits and overlap of a film, each with chance."""
    hits = float(np.mean([hit(one.point, true) for one in found]))
    overlap = float(np.mean([best_iou(one.boxes, true) for one in found]))
    moved = [best_iou(moved_boxes(one.boxes, generator), true) for one in found for _ in range(_MOVES)]
    return hits, union_share(true), overlap, float(np.mean(moved))
