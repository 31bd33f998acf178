"""Checks of one film by itself."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike

import numpy as np

from cxw_monai.io import RadiographError, read_radiograph
from cxw_monai.transforms.borders import find_content_box

from .film_model import FilmModel, FilmScores, default_model, thumbnail
from .hashes import perceptual_hash, pixel_hash
from .records import FilmRecord, QualitySettings

__all__ = ["content_flags", "measure_array", "measure_file"]


def measure_file(path: str | PathLike[str], settings: QualitySettings) -> FilmRecord:
    """Read one file and judge it; an unreadable one is a finding, not an error.

    Args:
        path: the file.
        settings: limits.

    Returns:
        Its record, without groups of duplicates.
    """
    try:
        film = read_radiograph(path, min_size=1)
    except RadiographError as error:
        return FilmRecord(str(path), ["unreadable"], f"{error.reason}; {error.remedy}")
    record = measure_array(film.array[0], settings)
    record.image = str(path)
    spacing = film.meta.get("spacing_mm")
    if spacing is not None:
        record.row_mm, record.column_mm = (float(value) for value in spacing)
    return record


def measure_array(image: np.ndarray, settings: QualitySettings, model: FilmModel | None = None) -> FilmRecord:
    """Judge one film.

    Args:
        image: float32 ``[H, W]`` in [0, 1], bone bright.
        settings: limits.
        model: of frontal chests; the package's by default.

    Returns:
        Its record, without a name and groups of duplicates.
    """
    rows, columns = image.shape
    model = model or default_model()
    (top, left, height, width), content, contrast, scores = _looked_at(image, model)
    border = max(top, rows - top - height) / rows, max(left, columns - left - width) / columns
    flags = ["low_contrast"] if contrast < settings.min_contrast else _findings(scores, model.thresholds, settings)
    flags += ["border"] * (max(border) >= settings.min_border) + ["too_small"] * (
        min(rows, columns) < settings.min_side
    )
    is_wrong = not {"inverted", "rotated", "mirrored"}.isdisjoint(flags)
    return FilmRecord(
        "",
        flags,
        rows=rows,
        columns=columns,
        contrast=contrast,
        top=top,
        left=left,
        height=height,
        width=width,
        inverted=scores.inverted,
        rotated=scores.rotated,
        mirrored=scores.mirrored,
        unlike=scores.unlike,
        treatment=_treatment(scores, "mirrored" in flags) if is_wrong else "",
        pixel_hash=pixel_hash(image),
        perceptual_hash=np.packbits(perceptual_hash(content)).tobytes().hex(),
    )


def content_flags(image: np.ndarray, settings: QualitySettings) -> list[str]:
    """Flags of what a film shows, those of `measure_array` but for its border and size, in less time.

    Args:
        image: float32 ``[H, W]`` in [0, 1], bone bright.
        settings: limits.
    """
    model = default_model()
    contrast, scores = _looked_at(image, model)[2:]
    return ["low_contrast"] if contrast < settings.min_contrast else _findings(scores, model.thresholds, settings)


def _looked_at(image: np.ndarray, model: FilmModel) -> tuple[tuple[int, int, int, int], np.ndarray, float, FilmScores]:
    """The box (top, left, height, width) without borders, what is in it, its contrast, and the model's scores."""
    top, left, height, width = box = find_content_box(image)
    content = np.ascontiguousarray(image[top : top + height, left : left + width])
    low, high = np.percentile(content, (1, 99))
    return box, content, float(high - low), model.scores(thumbnail(content))


def _findings(scores: FilmScores, thresholds: Mapping[str, float], settings: QualitySettings) -> list[str]:
    """What the model's scores say of films of chests, in the order of the checks."""
    if settings.anatomy != "chest":
        return []
    if scores.unlike > thresholds["unlike"]:
        return ["not_frontal_chest"]
    return [name for name in ("inverted", "rotated", "mirrored") if getattr(scores, name) > thresholds[name]]


def _treatment(scores: FilmScores, mirrored: bool) -> str:
    """What would put a film right; mirroring only where it is flagged."""
    invert, mirror, quarters = scores.treatment(mirrored)
    steps = ["invert"] * invert + ["mirror"] * mirror + [f"turn {90 * quarters}"] * (quarters > 0)
    return ", ".join(steps)
