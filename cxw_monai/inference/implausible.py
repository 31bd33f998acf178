"""What speaks against the masks of a film that was read, whatever way it is stored."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cxw_monai.io import Radiograph, RadiographError
from cxw_monai.quality.review import checked_choice, review

__all__ = ["doubts_of", "review_film"]


def review_film(film: Radiograph, masks: Mapping[str, np.ndarray]) -> list[str]:
    """Reasons in words, see :func:`~cxw_monai.quality.review.review`.

    Args:
        film: as :func:`~cxw_monai.io.read_radiograph` gives it.
        masks: bool ``[*source_shape]`` by structure, on the stored grid.
    """
    upright = {name: film.meta["pixel_map"].turn(mask) for name, mask in masks.items()}
    same = all(mask.shape == film.array.shape[1:] for mask in upright.values())
    return review(film.array, upright, film.meta["spacing_mm"] if same else None)


def doubts_of(film: Radiograph, masks: Mapping[str, np.ndarray], on_implausible: str) -> list[str]:
    """What speaks against masks, where it is to be looked for.

    Args:
        film, masks: as for :func:`review_film`.
        on_implausible: ``keep`` doesn't look, ``flag`` gives the reasons, ``skip`` raises where there are some.

    Raises:
        RadiographError: the masks are implausible and to be skipped.
        ValueError: another choice.
    """
    if checked_choice(on_implausible) == "keep":
        return []
    doubts = review_film(film, masks)
    if doubts and on_implausible == "skip":
        remedy = "look at it; on_implausible 'flag' gives its masks with a mark"
        raise RadiographError(film.meta.get("path", "a film"), f"implausible: {'; '.join(doubts)}", remedy)
    return doubts
