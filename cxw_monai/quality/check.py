"""Checks a folder of radiographs."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from os import PathLike
from typing import Any

import numpy as np
from tqdm import tqdm

from cxw_monai.data.manifest import find_images
from cxw_monai.io.results.film_names import film_name

from .hashes import near_groups
from .isolation import Failed, run_isolated
from .measure import measure_file
from .records import CHECKS, FilmRecord, QualitySettings

__all__ = ["check_radiographs"]


def check_radiographs(
    items_or_folder: str | PathLike[str] | Sequence[Mapping[str, Any]],
    settings: QualitySettings | None = None,
    *,
    workers: int = 1,
    progress: bool = False,
) -> list[FilmRecord]:
    """Look for files that would spoil a data set.

    Files are read in separate processes: one that crashes its process or hangs is reported as unreadable, and the rest
    are read.

    Args:
        items_or_folder: a folder (searched by :func:`~cxw_monai.data.manifest.find_images`) or items with ``image``.
        settings: limits of the checks.
        workers: number of processes, at least 1.
        progress: show a progress bar.

    Returns:
        A record per file in the order of the items, with its :func:`~cxw_monai.io.results.film_names.film_name` below
        the folder (for items: below the folder that all of them share).

    Raises:
        ValueError: the folder doesn't exist, there is nothing to check, or ``workers`` is below 1.
    """
    settings = settings or QualitySettings()
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    if isinstance(items_or_folder, (str, PathLike)):
        root, paths = os.path.abspath(items_or_folder), [item["image"] for item in find_images(items_or_folder)]
    else:
        paths = [os.path.abspath(item["image"]) for item in items_or_folder]
        root = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ""
    if not paths:
        raise ValueError(f"{items_or_folder}: no radiographs to check")
    records: dict[int, FilmRecord] = {}
    results = run_isolated(partial(measure_file, settings=settings), paths, workers, settings.file_seconds)
    for index, result in tqdm(results, total=len(paths), desc="films", unit="film", disable=not progress):
        record = result
        if isinstance(result, Failed):
            record = FilmRecord(paths[index], ["unreadable"], f"{result.reason}; look at this file by itself")
        record.image = film_name(paths[index], root)
        records[index] = record
    ordered = [records[index] for index in range(len(paths))]
    _mark_duplicates(ordered, settings.near_distance)
    for record in ordered:
        record.flags.sort(key=list(CHECKS).index)
    return ordered


def _mark_duplicates(records: Sequence[FilmRecord], distance: int) -> None:
    """Number the groups of equal and of nearly equal films.

    A group of near duplicates may hold exact ones too; films without contrast have no telling hash and are left out.
    """
    equal = defaultdict(list)
    for record in records:
        if record.pixel_hash:
            equal[record.pixel_hash].append(record)
    for number, group in enumerate((group for group in equal.values() if len(group) > 1), start=1):
        for record in group:
            record.duplicate_group = number
            record.flags.append("duplicate")
    first = [group[0] for group in equal.values() if "low_contrast" not in group[0].flags]
    if distance < 0 or not first:
        return
    near = defaultdict(list)
    for record, label in zip(first, near_groups(np.stack([r.hash_bits() for r in first]), distance), strict=True):
        near[label].append(record)
    for number, group in enumerate((group for group in near.values() if len(group) > 1), start=1):
        for member in (record for one in group for record in equal[one.pixel_hash]):
            member.near_duplicate_group = number
            member.flags.append("near_duplicate")
