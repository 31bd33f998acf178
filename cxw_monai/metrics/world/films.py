"""Films of the tests of a world model, and crops of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cxw_monai.data.schema import stored_spacing
from cxw_monai.io import RadiographError, read_radiograph
from cxw_monai.metrics.probes import plain_value
from cxw_monai.transforms import ActionSampler
from cxw_monai.transforms.whole_film import whole_film

__all__ = ["WorldFilms", "crops", "patient_numbers", "random_actions", "random_boxes", "read_world_films"]

DETAIL = 2  # films are held at this many times a network's size, so that crops have detail


@dataclass(frozen=True)
class WorldFilms:
    """Films in the order in which they are shown, which says nothing about them.

    Attributes:
        rows: of the manifest, with `image`.
        patients: int `[N]`; a film without `patient_id` is a patient of its own.
        pixels: uint8 `[N, 1, 2 H, 2 W]`, whole films stretched to twice a network's size.
        shapes: `(rows, columns)` of the stored films.
        spacing_mm: `(row, column)` or None, of each.
        unreadable: paths that are left out.
    """

    rows: list[Mapping[str, Any]]
    patients: np.ndarray
    pixels: Tensor
    shapes: list[tuple[int, int]]
    spacing_mm: list[tuple[float, float] | None]
    unreadable: list[str]

    def __len__(self) -> int:
        return len(self.rows)

    def first(self, count: int) -> WorldFilms:
        """The first films, or all where there are no more."""
        return WorldFilms(
            self.rows[:count],
            self.patients[:count],
            self.pixels[:count],
            self.shapes[:count],
            self.spacing_mm[:count],
            self.unreadable,
        )

    def whole(self, index: Sequence[int] | slice = slice(None)) -> Tensor:
        """Films at the network's size, float32 `[n, 1, H, W]` in [0, 1]."""
        parts = self.pixels[index].split(32)  # as bytes they are a quarter as large
        return torch.cat([torch.nn.functional.avg_pool2d(part.float() / 255, DETAIL) for part in parts])


def read_world_films(
    items: Sequence[Mapping[str, Any]],
    size: tuple[int, int],
    count: int | None = None,
    seed: int = 0,
    reader: Mapping[str, Any] | None = None,
    decoded: Callable[[int], np.ndarray] | None = None,
) -> WorldFilms:
    """Read films in a random order, so that a network can't tell from it what they are.

    Args:
        items: rows of a manifest or a folder, with `image`.
        size: the network's, px.
        count: take so many, drawn at random; None for all.
        seed: of order and draw.
        reader: keyword arguments of `read_radiograph`.
        decoded: gives the pixels `[1, H, W]` of a film by its place in `items`; None reads the files.

    Raises:
        ValueError: no film can be read.
    """
    order = np.random.default_rng(seed).permutation(len(items))
    rows: list[Mapping[str, Any]] = []
    pixels, shapes, spacing, unreadable = [], [], [], []
    for place in order:
        if count is not None and len(rows) == count:
            break
        path: str | PathLike[str] = items[place]["image"]
        try:
            film, mm = (decoded(int(place)), None) if decoded else _read(path, reader or {})
        except RadiographError:
            unreadable.append(str(path))
            continue
        stretched = whole_film(film, (DETAIL * size[0], DETAIL * size[1]))
        pixels.append((stretched * 255).round().byte())
        rows.append(items[place])
        shapes.append((film.shape[1], film.shape[2]))
        spacing.append(mm or stored_spacing(items[place]))
    if not rows:
        shown = ", ".join(unreadable[:3])
        raise ValueError(
            f"none of {len(items)} films can be read ({shown}); cxw-monai check FOLDER says what is wrong with each"
        )
    return WorldFilms(rows, patient_numbers(rows), torch.stack(pixels), shapes, spacing, unreadable)


def patient_numbers(rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """A number for each row's patient, int `[N]`; a film without `patient_id` is a patient of its own."""
    names = [plain_value(row.get("patient_id")) or f"image {row['image']}" for row in rows]
    return np.unique(np.array(names), return_inverse=True)[1]


def _read(path: str | PathLike[str], reader: Mapping[str, Any]) -> tuple[np.ndarray, tuple[float, float] | None]:
    film = read_radiograph(path, **{"min_size": 16, **reader})
    return film.array, film.meta.get("spacing_mm")


def crops(pixels: Tensor, boxes: np.ndarray, size: tuple[int, int]) -> Tensor:
    """Crops of films at a network's size.

    Args:
        pixels: uint8 `[N, 1, H, W]`, of `WorldFilms`.
        boxes: `[N, 4]` top, left, height, width as shares of the film.
        size: rows and columns of a crop, px.

    Returns:
        float32 `[N, 1, h, w]` in [0, 1].
    """
    height, width = pixels.shape[2:]
    found = []
    for film, box in zip(pixels, boxes, strict=True):
        top, left = round(box[0] * height), round(box[1] * width)
        bottom, right = round((box[0] + box[2]) * height), round((box[1] + box[3]) * width)
        found.append(whole_film(film[:, top:bottom, left:right].numpy(), size))
    return torch.stack(found)


def random_boxes(count: int, rng: np.random.Generator, sides: tuple[float, float]) -> np.ndarray:
    """Squares (as shares of the film) `[count, 4]` anywhere, their sides uniform between two values."""
    side = rng.uniform(*sides, size=count)
    corner = rng.uniform(size=(count, 2)) * (1 - side)[:, None]
    return np.column_stack([corner, side, side])


def random_actions(count: int, seed: int) -> Tensor:
    """Perturbations that always change the grey values, `[count, 5]`."""
    sampler, rng = ActionSampler(jitter_prob=1.0), np.random.RandomState(seed)
    return torch.from_numpy(np.stack([sampler(rng) for _ in range(count)])).float()
