"""Where a classifier looks: the attention of an attentive head, or what covering a part of the film changes."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn
from torch.nn import functional as F

from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.networks import RadiographClassifier
from cxw_monai.networks.heads import AttentiveHead

__all__ = ["HeatMaps", "drawn", "heat_maps", "occlusion_maps", "write_heat_map"]

WINDOWS = 8
"""Covered places along each side of the film."""
LONGEST = 1024
"""Longer side of a picture in px, at most."""
SHORTEST = 512
"""A film whose longer side has fewer px is enlarged by a whole number."""
OPACITY = 0.6


class HeatMaps(NamedTuple):
    """Where a classifier looks on one film.

    Attributes:
        values: float32 `[L, rows, columns]` over the whole film, 0 or more.
        quantity: what the values are, for a legend.
        least: the least value that is drawn as strong; a map without one is faint.
    """

    values: np.ndarray
    quantity: str
    least: float


def heat_maps(network: nn.Module, image: Tensor) -> HeatMaps:
    """Heat maps of one film's classes.

    Attention shows which tokens an attentive head read; a token knows of the whole film. For other heads the maps are
    those of `occlusion_maps`.

    Args:
        network: a classifier in evaluation mode.
        image: `[1, 1, h, w]` in [0, 1].

    Returns:
        Attention above its mean over the film, in multiples of this mean, or the falls of the logit.
    """
    if isinstance(network, RadiographClassifier) and isinstance(network.head, AttentiveHead):
        shares = network.attention(image)[0].float().cpu().numpy()  # [L, rows, columns], of sum 1
        above = (shares * shares[0].size - 1).clip(min=0)
        return HeatMaps(above, "attention above its mean, in multiples of the mean", least=1)
    return HeatMaps(occlusion_maps(network, image), "fall of the logit where the film is covered", least=0.5)


def occlusion_maps(network: nn.Module, image: Tensor, windows: int = WINDOWS) -> np.ndarray:
    """How far a class's logit falls when a part of the film is covered with the film's mean.

    Source: Zeiler and Fergus (arXiv 1311.2901, section 4.2). A covered square is two cells wide and moves by one, so
    that each cell is the mean of up to four squares.

    Args:
        network: takes `[B, 1, h, w]` to logits `[B, L]`.
        image: `[1, 1, h, w]` in [0, 1].
        windows: cells along each side.

    Returns:
        float32 `[L, windows, windows]`, 0 where covering does not lower the logit.
    """
    height, width = image.shape[2:]
    rows = [round(height * n / windows) for n in range(windows + 1)]
    columns = [round(width * n / windows) for n in range(windows + 1)]
    whole = network(image)[0].float()  # [L]
    falls = torch.zeros(len(whole), windows, windows, device=image.device)
    times = torch.zeros(windows, windows, device=image.device)
    for row in range(-1, windows):
        top, bottom = max(row, 0), min(row + 2, windows)
        covered = image.repeat(windows + 1, 1, 1, 1)
        for column in range(-1, windows):
            left, right = max(column, 0), min(column + 2, windows)
            covered[column + 1, :, rows[top] : rows[bottom], columns[left] : columns[right]] = image.mean()
        fall = whole - network(covered).float()  # [windows + 1, L]
        for column in range(-1, windows):
            left, right = max(column, 0), min(column + 2, windows)
            falls[:, top:bottom, left:right] += fall[column + 1][:, None, None]
            times[top:bottom, left:right] += 1
    return (falls / times).clamp(min=0).cpu().numpy()


def drawn(film: np.ndarray) -> np.ndarray:
    """A film `[H, W]` in [0, 1] as heat maps are drawn on it, `SHORTEST` to `LONGEST` px on its longer side."""
    longer = max(film.shape)
    scale = min(1.0, LONGEST / longer) if longer >= SHORTEST else float(-(-SHORTEST // longer))
    size = max(round(film.shape[0] * scale), 1), max(round(film.shape[1] * scale), 1)
    return _resized(film, size).clip(0, 1)


def write_heat_map(
    path: str | Path, grey: np.ndarray, values: np.ndarray, title: str, quantity: str, least: float
) -> None:
    """Draw a heat map over a film, from transparent (0) to yellow (the largest value or `least`), with its scale.

    Args:
        path: PNG to write: the film, and a legend below it.
        grey: the film as `drawn` gives it, upright, bone bright.
        values: `[rows, columns]` over the whole film, 0 or more.
        title: the legend's, such as the class and its probability.
        quantity, least: see `HeatMaps`.
    """
    most = max(float(values.max()), least)
    picture = Image.fromarray(_heated(grey, _resized(values / most, grey.shape).clip(0, 1)))
    legend = _legend(picture.width, title, quantity, most)
    sheet = Image.new("RGB", (picture.width, picture.height + legend.height))
    sheet.paste(picture, (0, 0))
    sheet.paste(legend, (0, picture.height))
    with atomic_file(path) as stream:
        sheet.save(stream, "PNG")


def _heated(grey: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """uint8 `[h, w, 3]` of a film and a map `[h, w]` in [0, 1]."""
    colour: Any = colormaps["inferno"](heat)[..., :3]
    alpha = OPACITY * heat[..., None]
    return np.round(255 * ((1 - alpha) * grey[..., None] + alpha * colour)).astype(np.uint8)


def _legend(width: int, title: str, quantity: str, most: float) -> Image.Image:
    """A strip with the colours as they lie on black, from 0 to `most`."""
    points = max(11, min(round(width / 40), 22))
    font, line, gap = ImageFont.load_default(points), round(1.4 * points), round(0.6 * points)
    ends = "0", f"{most:.3g}"
    lines = [title, *textwrap.wrap(quantity, max(10, int(width / (0.55 * points))))]
    strip = Image.new("RGB", (width, line * (len(lines) + 1) + 2 * gap), (24, 24, 24))
    draw = ImageDraw.Draw(strip)
    for number, text in enumerate(lines):
        draw.text((gap, gap + number * line), text, font=font, fill="white")
    left, right = (2 * gap + int(font.getlength(text)) for text in ends)
    ramp = np.linspace(0, 1, max(1, width - left - right))[None].repeat(points, axis=0)
    top = gap + len(lines) * line
    strip.paste(Image.fromarray(_heated(np.zeros_like(ramp), ramp)), (left, top))
    draw.text((gap, top), ends[0], font=font, fill="white")
    draw.text((width - gap, top), ends[1], font=font, fill="white", anchor="ra")
    return strip


def _resized(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    tensor = torch.from_numpy(np.asarray(values, dtype=np.float32))[None, None]
    return F.interpolate(tensor, size, mode="bilinear", antialias=True)[0, 0].numpy()
