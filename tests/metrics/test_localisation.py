"""Points and boxes of maps, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from cxw_monai.metrics.localisation import (
    MapFinding,
    best_iou,
    found_in,
    hit,
    iou,
    localisation_scores,
    moved_boxes,
    union_share,
)

LEFT = (0.0, 0.0, 0.5, 1.0)


def test_the_point_and_boxes_of_a_map():
    values = np.zeros((8, 8), np.float32)
    values[1, 6] = 4
    values[5:7, 1:4] = 3
    found = found_in(values, share=0.5)
    assert found.point == pytest.approx((6.5 / 8, 1.5 / 8), abs=0.01)
    assert len(found.boxes) == 2
    x, y, width, height = found.boxes[0]  # of the larger sum, though not the highest
    assert (x, y) == pytest.approx((1 / 8, 5 / 8), abs=0.05) and (width, height) == pytest.approx(
        (3 / 8, 2 / 8), abs=0.06
    )
    assert len(found_in(values, share=0.9).boxes) == 1 and len(found_in(values, most=1).boxes) == 1
    assert found_in(values * 7 - 3).boxes == found.boxes  # whatever its unit and its zero


def test_an_even_map_names_the_middle_and_no_box():
    assert found_in(np.ones((3, 3))) == MapFinding((0.5, 0.5), [])
    for wrong in (np.full((2, 2), np.nan), np.zeros(4), np.zeros((0, 2))):
        with pytest.raises(ValueError, match="a map must be finite"):
            found_in(wrong)
    with pytest.raises(ValueError, match="share must lie between 0 and 1"):
        found_in(np.eye(3), share=1)


def test_overlap_by_hand():
    assert iou(LEFT, LEFT) == 1 and iou(LEFT, (0.5, 0, 0.5, 1)) == 0
    assert iou(LEFT, (0.25, 0, 0.5, 1)) == pytest.approx(1 / 3)
    assert iou(LEFT, (0.25, 0.25, 0.5, 0.5)) == pytest.approx(0.125 / (0.5 + 0.25 - 0.125))
    assert best_iou([], [LEFT]) == 0
    assert best_iou([LEFT, (0, 0, 1, 1)], [LEFT, (0.5, 0, 0.5, 1)]) == pytest.approx((1 + 0.5) / 2)
    assert hit((0.5, 0.3), [LEFT]) and not hit((0.51, 0.3), [LEFT])


def test_chance_is_the_area_of_the_boxes():
    boxes = [(0.1, 0.1, 0.4, 0.4), (0.3, 0.3, 0.4, 0.4), (0.9, 0.9, 0.3, 0.3)]  # the last reaches out of the film
    assert union_share(boxes) == pytest.approx(0.16 + 0.16 - 0.04 + 0.01)
    assert union_share([]) == 0
    points = np.random.default_rng(0).random((4000, 2))
    assert np.mean([hit(tuple(point), boxes) for point in points]) == pytest.approx(union_share(boxes), abs=0.03)


def test_moved_boxes_keep_their_size_and_stay_in_the_film():
    generator = np.random.default_rng(0)
    moved = np.array([moved_boxes([(0.9, 0, 0.1, 0.8)], generator)[0] for _ in range(200)])
    assert np.ptp(moved[:, 2:], axis=0).max() == 0 and moved[:, 0].max() <= 0.9 and moved[:, 1].max() <= 0.2
    assert moved[:, 0].mean() == pytest.approx(0.45, abs=0.05)


def test_scores_over_films():
    right = MapFinding((0.2, 0.5), [LEFT])
    wrong = MapFinding((0.9, 0.5), [(0.5, 0, 0.5, 1)])
    found = localisation_scores(
        [[right], [right], [wrong], [right, wrong]], [[LEFT]] * 4, ["a", "b", "c", "d"], draws=200
    )
    assert (found.films, found.patients) == (4, 4)
    assert found.hits.value == pytest.approx(2.5 / 4) == found.overlap.value
    assert found.chance_hits.value == pytest.approx(0.5) and found.hit_difference.value == pytest.approx(0.125)
    assert 0.25 < found.chance_overlap.value < 0.45  # of x from 0 to .5, (.5 - x) / (.5 + x): 2 ln 2 - 1
    assert found.chance_overlap.value == pytest.approx(2 * np.log(2) - 1, abs=0.03)
    assert found.hits.low < found.hits.value < found.hits.high
    with pytest.raises(ValueError, match="every film needs at least one box"):
        localisation_scores([[right]], [[]], ["a"])
    with pytest.raises(ValueError, match="must be of the same films"):
        localisation_scores([[right]], [[LEFT]], [])
