"""Scores of a classifier against scikit-learn, MONAI and numbers counted by hand."""

import numpy as np
import pytest
import torch
from monai.metrics import CalibrationErrorMetric
from sklearn import metrics

from cxw_monai.metrics.classification import ALL, BINS, METRICS, label_scores, label_table

NAN = float("nan")


def made(films=200, labels=2, seed=0):
    """Probabilities with ties that say something of random labels, and patients with two films each."""
    generator = np.random.default_rng(seed)
    label = (generator.random((films, labels)) < 0.3).astype(float)
    probability = np.round(np.clip(0.3 * label + generator.random((films, labels)) * 0.7, 0, 1), 2)
    return probability, label, [f"p{film // 2}" for film in range(films)]


def by_sklearn(probability, positive, called, **weight):
    return {
        "auroc": metrics.roc_auc_score(positive, probability, **weight),
        "auprc": metrics.average_precision_score(positive, probability, **weight),
        "accuracy": metrics.accuracy_score(positive, called, **weight),
        "f1": metrics.f1_score(positive, called, **weight),
        "sensitivity": metrics.recall_score(positive, called, **weight),
        "specificity": metrics.recall_score(~positive, ~called, **weight),
    }


def test_four_films_by_hand():
    """Positives at .9 and .4, negatives at .6 and .1: three of four pairs, one miss and one false alarm."""
    probability, label = np.array([[0.9], [0.4], [0.6], [0.1]]), np.array([[1.0], [1.0], [0.0], [0.0]])
    found = {name: score.value for name, score in label_scores(probability, label, ["a"], "abcd")[0].scores.items()}
    assert found == pytest.approx(
        {
            "auroc": 3 / 4,
            "auprc": (1 / 1 + 2 / 3) / 2,
            "accuracy": 0.5,
            "f1": 0.5,
            "sensitivity": 0.5,
            "specificity": 0.5,
            "calibration_error": (0.1 + 0.6 + 0.6 + 0.1) / 4,
        }
    )


@pytest.mark.parametrize("threshold", [0.5, 0.2])
def test_scores_are_those_of_scikit_learn_and_monai(threshold):
    probability, label, patients = made()
    label[::7, 0] = NAN
    rows = label_scores(probability, label, ["a", "b"], patients, draws=0, threshold=threshold)
    for one in range(2):
        known = ~np.isnan(label[:, one])
        chosen, positive = probability[known, one], label[known, one] == 1
        expected = by_sklearn(chosen, positive, chosen >= threshold)
        pair = (torch.tensor(values, dtype=torch.float64)[None, None] for values in (chosen + 1e-6, positive))
        error = CalibrationErrorMetric(num_bins=BINS)
        error(*pair)
        expected["calibration_error"] = error.aggregate().item()
        assert {name: score.value for name, score in rows[one].scores.items()} == pytest.approx(expected, abs=1e-5)
    means = {name: np.mean([row.scores[name].value for row in rows[:2]]) for name in METRICS}
    assert rows[2].name == ALL
    assert {name: score.value for name, score in rows[2].scores.items()} == pytest.approx(means)


def test_intervals_are_scikit_learns_over_the_same_resamplings():
    probability, label, patients = made(films=60, labels=1)
    positive, draws, expected = label[:, 0] == 1, 50, []
    ids = np.unique(patients, return_inverse=True)[1]
    for times in np.random.default_rng(3).multinomial(30, np.full(30, 1 / 30), size=draws):
        weight = times[ids]
        expected.append(by_sklearn(probability[:, 0], positive, probability[:, 0] >= 0.5, sample_weight=weight))
    (row, _) = label_scores(probability, label, ["a"], patients, draws=draws, seed=3)
    for name in expected[0]:
        bounds = np.quantile([found[name] for found in expected], [0.025, 0.975])
        assert (row.scores[name].low, row.scores[name].high) == pytest.approx(tuple(bounds)), name


def test_intervals_hold_the_truth_as_often_as_they_say():
    """AUROC .76 of two normal distributions one standard deviation apart: missed by 1 in 20, more or less."""
    missed, truth = 0, 0.5 * (1 + 0.5204998778)  # Phi(1 / sqrt 2) = (1 + erf(1 / 2)) / 2
    for seed in range(150):
        generator = np.random.default_rng(seed)
        label = np.repeat([0.0, 1.0], 60)[:, None]
        probability = 1 / (1 + np.exp(-(generator.normal(size=(120, 1)) + label)))
        auroc = label_scores(probability, label, ["a"], [str(n) for n in range(120)], draws=200)[0].scores["auroc"]
        missed += not auroc.low <= truth <= auroc.high
    assert 1 <= missed <= 18


def test_a_patients_films_are_no_new_evidence():
    """Each film ten times over: the same interval if they are the same patient's, a far narrower one if not."""
    probability, label, _ = made(films=60, labels=1)
    ids = [str(film) for film in range(60)]
    once = label_scores(probability, label, ["a"], ids)[0].scores["auroc"]
    tenfold = np.repeat(probability, 10, axis=0), np.repeat(label, 10, axis=0), ["a"]
    same = label_scores(*tenfold, list(np.repeat(ids, 10)))[0].scores["auroc"]
    others = label_scores(*tenfold, [str(film) for film in range(600)])[0].scores["auroc"]
    assert (same.low, same.high) == pytest.approx((once.low, once.high))
    assert others.high - others.low < 0.5 * (once.high - once.low)


def test_unknown_labels_have_no_share():
    probability, label, patients = made()
    unknown = np.arange(200) % 3 == 0
    label[unknown, 0] = NAN
    changed = probability.copy()
    changed[unknown, 0] = 1 - changed[unknown, 0]
    found, again = (label_scores(p, label, ["a", "b"], patients, draws=20) for p in (probability, changed))
    assert found == again
    assert (found[0].films, found[0].unknown, found[2].unknown) == (133, 67, 67)
    assert found[0].positives + found[0].negatives == 133 and found[2].films == 200


def test_one_value_is_not_defined_and_counted():
    probability, label, patients = made()
    label[:, 0] = 0
    label[:, 1] = NAN
    absent, unknown, total = label_scores(probability, label, ["a", "b"], patients, draws=20)
    assert set(absent.scores) == {"accuracy", "specificity", "calibration_error"}
    assert absent.reason == "not defined: 0 films with it, 200 without" and absent.negatives == 200
    assert absent.scores["specificity"].low < absent.scores["specificity"].high
    assert unknown.scores == {} and unknown.unknown == 200 and unknown.films == unknown.patients == 0
    assert total.reason == "0 of 2 labels have films with and without it" and "auroc" not in total.scores


def test_the_mean_is_over_the_labels_that_have_a_score():
    probability, label, patients = made()
    label[:, 1] = 1
    first, second, total = label_scores(probability, label, ["a", "b"], patients, draws=100)
    assert set(second.scores) == {"accuracy", "f1", "sensitivity", "calibration_error"}
    assert total.scores["auroc"] == first.scores["auroc"]
    assert total.scores["accuracy"].value == np.mean([row.scores["accuracy"].value for row in (first, second)])
    assert total.reason == "1 of 2 labels have films with and without it"


def test_no_interval_from_a_single_patient():
    probability, label, patients = made(labels=1)
    label[:] = 0
    label[:2] = 1  # both of patient p0
    (row, _) = label_scores(probability, label, ["a"], patients)
    assert all(score.low is None for score in row.scores.values()) and "auroc" in row.scores


def test_noise_only_adds_to_the_calibration_error():
    """Most resamplings of films have a larger error than the films, so that no interval is given."""
    generator = np.random.default_rng(0)
    probability = generator.random((300, 1))
    label = (generator.random((300, 1)) < probability).astype(float)
    ids = [str(film) for film in range(300)]
    error = label_scores(probability, label, ["a"], ids, draws=100)[0].scores["calibration_error"]
    times = [generator.integers(0, 300, 300) for _ in range(100)]
    again = [label_scores(probability[n], label[n], ["a"], ids, draws=0)[0].scores["calibration_error"] for n in times]
    assert np.mean([score.value > error.value for score in again]) > 0.8 and error.low is None


def test_multi_class_by_hand():
    """Three of four known films are called right; the fifth is unknown."""
    probability = np.array([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.4, 0.35, 0.25], [0.1, 0.2, 0.7], [0.1, 0.1, 0.8]])
    *rows, total = label_scores(probability, np.array([0, 1, 1, 2, -1]), ["a", "b", "c"], "vwxyz", draws=0)
    assert [(row.positives, row.negatives, row.unknown) for row in rows] == [(1, 3, 1), (2, 2, 1), (1, 3, 1)]
    assert [row.scores["sensitivity"].value for row in rows] == [1, 0.5, 1]
    assert [row.scores["specificity"].value for row in rows] == pytest.approx([2 / 3, 1, 1])
    assert total.films == 4 and total.scores["accuracy"].value == 0.75
    assert total.scores["auroc"].value == 1  # each class's own films rank first
    gaps = [0.2, 0.5, -0.4, 0.3]  # of the most probable class: right or not, less its probability, each in its bin
    assert total.scores["calibration_error"].value == pytest.approx(np.abs(gaps).mean())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probability": np.full((4, 3), 0.5)}, "probability must be"),
        ({"probability": np.full((4, 2), 1.5)}, r"in \[0, 1\], got values from 1.5"),
        ({"probability": np.full((4, 2), NAN)}, "probabilities must lie"),
        ({"label": np.full((4, 2), 0.5)}, "labels must be 0, 1 or NaN"),
        ({"label": np.array([0, 1, 2, 0])}, "from -1 .unknown. to 1"),
        ({"label": np.zeros(4)}, "must be integers"),
        ({"label": np.zeros((4, 3))}, "label must be"),
        ({"label": np.zeros((3, 2))}, "differ in length: 4, 3, 4"),
        ({"names": ["a", ALL]}, "rename it"),
        ({"patients": ["p"]}, "differ in length"),
        ({"probability": np.zeros((0, 2)), "label": np.zeros((0, 2)), "patients": []}, "no films"),
    ],
)
def test_what_is_refused(change, message):
    good = {
        "probability": np.full((4, 2), 0.5),
        "label": np.zeros((4, 2)),
        "names": ["a", "b"],
        "patients": list("wxyz"),
    }
    with pytest.raises(ValueError, match=message):
        label_scores(**good | change)


def test_class_numbers_become_a_table():
    np.testing.assert_array_equal(label_table(np.array([1, -1, 0]), 2), [[0, 1], [NAN, NAN], [1, 0]])
