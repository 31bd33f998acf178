"""Where a classifier looks: the attention of an attentive head, or what covering a part of the film changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.networks import RadiographClassifier
from cxw_monai.networks.heads import AttentiveHead

__all__ = ["heat_maps", "occlusion_maps", "write_heat_map"]

WINDOWS = 8
"""Covered places along each side of the film."""
LONGEST = 1024
"""Longer side of a picture in px, at most."""
OPACITY = 0.5


def heat_maps(network: nn.Module, image: Tensor) -> np.ndarray:
    """Heat maps of one film's classes.

    Attention shows which tokens an attentive head read; a token knows of the whole film. For other heads the maps are
    those of `occlusion_maps`.

    Args:
        network: a classifier in evaluation mode.
        image: `[1, 1, h, w]` in [0, 1].

    Returns:
        float32 `[L, rows, columns]`, 0 or more.
    """
    if isinstance(network, RadiographClassifier) and isinstance(network.head, AttentiveHead):
        return network.attention(image)[0].float().cpu().numpy()
    return occlusion_maps(network, image)


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


def write_heat_map(path: str | Path, film: np.ndarray, values: np.ndarray) -> None:
    """Draw a heat map over a film, from transparent (0) to yellow (the map's largest value).

    Args:
        path: PNG to write, of at most `LONGEST` px.
        film: `[H, W]` in [0, 1], upright, bone bright.
        values: `[rows, columns]` over the whole film, 0 or more.
    """
    scale = min(1.0, LONGEST / max(film.shape))
    size = max(round(film.shape[0] * scale), 1), max(round(film.shape[1] * scale), 1)
    grey = _resized(film, size).clip(0, 1)[..., None]
    heat = _resized(values / max(float(values.max()), 1e-12), size).clip(0, 1)
    colour: Any = colormaps["inferno"](heat)[..., :3]
    alpha = OPACITY * heat[..., None]
    picture = Image.fromarray(np.round(255 * ((1 - alpha) * grey + alpha * colour)).astype(np.uint8))
    with atomic_file(path) as stream:
        picture.save(stream, "PNG")


def _resized(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    tensor = torch.from_numpy(np.asarray(values, dtype=np.float32))[None, None]
    return F.interpolate(tensor, size, mode="bilinear", antialias=True)[0, 0].numpy()
