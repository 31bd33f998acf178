"""Measures the checks on films with defects put in on purpose."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from cxw_monai.quality.film_model import FilmModel
from cxw_monai.quality.hashes import perceptual_hash, pixel_hash
from cxw_monai.quality.measure import measure_array
from cxw_monai.quality.records import QualitySettings
from cxw_monai.transforms.borders import find_content_box

__all__ = ["COPIES", "DEFECTS", "TREATMENTS", "Outcome", "confusion", "format_table", "measure_checks"]


def _bordered(film: np.ndarray, level: float, sides: tuple[float, float, float, float]) -> np.ndarray:
    """A border whose widths (above, below, left, right) are fractions of the film's sides."""
    rows, columns = film.shape
    above, below = (round(side * rows) for side in sides[:2])
    before, after = (round(side * columns) for side in sides[2:])
    return np.pad(film, ((above, below), (before, after)), constant_values=level)


def _resized(film: np.ndarray, height: int, width: int) -> np.ndarray:
    resized = Image.fromarray(film).resize((width, height), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(resized), 0, 1)


def _jpeg(film: np.ndarray, quality: int) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(np.rint(film * 255).astype(np.uint8)).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream), dtype=np.float32) / 255


DEFECTS: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "inverted": ("inverted", lambda film: 1 - film),
    "turned 90": ("rotated", lambda film: np.rot90(film)),
    "turned 180": ("rotated", lambda film: np.rot90(film, 2)),
    "turned 270": ("rotated", lambda film: np.rot90(film, 3)),
    "upside down (flipped)": ("rotated", lambda film: film[::-1]),
    "mirrored": ("mirrored", lambda film: film[:, ::-1]),
    "inverted and turned 90": ("inverted", lambda film: 1 - np.rot90(film)),
    "black border, 5 % all round": ("border", lambda film: _bordered(film, 0, (0.05,) * 4)),
    "white border, 5 % all round": ("border", lambda film: _bordered(film, 1, (0.05,) * 4)),
    "grey border, 5 % all round": ("border", lambda film: _bordered(film, 0.5, (0.05,) * 4)),
    "black band on one side, JPEG 75": ("border", lambda film: _jpeg(_bordered(film, 0, (0, 0, 0, 0.1)), 75)),
    "contrast / 8": ("low_contrast", lambda film: film / 8 + 0.4),
}
"""Name of each defect: the finding that it should raise, and what makes it from a film ``[H, W]`` without border."""

COPIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "half size": lambda film: _resized(film, film.shape[0] // 2, film.shape[1] // 2),
    "1.6 times the size": lambda film: _resized(film, film.shape[0] * 8 // 5, film.shape[1] * 8 // 5),
    "JPEG 75": lambda film: _jpeg(film, 75),
    "JPEG 30": lambda film: _jpeg(film, 30),
    "brighter, less contrast": lambda film: film * np.float32(0.8) + np.float32(0.15),
    "gamma 0.7": lambda film: film ** np.float32(0.7),
    "black border": lambda film: _bordered(film, 0, (0.04, 0.08, 0.1, 0.08)),
    "crop by 3 % each side": lambda film: _cropped(film, 0.03),
}
"""What makes a near duplicate of a film."""


def _cropped(film: np.ndarray, share: float) -> np.ndarray:
    rows, columns = (round(share * side) for side in film.shape)
    return np.ascontiguousarray(film[rows : film.shape[0] - rows, columns : film.shape[1] - columns])


TREATMENTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "untouched": lambda film: film,
    **{name: DEFECTS[name][1] for name in ("inverted", "turned 90", "turned 180", "turned 270")},
    **{name: DEFECTS[name][1] for name in ("upside down (flipped)", "inverted and turned 90", "mirrored")},
}
"""What is done to a chest for the table of :func:`confusion`."""
_VERDICTS = ("none", "inverted", "rotated", "inverted and rotated", "mirrored", "not_frontal_chest", "low_contrast")


def verdict(flags: Sequence[str]) -> str:
    """One of the verdicts of the table that findings about a film amount to."""
    for name in ("low_contrast", "not_frontal_chest"):
        if name in flags:
            return name
    found = [name for name in ("inverted", "rotated") if name in flags]
    return " and ".join(found) or ("mirrored" if "mirrored" in flags else "none")


def confusion(
    chests: Mapping[str, Sequence[np.ndarray]], others: Mapping[str, Sequence[np.ndarray]], model: FilmModel
) -> str:
    """A Markdown table of what films are and what they are taken for, counts.

    Args:
        chests: frontal chest films ``[H, W]`` by source; each is also shown turned, inverted and mirrored.
        others: films that aren't frontal chests, by name.
        model: of frontal chests.
    """
    settings = QualitySettings()
    lines = [f"| films | n | {' | '.join(_VERDICTS)} |", "| --- | --- |" + " --- |" * len(_VERDICTS)]
    rows = [(f"{name}, {how}", films, treat) for name, films in chests.items() for how, treat in TREATMENTS.items()]
    for name, films, treat in rows + [(name, films, TREATMENTS["untouched"]) for name, films in others.items()]:
        found = Counter(
            verdict(measure_array(np.ascontiguousarray(treat(film)), settings, model).flags) for film in films
        )
        lines.append(f"| {name} | {len(films)} | {' | '.join(str(found[one] or '') for one in _VERDICTS)} |")
    return "\n".join(lines)


@dataclass(frozen=True)
class Outcome:
    """How often a finding was raised.

    Attributes:
        check: the finding.
        films: on what.
        raised, total: number of films.
        wanted: whether it should be raised on them.
    """

    check: str
    films: str
    raised: int
    total: int
    wanted: bool


def measure_checks(films: Sequence[np.ndarray], model: FilmModel) -> list[Outcome]:
    """Count the findings on untouched films and on films with defects.

    Args:
        films: ``[H, W]`` each, frontal chests without borders, of patients that the model wasn't fitted on.
        model: of frontal chests.

    Returns:
        The outcomes, in the order of the table.
    """
    settings = QualitySettings()

    def flags(film: np.ndarray) -> list[str]:
        return measure_array(np.ascontiguousarray(film), settings, model).flags

    raised = [flags(film) for film in films]
    outcomes = [
        Outcome(check, "untouched", sum(check in found for found in raised), len(films), False)
        for check in ("inverted", "rotated", "mirrored", "not_frontal_chest", "low_contrast")
    ]
    inner = [_cropped(film, 0.1) for film in films]
    whole = sum(find_content_box(film) != (0, 0, *film.shape) for film in inner)
    outcomes.append(Outcome("border", "inner 80 % of untouched films, any crop at all", whole, len(films), False))
    for name, (check, spoil) in DEFECTS.items():
        hits = sum(check in flags(spoil(film)) for film in films)
        outcomes.append(Outcome(check, name, hits, len(films), True))
    return outcomes + _measure_copies(films, settings.near_distance)


def _measure_copies(films: Sequence[np.ndarray], distance: int) -> list[Outcome]:
    """How often copies are found, and how often different films are taken for copies."""
    hashes = np.stack([_hash(film) for film in films])
    pixels = [pixel_hash(film) for film in films]
    off = (hashes[:, None] != hashes[None]).sum(axis=2)
    np.fill_diagonal(off, 256)
    outcomes = [
        Outcome("near_duplicate", "untouched", int((off <= distance).any(axis=1).sum()), len(films), False),
        Outcome("duplicate", "untouched", len(pixels) - len(set(pixels)), len(films), False),
    ]
    for name, copy in COPIES.items():
        far = np.stack([_hash(copy(film)) for film in films]) != hashes
        outcomes.append(Outcome("near_duplicate", name, int((far.sum(axis=1) <= distance).sum()), len(films), True))
    return outcomes


def _hash(film: np.ndarray) -> np.ndarray:
    top, left, height, width = find_content_box(film)
    return perceptual_hash(film[top : top + height, left : left + width])


def format_table(outcomes: Sequence[Outcome]) -> str:
    """A Markdown table, a row per outcome."""
    lines = ["| check | films | wanted | raised | n |", "| --- | --- | --- | --- | --- |"]
    for o in outcomes:
        wanted = "yes" if o.wanted else "no"
        lines.append(f"| {o.check} | {o.films} | {wanted} | {100 * o.raised / o.total:.1f} % | {o.total} |")
    return "\n".join(lines)
