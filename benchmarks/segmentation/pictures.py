"""The films that a segmenter does worst on, to be looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import binary_erosion

from cxw_monai.data.manifest import read_datalist
from cxw_monai.inference.api import SegmentationModel
from cxw_monai.io import read_radiograph
from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.formats.pictures import read_mask
from cxw_monai.io.results.overlay import draw_overlay

__all__ = ["draw_films", "worst_first"]

TILE = 240
ACROSS = 8


def worst_first(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Ids of the films by their least Dice."""
    least = {row["id"]: min(v for name, v in row.items() if name.startswith("dice_")) for row in rows}
    return sorted(least, key=lambda name: least[name])


def draw_films(
    model: SegmentationModel,
    manifest: Path,
    ids: Sequence[str],
    columns: Mapping[str, str],
    structures: Sequence[str],
    output: Path,
) -> None:
    """Draw a sheet of films: the model's masks in colour, manual outlines in white.

    Args:
        model: the segmenter.
        manifest: with the films.
        ids: of the films, in order.
        columns: the manifest's mask columns by structure.
        structures: those of the model to draw.
        output: PNG to write.
    """
    items = {str(item.get("id") or Path(item["image"]).stem): item for item in read_datalist(manifest, section="all")}
    sheet = Image.new("RGB", (ACROSS * TILE, -(-len(ids) // ACROSS) * TILE))
    chosen = [name for name in structures if name in model.structures]
    for place, name in enumerate(ids):
        item = items[name]
        film = read_radiograph(item["image"], min_size=1)
        masks = dict(zip(model.structures, model.predictor.masks(film), strict=True))
        picture = draw_overlay(film.array[0], np.stack([masks[one] for one in chosen]), chosen)
        for column in columns.values():
            if item.get(f"mask_{column}"):
                manual = read_mask(manifest.parent / str(item[f"mask_{column}"]))
                picture[manual & ~binary_erosion(manual, iterations=max(1, round(max(manual.shape) / 512)))] = 255
        tile = Image.fromarray(picture)
        tile.thumbnail((TILE, TILE))
        sheet.paste(tile, (place % ACROSS * TILE, place // ACROSS * TILE))
    with atomic_file(output) as stream:
        sheet.save(stream, format="PNG", optimize=True)
