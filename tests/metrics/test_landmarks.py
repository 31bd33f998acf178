"""Radial errors and success rates, by hand."""

import math

import numpy as np
import pytest

from cxw_monai.metrics.landmarks import SUCCESS_MM, radial_errors, summarise_points

NAN = math.nan


def test_a_radial_error_is_in_px_and_by_each_axis_spacing_in_mm():
    pred, true = np.array([[10.0, 20.0], [5.0, 5.0]]), np.array([[13.0, 24.0], [NAN, NAN]])
    px, mm = radial_errors(pred, true, (0.5, 0.25))
    assert px[0] == 5 and mm[0] == pytest.approx(math.hypot(1.5, 1.0)) and np.isnan([px[1], mm[1]]).all()
    assert np.isnan(radial_errors(pred, true)[1]).all()


def test_summaries_of_two_landmarks_on_four_films():
    mm = np.array([[1.0, 5.0], [2.0, NAN], [2.6, NAN], [8.0, 3.0]])
    first, second, total = summarise_points(2 * mm, mm, ["a", "b"], ["p", "p", "q", None])
    assert SUCCESS_MM == (2.0, 2.5, 3.0, 4.0)
    assert (first.point, first.known, first.mean_mm, first.mean_px) == ("a", 4, pytest.approx(3.4), pytest.approx(6.8))
    assert first.success == (0.5, 0.5, 0.75, 0.75)  # 2 mm lies within 2 mm
    assert first.median_mm == pytest.approx(2.3) and first.sd_mm == pytest.approx(np.std([1, 2, 2.6, 8]))
    assert (second.known, second.mean_mm, second.success) == (2, 4.0, (0.0, 0.0, 0.5, 0.5))
    assert (total.point, total.known, total.mean_mm) == ("all", 6, pytest.approx(21.6 / 6))
    assert first.low_mm < first.mean_mm < first.high_mm


def test_patients_not_films_are_resampled():
    """Nine films of one patient and one of another: the interval reaches from one patient's mean to the other's."""
    mm = np.array([[1.0]] * 9 + [[11.0]])
    row = summarise_points(mm, mm, ["a"], ["p"] * 9 + ["q"])[0]
    assert (row.low_mm, row.high_mm) == (1.0, 11.0)
    alone = summarise_points(mm, mm, ["a"], ["p"] * 10)[0]
    assert alone.low_mm is None and alone.mean_mm == 2.0


def test_what_is_unknown_is_none():
    px = np.array([[4.0, NAN], [6.0, NAN]])
    first, second, total = summarise_points(px, np.full((2, 2), NAN), ["a", "b"], [None, None])
    assert (first.mean_px, first.mean_mm, first.success) == (5.0, None, None)
    assert (second.known, second.mean_px) == (0, None) and total.known == 2
    with pytest.raises(ValueError, match="at least one film"):
        summarise_points(px[:0], px[:0], ["a", "b"], [])
