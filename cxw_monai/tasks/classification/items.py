"""Which films of a manifest have which labels, and which are for training, validation and test."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

from cxw_monai.data.manifest import load_items
from cxw_monai.data.splits import Splits, few_patients, split_by_patient
from cxw_monai.tasks.films import log_splits, splits_of, subset_of

__all__ = ["classification_splits", "classification_subset", "labelled_items"]

_logger = logging.getLogger(__name__)

Item = dict[str, Any]
LabelMap = Mapping[str, str | Mapping[str, Any]]


def labelled_items(
    datalist: str | PathLike[str],
    classes: Sequence[str],
    label_map: LabelMap | None = None,
    target: str = "multi_label",
    all_columns: bool = True,
) -> list[Item]:
    """Films of a manifest of which at least one label is known.

    An empty cell means that the label is unknown on that film, which is not the same as absent.

    Args:
        datalist: manifest with columns `label_<class>` (or the class's own name) of 1, 0 or nothing.
        classes: L names.
        label_map: where a class is not the column of its name: another column, or `{column: value}`, which is 1 where
            the column has that text, and 0 where it has another one (`{"AP": {"view": "AP"}}`).
        target: `multi_label`, or `multi_class`: a film is of the class that is 1, and is left out where none is.
        all_columns: false takes a class without a column as one that is unknown on all films.

    Returns:
        The manifest's items with `labels`: L numbers 1.0 or 0.0, or None where unknown.

    Raises:
        ValueError: a column that the manifest does not have (of all classes, where `all_columns` is false), a label
            that is neither 1, 0 nor empty, no film with a label, or, of a `multi_class` target, a film of two classes.
    """
    items = load_items(datalist=datalist, section="all")
    present = dict.fromkeys(column for item in items for column in item)
    wanted = {name: (label_map or {}).get(name, name) for name in classes}
    found = [name for name in classes if not present.keys().isdisjoint(_choices(name, wanted[name]))]
    required = classes if all_columns or not found else found
    columns = {name: _column(name, wanted[name], present, datalist) for name in required}
    if unknown := [name for name in classes if name not in columns]:
        _logger.warning("%s: no column of %s, unknown on all films.", datalist, ", ".join(unknown))
    labelled = []
    for item in items:
        labels = [_value(item, *columns[name], datalist) if name in columns else None for name in classes]
        ones = [name for name, label in zip(classes, labels, strict=True) if label == 1]
        if target == "multi_class" and len(ones) > 1:
            raise ValueError(
                f"{datalist}: {item['image']} is of the classes {', '.join(ones)}; set target multi_label."
            )
        if ones if target == "multi_class" else any(label is not None for label in labels):
            labelled.append({**item, "labels": labels})
    if not labelled:
        raise ValueError(f"{datalist}: none of its {len(items)} films has a label of {', '.join(classes)}.")
    if len(labelled) < len(items):
        _logger.info("%s: %d of %d films have one of these labels.", datalist, len(labelled), len(items))
    return labelled


def _choices(name: str, wanted: str | Mapping[str, Any]) -> list[str]:
    """Columns that a class may be read from, the first that is there."""
    if not isinstance(wanted, Mapping):
        return [f"label_{wanted}", wanted]
    if len(wanted) != 1:
        raise ValueError(f"label_map of {name!r} must be a column or one {{column: value}}, got {dict(wanted)}.")
    return list(wanted)


def _column(
    name: str, wanted: str | Mapping[str, Any], present: Mapping[str, Any], datalist: Any
) -> tuple[str, str | None]:
    """The column of a class, and the text in it that means the class, or None where it holds 1 and 0."""
    choices = _choices(name, wanted)
    found = next((one for one in choices if one in present), None)
    if found is None:
        have = ", ".join(column for column in present if column.startswith("label_")) or ", ".join(present)
        raise ValueError(
            f"{datalist}: no column {' or '.join(choices)} for the class {name!r}; it has {have}. Set classes or "
            "label_map."
        )
    return found, str(wanted[found]) if isinstance(wanted, Mapping) else None


def _value(item: Item, column: str, value: str | None, datalist: Any) -> float | None:
    """A film's label, None where it is unknown."""
    cell = item.get(column)
    if cell in (None, ""):
        return None
    if value is not None:
        return float(str(cell) == value)
    try:
        number = float(cell)
    except (TypeError, ValueError):
        number = -1.0
    if number not in (0.0, 1.0):
        raise ValueError(
            f"{datalist}: {item['image']} has {cell!r} in {column}, expected 1, 0 or nothing (unknown); a text is a "
            "label by label_map: {class: {column: text}}."
        )
    return number


def classification_splits(
    datalist: str | PathLike[str],
    classes: Sequence[str],
    label_map: LabelMap | None = None,
    target: str = "multi_label",
    label_fraction: float = 1.0,
    shots: int | None = None,
    seed: int = 0,
    all_columns: bool = True,
    **parts_settings: Any,
) -> Splits:
    """Films for training, validation and test, each patient on one side.

    Args:
        datalist, classes, label_map, target, all_columns: see `labelled_items`.
        label_fraction: share of the training patients that are used, drawn by the seed; those of a smaller share are
            among those of a larger one.
        shots: training patients a class, drawn by the seed; see `few_patients`. None for all.
        seed: another seed, another draw.
        parts_settings: `splits`, `val_fraction`, `test_fraction`, `test_datalist`, see `splits_of`.

    Raises:
        ValueError: what `splits_of` refuses, a share out of its range, or training films with one value of each class.
    """
    parts = splits_of(
        lambda manifest: labelled_items(manifest, classes, label_map, target, all_columns),
        datalist,
        seed=seed,
        **parts_settings,
    )
    if not 0 < label_fraction <= 1:
        raise ValueError(f"label_fraction must lie in (0, 1], got {label_fraction}.")
    if label_fraction < 1:
        parts = parts._replace(train=split_by_patient(parts.train, label_fraction, seed)[1])
    if shots is not None:
        parts = parts._replace(train=few_patients(parts.train, _wanted(classes, parts.train, shots, datalist), seed))
    log_splits(parts)
    if not (learnt := _with_both_values(classes, parts.train)):
        raise ValueError(
            f"{datalist}: nothing to learn: of no class do the {len(parts.train)} training films have both 1 and 0. "
            "Add films, or set splits."
        )
    for name in classes:
        if name not in learnt:
            _logger.warning("Every training film with a known label of %s has the same: it cannot be learnt.", name)
    if parts.validation and not _with_both_values(classes, parts.validation):
        _logger.warning(
            "No class has both 1 and 0 among the %d validation films, so they can't choose an epoch: the last one is "
            "kept. Set a larger val_fraction, or splits.",
            len(parts.validation),
        )
    return parts


def _with_both_values(classes: Sequence[str], films: Sequence[Item]) -> list[str]:
    """Classes that some of these films have and some haven't."""
    return [name for number, name in enumerate(classes) if {0.0, 1.0} <= {item["labels"][number] for item in films}]


def _wanted(classes: Sequence[str], train: Sequence[Item], shots: int, datalist: Any) -> list[tuple[list[bool], int]]:
    """Which films count as shots, and how many patients are wanted: each class, and of a single class its absence."""
    wanted = [([item["labels"][number] == 1 for item in train], shots) for number in range(len(classes))]
    if len(classes) == 1:
        wanted.append(([item["labels"][0] == 0 for item in train], shots))
    for name, (films, _) in zip((*classes, f"no {classes[0]}"), wanted, strict=False):
        if not any(films):
            raise ValueError(f"{datalist}: no training film of {name} to draw shots from.")
    return wanted


def classification_subset(subset: str, datalist: str | PathLike[str], **settings: Any) -> list[Item]:
    """The films of one subset for an evaluation.

    Args:
        subset: `train`, `validation` or `test` of `classification_splits`, or `all` films of the manifest.
        datalist: the manifest.
        settings: further arguments of `classification_splits`.

    Raises:
        ValueError: an unknown or empty subset.
    """
    wanted: dict[str, Any] = {name: settings[name] for name in ("classes", "label_map", "target")}
    return subset_of(
        subset,
        datalist,
        lambda: classification_splits(datalist, **settings, all_columns=False),
        lambda: labelled_items(datalist, **wanted, all_columns=False),
    )
