"""Masks and maps of labels that were taken for films: they have next to no grey levels."""

from __future__ import annotations

import logging

import numpy as np

from cxw_monai.io.image import Radiograph, RadiographError

__all__ = ["refuse_mask"]

_LABELS = 32  # an image whose stored values are all below is a map of labels; so dark a film would show nothing
_MASK_LEVELS = 4  # no film has so few grey levels
_MASK_SIDE = 64  # rows and columns from which on so few levels tell
_FEW_LEVELS = 16  # grey levels of an image that may be a map of labels in colours
_MASK_SHARE = 0.95  # of the pixels, black and white ones, of an image that may be a mask with soft edges
_SAMPLE = 64  # rows and columns that are looked at first, and decide for nearly every film
_REMEDY = "leave masks out, or give them as masks in a manifest; of a film give the original, or a wider window"

_logger = logging.getLogger(__name__)


def refuse_mask(radiograph: Radiograph) -> None:
    """Refuse a mask or a map of labels; a warning tells what may be one.

    Refused: black and white alone, an image without a value of 32 or more at its own depth, and four grey levels or
    less in an image of 64 x 64 pixels or more (colour counts as the grey that it becomes). Warned of: 16 grey levels or
    less, and 95 % of the pixels at the darkest and the brightest level.

    Args:
        radiograph: as it was read.

    Raises:
        RadiographError: it is one.
    """
    array, path, bits = radiograph.array, radiograph.meta["path"], max(8, radiograph.meta["bits"])
    height, width = array.shape[1:]  # [1, H, W]
    some = array[:, :: max(1, height // _SAMPLE), :: max(1, width // _SAMPLE)]
    if len(np.unique(some)) > _LABELS and _share_of_extremes(some) < _MASK_SHARE:
        return
    levels, highest = len(np.unique(array)), round(float(array.max()) * (2**bits - 1))
    if levels == 2 and array.min() == 0 and array.max() == 1:
        raise RadiographError(path, "only black and white in it: a mask, not a film", _REMEDY)
    if highest < _LABELS:
        raise RadiographError(path, f"no value above {highest} of {2**bits - 1} in it: a map of labels", _REMEDY)
    if levels <= _MASK_LEVELS and min(height, width) >= _MASK_SIDE:
        raise RadiographError(path, f"only {levels} grey levels in it: a mask or a map of labels, not a film", _REMEDY)
    if levels <= _FEW_LEVELS:
        _logger.warning("%s: only %d grey levels in it; if it is a map of labels, leave it out", path, levels)
    elif _share_of_extremes(array) >= _MASK_SHARE:
        _logger.warning("%s: nearly all of it is black or white; if it is a mask, leave it out", path)


def _share_of_extremes(values: np.ndarray) -> float:
    """Share of the values that are the least or the greatest."""
    return float(np.mean((values == values.min()) | (values == values.max())))
