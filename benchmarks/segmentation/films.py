"""One manifest of the films that the shipped segmenter learns from, whose sources have different outlines.

`lung_field_*` is the visible lung field, which ends at the heart's edge; `lung_*` is the lung behind heart and
mediastinum too, down to the visible diaphragm. A structure that a source has no outline of stays unknown on its films.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cxw_monai.data.manifest import read_datalist
from cxw_monai.datasets.masks import left_and_right
from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.files.csv_files import CsvWriter
from cxw_monai.io.formats.pictures import read_mask

__all__ = ["SOURCES", "STRUCTURES", "write_films"]

STRUCTURES = (
    *("lung_field_left", "lung_field_right", "lung_left", "lung_right"),
    *("heart", "mediastinum", "clavicle_left", "clavicle_right"),
)
COLUMNS = ("image", "id", "patient_id", "split", "source", *(f"mask_{name}" for name in STRUCTURES))
HELD_OUT = 20  # one patient in so many validates, where a source has no splits

logger = logging.getLogger(__name__)

Item = dict[str, Any]
Masks = dict[str, Path | np.ndarray]
"""Files, or masks `[H, W]` to write, by structure."""


def _wingspan(item: Item, folder: Path) -> Masks:
    """Visible lung fields and heart, by hand, of adults; none where the heart lies above a lung (names exchanged)."""
    columns = {"lung_field_left": "left_lung", "lung_field_right": "right_lung", "heart": "heart"}
    masks: Masks = {name: folder / str(item[f"mask_{column}"]) for name, column in columns.items()}
    rows = {name: np.argwhere(read_mask(file))[:, 0].mean() for name, file in masks.items()}  # type: ignore[arg-type]
    if rows["heart"] < max(rows.values()):
        logger.warning("%s: left out, its heart lies above a lung (masks under each other's names).", item["image"])
        return {}
    return masks


def _kermany(item: Item, folder: Path) -> Masks:
    """Lungs, behind the heart too, in one mask, of children."""
    if not item.get("mask_lungs_v7"):
        return {}
    lungs = left_and_right(read_mask(folder / str(item["mask_lungs_v7"])))
    return {f"lung_{side}": mask for side, mask in lungs.items()}


def _named(item: Item, folder: Path) -> Masks:
    """Masks under the structures' own names, as earlier models agree on them."""
    return {name: folder / str(item[f"mask_{name}"]) for name in STRUCTURES if item.get(f"mask_{name}")}


def _agreed(item: Item, folder: Path) -> Masks:
    """Fields and heart as models agree on them; lungs, too, but not below the lowest row of their own visible field.

    A model that learned lungs from children and one CT draws an adult's left lung through the diaphragm.
    """
    files = _named(item, folder)
    masks: Masks = {name: file for name, file in files.items() if name.startswith("lung_field") or name == "heart"}
    for side in ("left", "right"):
        if f"lung_{side}" in files and f"lung_field_{side}" in files:
            field = read_mask(files[f"lung_field_{side}"])  # type: ignore[arg-type]
            if not field.any():
                continue
            lung = read_mask(files[f"lung_{side}"]) | field  # type: ignore[arg-type]
            lung[np.flatnonzero(field.any(axis=1))[-1] + 1 :] = False
            masks[f"lung_{side}"] = lung
    return masks


def _rendered(item: Item, folder: Path) -> Masks:
    """Lungs, mediastinum and clavicles; heart and lung fields are learned from films of people alone.

    A rendered heart reaches further down than readers draw it, and a rendered lung's base is that of one CT.
    """
    kept = ("lung_left", "lung_right", "mediastinum", "clavicle_left", "clavicle_right")
    return {name: mask for name, mask in _named(item, folder).items() if name in kept}


SOURCES: Mapping[str, Callable[[Item, Path], Masks]] = {
    "wingspan": _wingspan,
    "kermany": _kermany,
    "rendered": _rendered,
    "agreed": _agreed,
}
"""How the outlines of each source are read from an item of its manifest."""


def _rows(source: str, manifest: Path, output: Path) -> Iterator[list[str]]:
    for item in read_datalist(manifest, section="all"):
        name = str(item.get("id") or Path(item["image"]).stem)
        patient = str(item.get("patient_id") or name)
        drawn = "training" if zlib.crc32(patient.encode()) % HELD_OUT else "validation"
        split = str(item.get("split") or drawn)
        masks = SOURCES[source](item, manifest.parent) if split in ("training", "validation") else {}
        if not masks:
            continue
        files = {}
        for structure, mask in masks.items():
            file = mask
            if isinstance(mask, np.ndarray):
                file = output / "masks" / structure / f"{source}_{name}.png"
                if not file.exists():
                    with atomic_file(file) as stream:
                        Image.fromarray(mask.astype(np.uint8) * 255).save(stream, format="PNG")
            files[structure] = str(Path(file).resolve())
        yield [item["image"], f"{source}_{name}", f"{source}_{patient}", split, source, *map(files.get, STRUCTURES)]


def write_films(sources: Mapping[str, Path], output: Path) -> Path:
    """Write `manifest.csv`, and the masks that have to be made, into a folder; films of a test split stay out.

    Args:
        sources: manifest of each of `SOURCES` that is at hand.
        output: folder to make or continue.

    Returns:
        The manifest, with `source` and `mask_<structure>` of `STRUCTURES`.

    Raises:
        ValueError: an unknown source.
    """
    unknown = sorted(set(sources) - set(SOURCES))
    if unknown:
        raise ValueError(f"No source {unknown[0]!r}; there are {', '.join(SOURCES)}.")
    output.mkdir(parents=True, exist_ok=True)
    rows = [row for name, manifest in sources.items() for row in _rows(name, manifest.resolve(), output.resolve())]
    path = output / "manifest.csv"
    with atomic_file(path, "w", newline="", encoding="utf-8") as stream:
        CsvWriter(stream).writerows([COLUMNS, *rows])
    return path
