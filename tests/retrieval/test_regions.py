"""Parts of films: where boxes lie on the tokens, and where a part is found again."""

from __future__ import annotations

import numpy as np
import pytest

from cxw_monai.io.pixel_map import PixelMap
from cxw_monai.retrieval import ExactSearch
from cxw_monai.retrieval.regions import film_box, region_neighbours, stored_box, token_window
from tests.helpers.made_index import made_index

GRID, WIDTH = 6, 8


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        ((0, 0, 1, 1), (0, 6), (0, 6)),
        ((1 / 3, 0.5, 1 / 3, 0.25), (3, 4), (2, 4)),  # rows 3 to 4.5, columns 2 to 4
        ((0.95, 0.01, 0.02, 0.02), (0, 1), (5, 6)),  # smaller than a token
        ((0.98, 0.98, 0.02, 0.02), (5, 6), (5, 6)),
    ],
)
def test_tokens_of_a_box(box, rows, columns):
    found = token_window(box, (GRID, GRID))
    assert [(one.start, one.stop) for one in found] == [rows, columns]


def test_boxes_follow_a_film_that_is_stored_turned_and_in_a_border():
    turned = PixelMap((40, 20)).transpose().flip(1).crop(2, 5, 10, 30)  # [10, 30]
    box = (4.0, 8.0, 3.0, 6.0)
    there = film_box(box, turned)
    # column 4..7 is row 2..5 of the crop; row 8..14 from the right end of 40 is column 26..32, less 5
    assert there == pytest.approx((21 / 30, 2 / 10, 6 / 30, 3 / 10))
    assert stored_box(there, turned) == pytest.approx(box)
    outside = "lies outside of the film, which has 20 x 40 px"
    cases = {
        (4, 8, 0, 6): "the last two above 0",
        (100, 100, 5, 5): outside,
        (1, 1, 60, 6): outside,
        (-3, 8, 9, 6): outside,
    }
    for wrong, reason in cases.items():
        with pytest.raises(ValueError, match=reason):
            film_box(wrong, turned)


@pytest.mark.parametrize("stored", [True, False])
def test_a_part_is_found_again_at_another_place(tmp_path, stored):
    rng = np.random.default_rng(0)
    tokens = rng.standard_normal((40, GRID, GRID, WIDTH)).astype(np.float32)
    part = rng.standard_normal((2, 3, WIDTH)) * 2
    query = rng.standard_normal((GRID, GRID, WIDTH)).astype(np.float32)
    query[0:2, 0:3] = part
    tokens[17, 3:5, 2:5] = part
    flat = tokens.reshape(40, GRID * GRID, WIDTH)
    index = made_index(tmp_path / "index", flat.mean(axis=1), tokens=flat if stored else None)
    object.__setattr__(index.settings, "grid", (GRID, GRID))

    def read(path):
        assert not stored, "the tokens are in the index"
        return flat[int(path[-8:-4])]

    box, own = (0, 0, 0.5, 1 / 3), query.reshape(-1, WIDTH)
    found = region_neighbours(ExactSearch(index), own, box, 3, read, candidates=40)
    assert found[0].place == 17 and found[0].box == pytest.approx((2 / 6, 3 / 6, 3 / 6, 2 / 6))
    assert found[0].similarity > 0.99 > found[1].similarity
    assert 17 not in [
        one.place for one in region_neighbours(ExactSearch(index), own, box, 40, read, 40, left_out=np.array([17]))
    ]
