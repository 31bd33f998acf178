"""Which films of a manifest have which landmarks, and which are for training, validation and test."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

from cxw_monai.data.manifest import load_items
from cxw_monai.data.schema import LANDMARK
from cxw_monai.data.splits import Splits
from cxw_monai.tasks.films import log_splits, splits_of, subset_of

__all__ = ["landmark_items", "landmark_names", "landmark_splits", "landmark_subset"]

_logger = logging.getLogger(__name__)

Item = dict[str, Any]


def landmark_names(datalist: str | PathLike[str]) -> list[str]:
    """The landmarks of a manifest, in the order of its columns, less those that no film has.

    Raises:
        ValueError: it has none.
    """
    items = load_items(datalist=datalist, section="all")
    columns = dict.fromkeys(name for item in items for name in item if name.startswith(LANDMARK))
    known = [name for name in columns if any(item.get(name) is not None for item in items)]
    if not known:
        raise ValueError(
            f"{datalist}: no landmark is known on any of its {len(items)} films; it needs columns {LANDMARK}<name> of "
            "[x, y] in px of the film."
        )
    return [name.removeprefix(LANDMARK) for name in known]


def landmark_items(
    datalist: str | PathLike[str],
    points: Sequence[str],
    point_map: Mapping[str, str] | None = None,
    all_columns: bool = True,
) -> list[Item]:
    """Films of a manifest of which at least one landmark is known.

    An empty cell means that the landmark is unknown on that film, or not on it.

    Args:
        datalist: manifest with columns `landmark_<name>` of `[x, y]` (`cxw_monai.data.schema`).
        points: P names.
        point_map: where a landmark is not the column of its name: another name (`{"carina": "tracheal_fork"}`).
        all_columns: false takes a landmark without a column as one that is unknown on all films.

    Returns:
        The manifest's items without its landmark columns, with `points`: P pairs `[x, y]` as the manifest has them, or
        None where unknown.

    Raises:
        ValueError: a column that the manifest doesn't have (of all landmarks, where `all_columns` is false), or no film
            with a landmark.
    """
    items = load_items(datalist=datalist, section="all")
    present = dict.fromkeys(column for item in items for column in item)
    columns = {name: LANDMARK + str((point_map or {}).get(name, name)).removeprefix(LANDMARK) for name in points}
    missing = [name for name, column in columns.items() if column not in present]
    if missing and (all_columns or len(missing) == len(columns)):
        have = ", ".join(column for column in present if column.startswith(LANDMARK)) or "none"
        raise ValueError(
            f"{datalist}: no column {columns[missing[0]]} for the landmark {missing[0]!r}; its landmark columns are "
            f"{have}. Set points or point_map."
        )
    if missing:
        _logger.warning("%s: no column of %s, unknown on all films.", datalist, ", ".join(missing))
    found = []
    for item in items:
        pairs = [item.get(column) for column in columns.values()]
        if any(pair is not None for pair in pairs):
            kept = {name: value for name, value in item.items() if not name.startswith(LANDMARK)}
            found.append({**kept, "points": pairs})
    if not found:
        raise ValueError(f"{datalist}: none of its {len(items)} films has a landmark of {', '.join(points)}.")
    if len(found) < len(items):
        _logger.info("%s: %d of %d films have one of these landmarks.", datalist, len(found), len(items))
    return found


def landmark_splits(
    datalist: str | PathLike[str],
    points: Sequence[str],
    point_map: Mapping[str, str] | None = None,
    all_columns: bool = True,
    **parts_settings: Any,
) -> Splits:
    """Films for training, validation and test, each patient on one side.

    Args:
        datalist, points, point_map, all_columns: see `landmark_items`.
        parts_settings: `splits`, `val_fraction`, `test_fraction`, `test_datalist` and `seed`, see `splits_of`.

    Raises:
        ValueError: what `splits_of` refuses.
    """
    parts = splits_of(
        lambda manifest: landmark_items(manifest, points, point_map, all_columns), datalist, **parts_settings
    )
    log_splits(parts)
    for number, name in enumerate(points):
        if all(item["points"][number] is None for item in parts.train):
            _logger.warning("No training film has the landmark %s: it cannot be learnt.", name)
    return parts


def landmark_subset(subset: str, datalist: str | PathLike[str], **settings: Any) -> list[Item]:
    """The films of one subset for an evaluation.

    Args:
        subset: `train`, `validation` or `test` of `landmark_splits`, or `all` films of the manifest.
        datalist: the manifest.
        settings: further arguments of `landmark_splits`.

    Raises:
        ValueError: an unknown or empty subset.
    """
    wanted = {name: settings.get(name) for name in ("points", "point_map")}
    return subset_of(
        subset,
        datalist,
        lambda: landmark_splits(datalist, **settings, all_columns=False),
        lambda: landmark_items(datalist, **wanted, all_columns=False),  # type: ignore[arg-type]
    )
