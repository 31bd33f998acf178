"""Which films of a manifest have masks of which structures, and which are for training, validation and test."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from cxw_monai.data.manifest import load_items
from cxw_monai.data.splits import Splits
from cxw_monai.tasks.films import log_splits, splits_of, subset_of

__all__ = ["annotated_items", "segmentation_splits", "segmentation_subset"]

_logger = logging.getLogger(__name__)

Item = dict[str, Any]
Columns = str | Sequence[str]
StructureMap = Mapping[str, Columns | Mapping[str, Columns]]


def annotated_items(
    datalist: str | PathLike[str],
    structures: Sequence[str],
    structure_map: StructureMap | None = None,
    absent_labels: Mapping[str, str] | None = None,
    all_columns: bool = True,
) -> list[Item]:
    """Films of a manifest with at least one known mask among the structures.

    An empty mask cell means that nobody drew the structure on that film: it is unknown there, which is not the same as
    absent.

    Args:
        datalist: manifest with columns `mask_<structure>`, paths relative to it.
        structures: names of the wanted structures.
        structure_map: where a structure is not the column of its name: another name, or several whose masks are
            united (`{"heart": "cardiomediastinum", "lungs": ["lung_left", "lung_right"]}`); a column without the
            prefix `mask_` is given by its full name. A union is known where all of its parts are. Where films of
            several sources mean different things by one name, `{source: column or columns}` says it by the manifest's
            column `source` (`{"lung_field_left": {"jsrt": "lung_left", "wingspan": "left_lung"}}`); on films of
            other sources the structure is unknown.
        absent_labels: `{structure: column}`; an empty cell of the structure where this column is 0 means that it is
            known to be absent (a film without the finding).
        all_columns: false takes a structure without a column as one that nobody drew on any of the films.

    Returns:
        The manifest's items without its mask columns, with `masks`: the files of each known structure, an empty list
        where it is known to be absent.

    Raises:
        ValueError: a column that the manifest does not have (of all structures, where `all_columns` is false), or no
            film with a mask.
    """
    items = load_items(datalist=datalist, section="all")
    folder = Path(os.path.abspath(datalist)).parent
    present = dict.fromkeys(column for item in items for column in item)
    chosen = structure_map or {}
    sources = {str(item.get("source") or "") for item in items}
    _warn_of_sources(chosen, sources, datalist)
    columns = {
        (source, name): _columns(name, _of_source(chosen.get(name, name), source), present, datalist, all_columns)
        for source in sources
        for name in structures
    }
    absent = dict(absent_labels or {})
    if not any(columns.values()) and not absent:
        for source in sources:
            _columns(structures[0], _of_source(chosen.get(structures[0], structures[0]), source), present, datalist)
    unknown = [name for name in absent if name not in structures] + [c for c in absent.values() if c not in present]
    if unknown:
        raise ValueError(f"{datalist}: absent_labels names {unknown}, not among the structures or the columns.")
    annotated = []
    for item in items:
        source = str(item.get("source") or "")
        masks = {name: _files(item, columns[source, name], absent.get(name), folder) for name in structures}
        masks = {name: files for name, files in masks.items() if files is not None}
        if masks:
            kept = {name: value for name, value in item.items() if not name.startswith(("mask_", "finding_mask_"))}
            annotated.append({**kept, "masks": masks})
    if not annotated:
        raise ValueError(f"{datalist}: none of its {len(items)} films has a mask of {', '.join(structures)}.")
    if len(annotated) < len(items):
        _logger.info("%s: %d of %d films have a mask of these structures.", datalist, len(annotated), len(items))
    return annotated


def _of_source(wanted: Columns | Mapping[str, Columns], source: str) -> Columns:
    """Which columns a structure is on films of a source; none where the source isn't named."""
    return wanted.get(source, ()) if isinstance(wanted, Mapping) else wanted


def _warn_of_sources(chosen: StructureMap, sources: set[str], datalist: Any) -> None:
    """Name sources of the map that the manifest has no film of: they may be misspelt, or another manifest's."""
    named = {source for wanted in chosen.values() if isinstance(wanted, Mapping) for source in wanted}
    if named - sources:
        have = ", ".join(sorted(filter(None, sources))) or "none"
        missing = ", ".join(sorted(named - sources))
        _logger.warning(
            "%s: no film of the sources %s of structure_map; its column source has %s.", datalist, missing, have
        )


def _columns(name: str, wanted: Columns, present: Iterable[str], datalist: Any, required: bool = True) -> list[str]:
    """The manifest's columns whose union is a structure; none where one is missing and not `required`."""
    columns = []
    for part in [wanted] if isinstance(wanted, str) else wanted:
        column = f"mask_{part}" if f"mask_{part}" in present else part
        if column not in present:
            if not required:
                return []
            have = [c for c in present if c.startswith(("mask_", "finding_mask_"))]
            raise ValueError(
                f"{datalist}: no column mask_{part} for the structure {name!r}; its mask columns are "
                f"{', '.join(have) or 'none'}. Set structures or structure_map."
            )
        columns.append(column)
    return columns


def _files(item: Item, columns: Sequence[str], absent_label: str | None, folder: Path) -> list[str] | None:
    """Mask files of a structure on a film; empty where it is known to be absent, None where it is unknown."""
    cells = [item.get(column) for column in columns]
    if cells and all(cells):
        return [os.path.abspath(folder / str(cell)) for cell in cells]
    value = item.get(absent_label) if absent_label else None
    return [] if not any(cells) and value not in (None, "") and float(value) == 0 else None


def segmentation_splits(
    datalist: str | PathLike[str],
    structures: Sequence[str],
    structure_map: StructureMap | None = None,
    absent_labels: Mapping[str, str] | None = None,
    all_columns: bool = True,
    **parts_settings: Any,
) -> Splits:
    """Films for training, validation and test, each patient on one side.

    Args:
        datalist, structures, structure_map, absent_labels, all_columns: see `annotated_items`.
        parts_settings: `splits`, `val_fraction`, `test_fraction`, `test_datalist` and `seed`, see `splits_of`.

    Raises:
        ValueError: what `splits_of` refuses.
    """
    parts = splits_of(
        lambda manifest: annotated_items(manifest, structures, structure_map, absent_labels, all_columns),
        datalist,
        **parts_settings,
    )
    log_splits(parts)
    return parts


def segmentation_subset(subset: str, datalist: str | PathLike[str], **settings: Any) -> list[Item]:
    """The films of one subset for an evaluation, with masks of whatever structures the manifest has.

    Args:
        subset: `train`, `validation` or `test` of `segmentation_splits`, or `all` films of the manifest.
        datalist: the manifest.
        settings: further arguments of `segmentation_splits`.

    Raises:
        ValueError: an unknown or empty subset.
    """
    wanted = {name: settings.get(name) for name in ("structure_map", "absent_labels")}
    return subset_of(
        subset,
        datalist,
        lambda: segmentation_splits(datalist, **settings, all_columns=False),
        lambda: annotated_items(datalist, settings["structures"], **wanted, all_columns=False),
    )
