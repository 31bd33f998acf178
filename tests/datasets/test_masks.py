"""Masks of polygons, and masks of another size."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxw_monai.datasets.masks import left_and_right, on_grid, polygon_mask, stored_mask
from cxw_monai.io.radiograph import RadiographError


def test_polygons_fill_to_their_corners_and_unite():
    mask = polygon_mask(
        [[(1, 1), (3, 1), (3, 2), (1, 2)], [(5.4, 3.6), (5.4, 4.4), (6.2, 4.4)], [(0, 0), (7, 4)]], 8, 5
    )
    assert mask.dtype == bool and mask.shape == (5, 8)
    assert np.argwhere(mask).tolist() == [[1, 1], [1, 2], [1, 3], [2, 1], [2, 2], [2, 3], [4, 5], [4, 6]]


def test_lungs_in_one_mask_are_taken_apart_where_they_lie_beside_each_other():
    lungs = np.zeros((20, 40), bool)
    lungs[3:15, 4:14] = lungs[3:15, 24:34] = True
    lungs[18, 18] = True  # a crumb
    parts = left_and_right(lungs)
    assert np.flatnonzero(parts["right"].any(axis=0)).tolist() == [*range(4, 14)]
    assert np.flatnonzero(parts["left"].any(axis=0)).tolist() == [*range(24, 34)]
    lungs[10, 4:34] = True  # they touch
    assert left_and_right(lungs) == {}
    above = np.zeros((20, 40), bool)
    above[2:8, 10:30] = above[12:18, 12:32] = True
    assert left_and_right(above) == {} and left_and_right(np.zeros((5, 5), bool)) == {}


def test_a_larger_grid_takes_the_pixel_below_each_centre():
    mask = np.array([[1, 0], [0, 1]], dtype=bool)
    assert on_grid(mask, 4, 4).astype(int).tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    # 3 columns of 2: centres at 1/6, 1/2, 5/6 of the width; the middle one is the first of the right half.
    assert on_grid(mask, 3, 3).astype(int).tolist() == [[1, 0, 0], [0, 1, 1], [0, 1, 1]]
    with pytest.raises(ValueError, match="2 x 2 pixels does not fit an image of 4 x 5"):
        on_grid(mask, 4, 5)


def test_a_stored_mask_that_does_not_fit_is_named(tmp_path: Path):
    path = tmp_path / "mask.png"
    Image.fromarray(np.array([[0, 1, 255]], dtype=np.uint8)).save(path)
    assert stored_mask(path, 3, 1).tolist() == [[False, True, True]]
    with pytest.raises(RadiographError, match="mask.png"):
        stored_mask(path, 3, 3)
    path.write_bytes(b"no image")
    with pytest.raises(RadiographError, match="cannot be read"):
        stored_mask(path, 3, 1)
