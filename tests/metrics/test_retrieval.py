"""Retrieval scores by hand, and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from cxw_monai.metrics.retrieval import average_precision, neighbour_vote, precision_at

SIMILARITY = np.array([[0.9, 0.8, 0.7, 0.6], [0.1, 0.2, 0.3, 0.4]])
RELEVANT = np.array([[1, 0, 1, 0], [1, 0, 0, 0]], bool)
ALL = np.ones((2, 4), bool)


def test_precision_by_hand():
    assert precision_at(1, SIMILARITY, RELEVANT, ALL).tolist() == [1, 0]
    assert precision_at(3, SIMILARITY, RELEVANT, ALL) == pytest.approx([2 / 3, 0])
    assert precision_at(9, SIMILARITY, RELEVANT, ALL) == pytest.approx([1 / 2, 1 / 4])  # of the four that there are
    without = ALL & (np.arange(4) != 0)  # the query itself, say
    assert precision_at(2, SIMILARITY, RELEVANT, without)[0] == 0.5
    assert np.isnan(precision_at(2, SIMILARITY, RELEVANT, without)[1])
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        precision_at(0, SIMILARITY, RELEVANT, ALL)


def test_average_precision_by_hand_and_as_scikit_learn():
    assert average_precision(SIMILARITY, RELEVANT, ALL) == pytest.approx([(1 + 2 / 3) / 2, 1 / 4])
    rng = np.random.default_rng(0)
    similarity, relevant, allowed = rng.random((6, 30)), rng.random((6, 30)) < 0.3, rng.random((6, 30)) < 0.8
    expected = [average_precision_score(r[a], s[a]) for s, r, a in zip(similarity, relevant, allowed, strict=True)]
    assert average_precision(similarity, relevant, allowed) == pytest.approx(expected)


def test_votes_by_hand():
    similarity = np.array([[0.5, 0.5, 0.1], [0.9, 0.2, 0.1], [-np.inf, 0.2, 0.0], [-np.inf, -np.inf, -np.inf]])
    label = np.array([[1, 0, np.nan], [1, 0, 0], [0, 1, 0], [1, 1, 1]], float)
    found = neighbour_vote(similarity, label, 0.1)
    weights = np.exp(np.array([9, 2, 1.0]))
    assert found[:3] == pytest.approx([0.5, weights[0] / weights.sum(), np.exp(2) / (np.exp(2) + 1)])
    assert np.isnan(found[3])
    with pytest.raises(ValueError, match="temperature must be positive"):
        neighbour_vote(similarity, label, 0)
    with pytest.raises(ValueError, match="differ in shape"):
        neighbour_vote(similarity, label[:, :2])
