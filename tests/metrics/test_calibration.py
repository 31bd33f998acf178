"""Reliability and temperature scaling, against known temperatures and bins counted by hand."""

import numpy as np
import pytest
from scipy.special import expit, softmax

from cxw_monai.metrics.calibration import Temperature, reliability
from cxw_monai.metrics.classification import label_scores

NAN = float("nan")


def test_bins_by_hand():
    found = reliability(np.array([0.12, 0.18, 0.95, 1.0, 0.0, 0.5]), np.array([0, 1, 1, 1, 0, NAN]))
    np.testing.assert_allclose(found.probability, [0, 0.15, 0.975], atol=1e-6)
    np.testing.assert_allclose(found.share, [0, 0.5, 1])
    assert list(found.films) == [1, 2, 2]
    assert found.error == pytest.approx((0 + 2 * 0.35 + 2 * 0.025) / 5)


def test_the_error_is_the_scores():
    generator = np.random.default_rng(0)
    probability, label = generator.random(300), (generator.random(300) < 0.4).astype(float)
    scores = label_scores(probability[:, None], label[:, None], ["a"], [str(n) for n in range(300)], draws=0)
    assert reliability(probability, label).error == pytest.approx(scores[0].scores["calibration_error"].value, abs=1e-6)


def test_a_known_temperature_is_found_again():
    """Labels drawn from the probabilities of logits that are then multiplied by 3 and by 1/2."""
    generator = np.random.default_rng(1)
    logits = generator.normal(scale=2, size=(20_000, 2))
    label = (generator.random(logits.shape) < expit(logits)).astype(float)
    label[::5, 1] = NAN
    found = Temperature.fit(logits * [3, 0.5], label)
    assert found.values == pytest.approx((3, 0.5), rel=0.05)
    before, after = (reliability(values[:, 0], label[:, 0]).error for values in (expit(3 * logits), expit(logits)))
    assert reliability(found.probabilities(logits * [3, 0.5])[:, 0], label[:, 0]).error < after + 0.01 < before / 3


def test_a_known_temperature_of_classes_is_found_again():
    generator = np.random.default_rng(2)
    logits = generator.normal(scale=2, size=(20_000, 3))
    label = (generator.random((len(logits), 1)) > softmax(logits, axis=1).cumsum(axis=1)).sum(axis=1)
    label[::4] = -1
    found = Temperature.fit(logits * 4, label)
    assert found.values == pytest.approx((4,), rel=0.05) and found.multiclass
    np.testing.assert_allclose(found.probabilities(logits * 4).sum(axis=1), 1)


@pytest.mark.parametrize(
    "label",
    [
        np.zeros((4, 1)),
        np.full((4, 1), NAN),
        np.array([[1], [1], [0], [0]]),  # all wrong: no hottest one
    ],
)
def test_no_temperature_where_there_is_no_best_one(label):
    logits = np.array([[-2.0], [-1.0], [1.0], [2.0]])
    assert Temperature.fit(logits, label).values == (1.0,)


def test_films_in_perfect_order_make_as_sure_as_their_number_allows():
    """Ten films of each class at logits of -1 and 1: Platt's target is 11 / 12, so that exp(1 / T) = 11."""
    label = np.repeat([0.0, 1.0], 10)
    logits = np.where(label == 1, 1.0, -1.0)[:, None]
    found = Temperature.fit(logits, label[:, None])
    assert found.values == pytest.approx((1 / np.log(11),), rel=1e-3)
    assert found.probabilities(logits)[-1, 0] == pytest.approx(11 / 12, rel=1e-3)
    classes = Temperature.fit(np.concatenate([-logits, logits], axis=1) / 2, label.astype(int))
    assert classes.values == pytest.approx(found.values, rel=1e-3)


def test_three_classes_in_perfect_order():
    """Four films of each of three classes at a logit of 2: targets are 5/7 and 1/7, so that exp(2 / T) = 5."""
    label = np.repeat([0, 1, 2], 4)
    assert Temperature.fit(2.0 * np.eye(3)[label], label).values == pytest.approx((2 / np.log(5),), rel=1e-3)


@pytest.mark.parametrize("label", [[0, 0, 0], [-1, -1, -1], [1, 0, 1]])
def test_no_temperature_of_classes_where_there_is_no_best_one(label):
    logits = np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert Temperature.fit(logits, np.array(label)) == Temperature((1.0,), multiclass=True)


def test_the_order_of_films_stays():
    logits = np.random.default_rng(3).normal(size=(50, 2))
    probabilities = Temperature((0.3, 7.0)).probabilities(logits)
    np.testing.assert_array_equal(probabilities.argsort(axis=0), logits.argsort(axis=0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Temperature((0.0,)), "positive"),
        (lambda: Temperature(()), "positive"),
        (lambda: Temperature((1.0, 2.0), multiclass=True), "one temperature, got 2"),
        (lambda: Temperature((1.0, 2.0)).probabilities(np.zeros((3, 1))), "2 temperatures for logits of 1 labels"),
        (lambda: Temperature.fit(np.zeros((3, 1)), np.zeros((2, 1))), "differ in length: 3 and 2"),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
