"""A film with its landmarks, to be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.structures import ORANGE, SKY

__all__ = ["PRED_COLOUR", "TRUE_COLOUR", "draw_points", "upright_picture", "write_point_overlay"]

TRUE_COLOUR, PRED_COLOUR = SKY, ORANGE
"""Told apart with any common colour vision, and from grey."""

_SIDE = 1024  # px of the longer side


def upright_picture(film: np.ndarray, spacing_mm: tuple[float, float] | None = None, side: int = _SIDE) -> Image.Image:
    """A film in true proportions, grey as RGB.

    Args:
        film: `[h, w]`, uint8, uint16, or floating in [0, 1], bone bright.
        spacing_mm: row and column spacing; None for square pixels.
        side: px of the longer side.
    """
    height, width = film.shape
    true_height = height if spacing_mm is None else height * spacing_mm[0] / spacing_mm[1]
    scale = side / max(true_height, width)
    top = 1.0 if film.dtype.kind == "f" else float(np.iinfo(film.dtype).max)
    grey = np.rint(np.clip(film / top, 0, 1) * 255).astype(np.uint8)
    size = max(1, round(width * scale)), max(1, round(true_height * scale))
    return Image.fromarray(grey).resize(size, Image.Resampling.BICUBIC).convert("RGB")


def draw_points(
    picture: Image.Image,
    points: np.ndarray,
    colour: tuple[int, int, int],
    labels: Sequence[str] = (),
    circles: bool = False,
) -> None:
    """Draw points on a picture in its place: a cross each, or a circle, with a label beside it.

    Args:
        picture: RGB.
        points: `[P, 2]`, x and y as shares of its width and height; NaN for none.
        colour: of all.
        labels: P texts; none for no labels.
        circles: a ring instead of a cross.
    """
    draw = ImageDraw.Draw(picture)
    reach = max(3, round(max(picture.size) / 110))
    font = ImageFont.load_default(max(10, round(max(picture.size) / 64)))
    for number, (x, y) in enumerate(points * np.array(picture.size)):
        if np.isnan(x) or np.isnan(y):
            continue
        width = max(1, reach // 4)
        if circles:
            draw.ellipse((x - reach, y - reach, x + reach, y + reach), outline=colour, width=width)
        else:
            draw.line((x - reach, y, x + reach, y), fill=colour, width=width)
            draw.line((x, y - reach, x, y + reach), fill=colour, width=width)
        if labels:
            draw.text((x + 1.5 * reach, y), labels[number], font=font, fill=colour, anchor="lm", stroke_width=2,
                      stroke_fill=(0, 0, 0))  # fmt: skip


def write_point_overlay(
    path: str | PathLike[str],
    film: np.ndarray,
    points: np.ndarray,
    labels: Sequence[str],
    *,
    spacing_mm: tuple[float, float] | None = None,
    lines: Sequence[np.ndarray] = (),
) -> None:
    """Write a film with its landmarks as a PNG, 1024 px on the longer side, in true proportions.

    Args:
        path: the PNG.
        film: `[h, w]` in [0, 1], bone bright.
        points: `[P, 2]`, x and y as shares of the film's width and height; NaN for none.
        labels: P texts.
        spacing_mm: row and column spacing.
        lines: `[2, 2]` each, from point to point as shares, such as those of a measurement.
    """
    picture = upright_picture(film, spacing_mm)
    draw = ImageDraw.Draw(picture)
    for line in lines:
        ends = [tuple(end) for end in (line * np.array(picture.size)).tolist()]
        draw.line(ends, fill=TRUE_COLOUR, width=max(1, round(max(picture.size) / 512)))
    draw_points(picture, points, PRED_COLOUR, labels)
    with atomic_file(path) as stream:
        picture.save(stream, format="PNG", compress_level=1)
