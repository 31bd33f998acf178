"""What speaks against one film and its masks: the picture by the package's film model, and the masks themselves."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from cxw_monai.io.structures import split_side

from .measure import content_flags
from .plausibility import plausibility
from .records import QualitySettings

__all__ = [
    *("NO_CHEST", "ON_IMPLAUSIBLE", "ImplausibleWarning", "checked_choice", "film_doubts", "review", "shows_chest"),
]

ON_IMPLAUSIBLE = ("keep", "flag", "skip")
"""What is done about implausible masks: nothing is looked at, they are given with a mark, they are not given."""

_LONGEST = 1024  # px of the longer side that films are thinned out to
CHEST = {
    "lung",
    "lungs",
    "lung_field",
    "lung_fields",
    "heart",
    "mediastinum",
    "cardiomediastinum",
    "pneumothorax",
    "pleural_effusion",
    "effusion",
}
"""Structures, without their side, that only a chest film shows."""

_FILM = {
    "low_contrast": "hardly any contrast",
    "not_frontal_chest": "not a frontal chest film",
    "inverted": "looks inverted: bone is dark",
    "rotated": "looks turned: on its side or upside down",
    "mirrored": "looks mirrored, or the heart lies on the right",
}
"""Findings of :mod:`~cxw_monai.quality.measure` that masks suffer from, in words."""
NO_CHEST = {_FILM["low_contrast"], _FILM["not_frontal_chest"]}
"""Reasons that a film shows no chest at all: hardly anything is on it, or something else."""


class ImplausibleWarning(UserWarning):
    """A film doesn't look like a frontal chest film, or the masks of it don't look like its organs."""


warnings.simplefilter("always", ImplausibleWarning, append=True)  # each film's, unless a filter says otherwise


def checked_choice(on_implausible: str) -> str:
    """One of :data:`ON_IMPLAUSIBLE`.

    Raises:
        ValueError: any other.
    """
    if on_implausible not in ON_IMPLAUSIBLE:
        raise ValueError(f"on_implausible must be one of {', '.join(ON_IMPLAUSIBLE)}, got {on_implausible!r}")
    return on_implausible


def shows_chest(structures: Sequence[str]) -> bool:
    """Whether masks of these names are of frontal chest films; those of other names are not judged."""
    return any(split_side(name)[0] in CHEST for name in structures)


def review(
    film: np.ndarray,
    masks: Mapping[str, np.ndarray],
    spacing_mm: tuple[float, float] | None = None,
) -> list[str]:
    """What speaks against masks of a film.

    Args:
        film: float32 ``[H, W]`` or ``[1, H, W]`` in [0, 1], bone bright, upright.
        masks: bool ``[h, w]`` by structure, upright; of any size.
        spacing_mm: (row, column) spacing of the masks' pixels, None where it isn't known.

    Returns:
        Reasons in words. None where nothing does, or where no structure is one of a chest (:data:`CHEST`).
    """
    return film_doubts(film) + plausibility(masks, spacing_mm) if shows_chest(list(masks)) else []


def film_doubts(film: np.ndarray) -> list[str]:
    """What speaks against a film as an upright frontal chest film.

    Args:
        film: float32 ``[H, W]`` or ``[1, H, W]`` in [0, 1], bone bright, upright.

    Returns:
        Reasons in words; none where nothing does.
    """
    film = np.asarray(film).reshape(np.shape(film)[-2:])
    step = -(-max(film.shape) // _LONGEST)
    flags = content_flags(np.ascontiguousarray(film[::step, ::step]), QualitySettings())
    return [text for flag, text in _FILM.items() if flag in flags]
