"""Copies of films as they get into a second set, and how many of them the leak check names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from cxw_monai.io import read_radiograph
from cxw_monai.retrieval import FilmIndex, build_index
from cxw_monai.retrieval.duplicates import find_copies

__all__ = ["CHANGES", "leak_check"]


def _scaled(film: Image.Image, width: int, height: int) -> Image.Image:
    return film.resize((width, height), Image.Resampling.BICUBIC)


def _cropped(film: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    width, height = film.size
    return film.crop((round(left * width), round(top * height), round(width - right * width),
                      round(height - bottom * height)))  # fmt: skip


def _brightness(film: Image.Image, change: Callable[[np.ndarray], np.ndarray]) -> Image.Image:
    grey = np.clip(change(np.asarray(film, np.float32) / 255), 0, 1)
    return Image.fromarray(np.rint(255 * grey).astype(np.uint8))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "re-encoded, JPEG of quality 30": lambda film: film,
    "resized to 224 x 224": lambda film: _scaled(film, 224, 224),
    "stretched to 300 x 240": lambda film: _scaled(film, 300, 240),
    "cropped by 5 % on all sides": lambda film: _cropped(film, 0.05, 0.05, 0.05, 0.05),
    "cropped by 5 % left and below": lambda film: _cropped(film, 0.05, 0, 0, 0.05),
    "cropped by 10 % on all sides": lambda film: _cropped(film, 0.1, 0.1, 0.1, 0.1),
    "less contrast, brighter": lambda film: _brightness(film, lambda grey: 0.8 * grey + 0.15),
    "gamma 0.5": lambda film: _brightness(film, np.sqrt),
    "gamma 2": lambda film: _brightness(film, np.square),
    "cropped by 5 % left and below, 224 x 224, gamma 0.6": lambda film: _brightness(
        _scaled(_cropped(film, 0.05, 0, 0, 0.05), 224, 224), lambda grey: grey**0.6
    ),
}
"""What is done to a film before it is written as a JPEG of quality 30 (the first) or 90."""


def leak_check(index: FilmIndex, output: Path, copies: int) -> list[dict[str, object]]:
    """Plant copies of every n-th film of an index, and look for them among all of its films.

    Args:
        index: of the films.
        output: folder of the copies and their index.
        copies: of each change.

    Returns:
        A row a change: films planted, found, and found with the right film alone; and the least agreement.
    """
    places = np.linspace(0, len(index) - 1, copies).astype(int)
    for number, change in enumerate(CHANGES.values()):
        for place in places:
            target = output / "copies" / f"{number:02}" / f"{place:06}.jpg"
            if not target.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                grey = read_radiograph(index.path(int(place))).array[0]
                film = change(Image.fromarray(np.rint(255 * grey).astype(np.uint8)))
                film.save(target, quality=90 if number else 30)
    build_index(output / "copies", output / "copies_index")
    planted = FilmIndex(output / "copies_index")
    pairs = find_copies(index, planted)
    named: dict[str, list[tuple[int, float]]] = {}
    for pair in pairs:
        named.setdefault(planted.film(pair.second)["image"], []).append((pair.first, pair.agreement))
    rows: list[dict[str, object]] = []
    for number, name in enumerate(CHANGES):
        own = [named.get(f"{number:02}/{place:06}.jpg", []) for place in places]
        right = [
            [agreement for first, agreement in found if first == place]
            for place, found in zip(places, own, strict=True)
        ]
        wrong = sum(first != place for place, found in zip(places, own, strict=True) for first, _ in found)
        agreements = [found[0] for found in right if found]
        row = {"change": name, "planted": copies, "found": len(agreements), "false pairs": wrong}
        rows.append({**row, "least agreement": f"{min(agreements, default=0):.3f}"})
    return rows
