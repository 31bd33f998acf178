"""Expected Dice by hand, and against annotations that are drawn from the probabilities."""

from __future__ import annotations

import numpy as np
import pytest

from cxw_monai.quality.expected_dice import doubted, expected_dice


def test_values_by_hand():
    probabilities = np.array([[[0.9, 0.6], [0.4, 0.1]], [[1, 1], [0, 0]], [[0.2, 0.3], [0.4, 0.4]]])
    found = expected_dice(probabilities)
    np.testing.assert_allclose(found[:2], [2 * 1.5 / (2 + 2.0), 1.0])
    assert np.isnan(found[2])
    assert expected_dice(probabilities, 0.4)[0] == pytest.approx(2 * 1.9 / (3 + 2.0))


def test_lungs_and_hearts_below_their_limit_are_doubted():
    values = {"lung_field_left": 0.819, "lung_right": 0.85, "heart": 0.7, "clavicle_left": 0.1, "lung_left": np.nan}
    assert doubted(values) == [
        "left lung field: the network is unsure of it, expected Dice 0.819, below 0.82",
        "heart: the network is unsure of it, expected Dice 0.700, below 0.8",
    ]


def test_it_is_the_mean_dice_of_annotations_drawn_from_the_probabilities():
    rng = np.random.default_rng(0)
    probabilities = rng.beta(0.3, 0.6, (1, 40, 40))
    mask = probabilities[0] >= 0.5
    drawn = rng.random((400, 40, 40)) < probabilities
    dice = 2 * (drawn & mask).sum((1, 2)) / (drawn.sum((1, 2)) + mask.sum())
    assert expected_dice(probabilities)[0] == pytest.approx(dice.mean(), abs=0.002)


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 4)), np.full((1, 2, 2), 1.5), np.full((1, 2, 2), np.nan), np.zeros((0, 2, 2))]
)
def test_what_are_no_probabilities_is_refused(wrong):
    with pytest.raises(ValueError, match="probabilities must be"):
        expected_dice(wrong)
