"""Operating points: chosen on validation, applied to other films, with Wilson's intervals."""

from dataclasses import asdict

import numpy as np
import pytest

from cxw_monai.metrics.operating_points import POINTS, OperatingPoint, Rate, choose_points, point_results

NAN = float("nan")


def chosen(probability, label, **how):
    points = choose_points(np.array(probability)[:, None], np.array(label, float)[:, None], ["a"], **how)["a"]
    return {point.name: point.threshold for point in points}


def test_thresholds_by_hand():
    """Ten positives at .10, .15, ... .55 and ten negatives .03 below each."""
    upper = 0.1 + 0.05 * np.arange(10)
    found = chosen([*upper, *(upper - 0.03)], [1] * 10 + [0] * 10)
    assert list(found) == list(POINTS)
    assert found["sensitivity_90"] == pytest.approx((0.15 + 0.12) / 2)  # nine of ten lie above
    assert found["sensitivity_95"] == pytest.approx((0.10 + 0.07) / 2)  # ten of ten: nine are too few
    assert found["specificity_90"] == pytest.approx((0.50 + 0.47) / 2)  # one of ten negatives lies above
    assert found["youden"] == pytest.approx((0.55 + 0.52) / 2)  # as good everywhere: the highest
    assert found["cost"] == pytest.approx((0.10 + 0.07) / 2)  # a miss costs five false alarms
    assert chosen([*upper, *(upper - 0.03)], [1] * 10 + [0] * 10, miss_cost=0.1)["cost"] == pytest.approx(0.535)


def test_youden_of_separated_films_lies_between_them():
    found = chosen([0.2, 0.3, 0.7, 0.9, 0.5], [0, 0, 1, 1, NAN])
    assert set(found.values()) == {0.5}  # midway between .3 and .7; the unknown film has no share


def test_never_and_always():
    """All probabilities alike: to find all is to call all, to reject nine of ten is to call none, even at 1."""
    for value in (0.4, 1.0):
        found = chosen([value] * 4, [0, 1, 0, 1])
        assert found["sensitivity_90"] == 0 and value < found["specificity_90"] <= 1 + 1e-9


def test_points_keep_what_they_promise_where_they_were_chosen():
    generator = np.random.default_rng(0)
    label = (generator.random((500, 2)) < [0.1, 0.5]).astype(float)
    probability = np.round(np.clip(0.3 * label + generator.random((500, 2)) * 0.7, 0, 1), 2)
    for result in point_results(choose_points(probability, label, "ab"), probability, label, "ab"):
        if result.point.name.startswith("sensitivity"):
            assert result.sensitivity.value >= int(result.point.name[-2:]) / 100
        if result.point.name == "specificity_90":
            assert result.specificity.value >= 0.9


def test_points_do_not_move_with_test_labels():
    generator = np.random.default_rng(1)
    probability, label = generator.random((80, 1)), (generator.random((80, 1)) < 0.5).astype(float)
    points = choose_points(probability, label, ["a"])
    test = generator.random((50, 1))
    for wanted in (test > 0.5, test < 0.5, np.zeros((50, 1)), np.full((50, 1), NAN)):
        results = point_results(points, test, np.asarray(wanted, float), ["a"])
        assert [result.point for result in results] == points["a"]
        for result in results:
            called = test[:, 0] >= result.point.threshold
            assert (result.ppv is None) == (not called.any() or np.isnan(wanted).all())
            if result.ppv is not None:
                assert (result.ppv.count, result.ppv.films) == ((called & (wanted[:, 0] == 1)).sum(), called.sum())


def test_rates_by_hand():
    points = {"a": [OperatingPoint("youden", 0.5)], "b": []}
    probability = np.array([[0.9, 0.5], [0.5, 0.5], [0.4, 0.5], [0.6, 0.5], [0.1, 0.5]])
    label = np.array([[1, 0], [1, 0], [1, 0], [0, 0], [NAN, 0]])
    (found,) = point_results(points, probability, label, ["a", "b"])
    counts = [(rate.count, rate.films) for rate in (found.sensitivity, found.specificity, found.ppv, found.npv)]
    assert found.label == "a" and counts == [(2, 3), (0, 1), (2, 3), (0, 1)]


def test_wilsons_interval_against_its_formula():
    count, films, z = 81, 263, 1.959963984540054
    share = count / films
    centre = (share + z**2 / (2 * films)) / (1 + z**2 / films)
    reach = z / (1 + z**2 / films) * np.sqrt(share * (1 - share) / films + z**2 / (4 * films**2))
    found = Rate.of(count, films)
    assert (found.low, found.high) == pytest.approx((centre - reach, centre + reach))
    # Newcombe, Statist. Med. 17 (1998), table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29
    for (count, films), bounds in {
        (81, 263): (0.2553, 0.3662), (15, 148): (0.0624, 0.1605), (0, 20): (0, 0.1611), (1, 29): (0.0061, 0.1718)
    }.items():  # fmt: skip
        found = Rate.of(count, films)
        assert (found.low, found.high) == pytest.approx(bounds, abs=5e-5)
    assert Rate.of(0, 0) is None


def test_classes_are_taken_one_against_the_rest():
    probability = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1]])
    found = choose_points(probability, np.array([0, 1, 0, 1]), ["a", "b", "c"])
    assert [point.threshold for point in found["a"]] == pytest.approx([0.4] * 5) and found["c"] == []


def test_points_are_plain_values():
    point = OperatingPoint("youden", 0.25)
    assert asdict(point) == {"name": "youden", "threshold": 0.25} and OperatingPoint(**asdict(point)) == point
    with pytest.raises(AttributeError):
        point.threshold = 0.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OperatingPoint("youden", NAN), "youden must be a number of at least 0, got nan"),
        (lambda: choose_points(np.zeros((3, 1)), np.zeros((3, 1)), ["a"], miss_cost=0), "miss_cost must be positive"),
        (lambda: choose_points(np.zeros((3, 2)), np.zeros((3, 1)), ["a"]), r"\[3, 1\] like the labels, got \[3, 2\]"),
        (lambda: point_results({}, np.zeros((3, 2)), np.zeros((3, 1)), ["a"]), "like the labels"),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
