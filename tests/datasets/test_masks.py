"""Masks of polygons, and masks of another size."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxw_monai.datasets.masks import on_grid, polygon_mask, stored_mask
from cxw_monai.io.radiograph import RadiographError


def test_polygons_fill_to_their_corners_and_unite():
    mask = polygon_mask(
        [[(1, 1), (3, 1), (3, 2), (1, 2)], [(5.4, 3.6), (5.4, 4.4), (6.2, 4.4)], [(0, 0), (7, 4)]], 8, 5
    )
    assert mask.dtype == bool and mask.shape == (5, 8)
    assert np.argwhere(mask).tolist() == [[1, 1], [1, 2], [1, 3], [2, 1], [2, 2], [2, 3], [4, 5], [4, 6]]


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
