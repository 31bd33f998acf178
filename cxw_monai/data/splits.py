"""Splits of a data set by patient."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Splits", "few_patients", "split_by_patient", "split_items"]

_COLUMN = {"training": "train", "validation": "validation", "test": "test"}

_logger = logging.getLogger(__name__)

Item = dict[str, Any]


class Splits(NamedTuple):
    """Items for training, for choosing the best epoch, and for the one test at the end (may be empty)."""

    train: list[Item]
    validation: list[Item]
    test: list[Item]


def split_items(
    items: Sequence[Item], how: str, val_fraction: float, test_fraction: float, seed: int, source: str
) -> Splits:
    """Items for training, validation and test, each patient on one side.

    Args:
        items: of a manifest (whose reader refuses a patient in two splits).
        how: ``"patient"`` draws validation and test patients; ``"column"`` follows the field ``split``
            (``training``, ``validation``, ``test``) and draws validation patients where it has none.
        val_fraction: share of the patients that are drawn for validation.
        test_fraction: share of all patients that are drawn for the test; 0 for none.
        seed: another seed, another draw.
        source: the manifest, for messages.

    Raises:
        ValueError: a setting out of its range, items without a split, or none to train on.
    """
    if how not in ("patient", "column"):
        raise ValueError(f"splits must be 'patient' or 'column', got {how!r}.")
    if how == "column":
        parts = _by_column(items, source)
    else:
        if any(item.get("split") for item in items):
            _logger.warning("%s has a column split, which is not followed: set splits to 'column' to do so.", source)
        rest, test = split_by_patient(items, test_fraction, seed) if test_fraction else (list(items), [])
        parts = Splits(rest, [], test)
    if not parts.train:
        raise ValueError(f"{source}: no film is left for training.")
    if not parts.validation:
        train, validation = split_by_patient(parts.train, val_fraction, seed)
        parts = Splits(train, validation, parts.test)
    return parts


def _by_column(items: Sequence[Item], source: str) -> Splits:
    parts = Splits([], [], [])
    for item in items:
        side = _COLUMN.get(str(item.get("split")))
        if side is None:
            raise ValueError(
                f"{source}: {item['image']} has the split {item.get('split')!r}, expected one of "
                f"{', '.join(_COLUMN)}; set splits to 'patient' to draw them."
            )
        getattr(parts, side).append(item)
    return parts


def split_by_patient(items: Sequence[Item], fraction: float = 0.1, seed: int = 0) -> tuple[list[Item], list[Item]]:
    """Hold out a share of the patients.

    A patient is an item's ``patient_id`` or, where there is none, its image file (by its path below the folder that
    all images share, so that a moved data set splits the same way). Patients are ranked by a hash of the seed and
    themselves: which side they fall on doesn't depend on the order of ``items``.

    Args:
        items: the data set.
        fraction: share of the patients to hold out, in (0, 1); at least one patient stays on either side.
        seed: another seed, another split.

    Returns:
        ``(train, held_out)``, both in the order of ``items``.

    Raises:
        ValueError: ``fraction`` is out of range, or there are fewer than two patients.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must lie in (0, 1), got {fraction}")
    folders = {os.path.dirname(item["image"]) for item in items}
    shared = os.path.commonpath(folders) if folders else ""
    groups = [_group(item, shared) for item in items]
    if all(kind == "file" for kind, _ in groups):
        _logger.warning(
            "No image has a patient_id: films are held out singly, and a patient may be on both sides. Give a datalist "
            "with a column patient_id for a split by patient."
        )
    ranked = _ranked(set(groups), seed)
    if len(ranked) < 2:
        raise ValueError(f"no patients can be held out: all {len(items)} images are of one; give images of two or more")
    held = set(ranked[: min(max(round(fraction * len(ranked)), 1), len(ranked) - 1)])
    train = [item for item, group in zip(items, groups, strict=True) if group not in held]
    held_out = [item for item, group in zip(items, groups, strict=True) if group in held]
    return train, held_out


def few_patients(items: Sequence[Item], wanted: Sequence[tuple[Sequence[bool], int]], seed: int = 0) -> list[Item]:
    """Films of a few patients, for learning from few labels.

    Patients are ranked as in `split_by_patient`. For each of `wanted` in its order, patients are taken until enough of
    those taken have such a film (or there are no more), those taken before counted in.

    Args:
        items: the data set.
        wanted: which of the items count (one bool an item), and how many patients with such an item are wanted.
        seed: another seed, another draw.

    Returns:
        One film a patient and want, the first that counts, in the order of ``items``.
    """
    folders = {os.path.dirname(item["image"]) for item in items}
    shared = os.path.commonpath(folders) if folders else ""
    groups = [_group(item, shared) for item in items]
    ranked = _ranked(set(groups), seed)
    chosen: set[int] = set()
    for counts, number in wanted:
        first: dict[tuple[str, str], int] = {}
        for place, (group, counted) in enumerate(zip(groups, counts, strict=True)):
            if counted:
                first.setdefault(group, place)
        have = {groups[place] for place in chosen if counts[place]}
        for group in ranked:
            if len(have) >= number:
                break
            if group in first and group not in have:
                have.add(group)
                chosen.add(first[group])
    return [item for place, item in enumerate(items) if place in chosen]


def _group(item: Item, shared: str) -> tuple[str, str]:
    """What must stay on one side of a split."""
    patient = item.get("patient_id")
    if patient is not None and str(patient) != "":
        return "patient", str(patient)
    return "file", Path(os.path.relpath(item["image"], shared)).as_posix()


def _ranked(groups: Iterable[tuple[str, str]], seed: int) -> list[tuple[str, str]]:
    """Groups in a fixed pseudo-random order: that of the SHA-256 of `[seed, kind, name]` as JSON."""
    return sorted(groups, key=lambda group: (hashlib.sha256(json.dumps([seed, *group]).encode()).digest(), group))
