"""How good a network's own probabilities say that its masks are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cxw_monai.io.structures import split_side

__all__ = ["DOUBTED_BELOW", "doubted", "expected_dice"]

DOUBTED_BELOW: dict[str, float] = {"lung_field": 0.82, "lung": 0.85, "heart": 0.8}
"""Expected Dice below which a mask is doubted, by structure without its side; others are not judged.

For calibrated probabilities, such as the shipped weights'. None of 26 adults' validation films with manual masks is
below (the lowest are .929, .933 and .935); 2 % of 287 unlabelled adults' films are, and 18 % of 60 children's, by the
lung field and the heart, which were learned from adults alone.
"""


def doubted(expected: Mapping[str, float]) -> list[str]:
    """Masks whose expected Dice is below :data:`DOUBTED_BELOW`, in words.

    Args:
        expected: :func:`expected_dice` by structure; NaN, of an empty mask, is not judged.
    """
    found = []
    for name, value in expected.items():
        base, side = split_side(name)
        if value < (limit := DOUBTED_BELOW.get(base, 0.0)):
            words = " ".join(filter(None, (side, base.replace("_", " "))))
            found.append(f"{words}: the network is unsure of it, expected Dice {value:.3f}, below {limit:g}")
    return found


def expected_dice(probabilities: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """Dice that masks would have with an annotation that is drawn from the probabilities.

    Twice the probability inside the mask over the mask's area and the sum of all probabilities: the ratio of expected
    values, which is the expected ratio up to a term that vanishes with the number of pixels (Li et al. 2022,
    https://arxiv.org/abs/2207.09957). It is as right as the probabilities are calibrated: a network that is sure of a
    wrong mask gives it a high value, and on films unlike those of the training most networks are too sure. Use it to
    order films, and choose a limit on films with annotations.

    Args:
        probabilities: ``[S, H, W]`` in [0, 1], one structure each.
        threshold: a pixel is inside the mask from this probability on.

    Returns:
        float64 ``[S]`` in [0, 1]; NaN where the mask has no pixel.

    Raises:
        ValueError: probabilities of another form or range.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    if values.ndim != 3 or values.size == 0 or not (values.min() >= 0 and values.max() <= 1):
        raise ValueError(f"probabilities must be [S, H, W] in [0, 1], got shape {values.shape}")
    masks = values >= threshold
    inside, area = (values * masks).sum((1, 2)), masks.sum((1, 2))
    return np.where(area > 0, 2 * inside / np.maximum(area + values.sum((1, 2)), 1e-12), np.nan)
