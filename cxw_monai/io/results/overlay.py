"""The film with the outlines of its structures, to be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin
from scipy.ndimage import binary_erosion

from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.structures import definitions, describe_structure, drawing_order, structure_colours

__all__ = ["draw_overlay", "write_overlay"]

FILL = 0.22
"""Opacity of a structure's fill; its contour is opaque."""

_SMALLEST_SIDE = 512  # a film whose longer side is below is enlarged by a whole number
_TEXT_ON, _TEXT_OFF, _GROUND = (255, 255, 255), (140, 140, 140), (24, 24, 24)


def draw_overlay(film: np.ndarray, masks: np.ndarray, structures: Sequence[str]) -> np.ndarray:
    """Fills and contours on a film, pixel for pixel.

    A contour is the outermost ring of the mask's own pixels, so its outer edge is the mask's exact boundary. It is one
    pixel wide per 512 px of the film's longer side. Masks that overlap mix their fills; contours lie on each
    other in :func:`~cxw_monai.io.structures.drawing_order`.

    Args:
        film: ``[H, W]`` in [0, 1], bone bright.
        masks: bool ``[S, H, W]``.
        structures: S names, which give the colours (:func:`~cxw_monai.io.structures.structure_colours`).

    Returns:
        uint8 ``[H, W, 3]``.

    Raises:
        ValueError: masks of another shape or type.
    """
    if masks.dtype != bool or masks.shape != (len(structures), *film.shape):
        expected = (len(structures), *film.shape)
        raise ValueError(f"masks must be bool {list(expected)}, got {masks.dtype} of shape {masks.shape}")
    width = max(1, round(max(film.shape) / 512))
    picture = np.repeat(np.clip(film, 0, 1)[:, :, None] * np.float32(255), 3, axis=2)  # [H, W, 3]
    colours = np.array(structure_colours(structures), dtype=np.float32)
    layers = [(masks[place], _box(masks[place]), colours[place]) for place in drawing_order(structures)]
    for mask, box, colour in layers:
        inside = mask[box]
        picture[box][inside] = (1 - FILL) * picture[box][inside] + FILL * colour
    for mask, box, colour in layers:
        inside = mask[box]
        if inside.size:
            picture[box][inside & ~binary_erosion(inside, iterations=width)] = colour
    return np.rint(picture).astype(np.uint8)


def _box(mask: np.ndarray) -> tuple[slice, slice]:
    """The rows and columns that hold the mask's pixels."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return slice(0, 0), slice(0, 0)
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def write_overlay(
    path: str | PathLike[str],
    film: np.ndarray,
    masks: np.ndarray,
    structures: Sequence[str],
    *,
    spacing_mm: tuple[float, float] | None = None,
    max_side: int = 2048,
) -> None:
    """Write the overlay as a PNG, with a legend below the film, and the structures' definitions as texts of the PNG.

    Args:
        path: the PNG.
        film: ``[H, W]`` in [0, 1], bone bright.
        masks: bool ``[S, H, W]``.
        structures: S names; one without pixels is listed as "none found".
        spacing_mm: (row, column) spacing; where its numbers differ, the picture is stretched to true proportions.
        max_side: a film with a longer side is averaged down by a whole number; one below 512 px is enlarged by one.

    Raises:
        ValueError: masks of another shape or type.
    """
    picture = Image.fromarray(draw_overlay(film, masks, structures))
    longer = max(picture.size)
    if longer > max_side:
        picture = picture.reduce(-(-longer // max_side))
    elif longer < _SMALLEST_SIDE:
        factor = -(-_SMALLEST_SIDE // longer)
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    if spacing_mm and not np.isclose(*spacing_mm, rtol=1e-3):
        stretch = spacing_mm[0] / spacing_mm[1]  # a row's height in columns' widths
        size = (picture.width, round(picture.height * stretch))
        size = size if stretch > 1 else (round(picture.width / stretch), picture.height)
        picture = picture.resize(size, Image.Resampling.BILINEAR)
    legend = _legend(picture.width, structures, [bool(mask.any()) for mask in masks])
    sheet = Image.new("RGB", (picture.width, picture.height + legend.height))
    sheet.paste(picture, (0, 0))
    sheet.paste(legend, (0, picture.height))
    texts = PngImagePlugin.PngInfo()
    for name, definition in definitions(structures).items():
        texts.add_text(name, definition)
    with atomic_file(path) as stream:
        sheet.save(stream, format="PNG", pnginfo=texts, compress_level=1)  # three times as fast, a fifth larger


def _legend(width: int, structures: Sequence[str], found: Sequence[bool]) -> Image.Image:
    """A strip of names, with what an ambiguous one means, each after a square of its colour, in as many columns as
    fit."""
    notes = [
        (describe_structure(name).short, "" if there else "none found")
        for name, there in zip(structures, found, strict=True)
    ]
    labels = [
        name.replace("_", " ") + (f" ({', '.join(filter(None, note))})" if any(note) else "")
        for name, note in zip(structures, notes, strict=True)
    ]
    size = max(11, round(width / 48))
    font = ImageFont.load_default(size)
    gap = size // 2
    cell = int(max(font.getlength(label) for label in labels)) + size + 3 * gap
    columns = max(1, min(len(labels), (width - gap) // cell))
    rows = -(-len(labels) // columns)
    line = round(1.5 * size)
    strip = Image.new("RGB", (width, rows * line + 2 * gap), _GROUND)
    draw = ImageDraw.Draw(strip)
    for at, (label, colour, there) in enumerate(zip(labels, structure_colours(structures), found, strict=True)):
        x, y = gap + (at % columns) * cell, gap + (at // columns) * line
        top = y + (line - size) // 2
        draw.rectangle((x, top, x + size - 1, top + size - 1), fill=colour if there else None, outline=colour)
        draw.text((x + size + gap, y + line // 2), label, font=font, fill=_TEXT_ON if there else _TEXT_OFF, anchor="lm")
    return strip
