"""PixelMap: results come back to the stored pixel grid, at the same place."""

import json

import numpy as np
import pytest

from cxw_monai.io.pixel_map import PixelMap


def _apply(step, values):
    name, *numbers = step
    if name == "crop":
        top, left, height, width = numbers
        return values[top : top + height, left : left + width]
    if name == "pad":
        return np.pad(values, ((numbers[0], numbers[1]), (numbers[2], numbers[3])))
    return np.flip(values, numbers[0]) if name == "flip" else values.T


def test_every_exact_step_is_undone_exactly():
    stored = np.arange(1, 1 + 7 * 9).reshape(7, 9)
    mapped = PixelMap.identity(stored.shape).transpose().flip(1).crop(1, 2, 6, 4).pad(2, 0, 1, 3).flip(0)
    values = stored
    for step in mapped.steps:
        values = _apply(step, values)
    assert values.shape == mapped.shape == (8, 8)
    restored = mapped.restore(values)
    kept = restored > 0
    # transpose to 9x7 and mirror: array row r, column c is stored (6 - c, r); kept are r 1..6 and c 2..5
    expected = np.zeros_like(stored)
    expected[1:5, 1:7] = stored[1:5, 1:7]
    np.testing.assert_array_equal(restored, expected)
    assert kept.sum() == 24


def test_what_is_not_covered_takes_the_fill():
    mapped = PixelMap((4, 4)).crop(1, 1, 2, 2)
    restored = mapped.restore(np.ones((3, 2, 2), np.uint8), fill=7)
    assert restored.shape == (3, 4, 4) and restored.dtype == np.uint8
    assert (restored[:, 1:3, 1:3] == 1).all() and (restored == 7).sum() == 3 * 12


@pytest.mark.parametrize("interpolation", ["nearest", "linear"])
def test_a_resize_keeps_edges_on_edges(interpolation):
    left_half = np.zeros((1, 4, 8), np.float32)
    left_half[..., :4] = 1
    restored = PixelMap((16, 64)).resize(4, 8).restore(left_half, interpolation)
    assert restored.shape == (1, 16, 64)
    assert (restored[..., :28] == 1).all() and (restored[..., 36:] == 0).all()
    np.testing.assert_array_equal(restored[0, 0] >= 0.5, np.arange(64) < 32)


def test_nearest_takes_the_pixel_that_covers_the_centre():
    restored = PixelMap((3, 6)).resize(1, 3).restore(np.array([[5, 6, 7]]))
    np.testing.assert_array_equal(restored, [[5, 5, 6, 6, 7, 7]] * 3)


def test_nearest_takes_the_pixel_at_the_centre_and_not_at_the_corner():
    """Stored 2 x 3 from an array of 3 x 5: centres at rows 0.75, 2.25 and columns 0.83, 2.5, 4.17 of the array."""
    restored = PixelMap((2, 3)).resize(3, 5).restore(np.arange(15).reshape(3, 5))
    np.testing.assert_array_equal(restored, [[0, 2, 4], [10, 12, 14]])
    # and back: 3 x 5 from 2 x 3, centres at rows 0.33, 1, 1.67 and columns 0.3, 0.9, 1.5, 2.1, 2.7
    enlarged = PixelMap((3, 5)).resize(2, 3).restore(np.array([[0, 1, 2], [3, 4, 5]]))
    np.testing.assert_array_equal(enlarged, [[0, 0, 1, 2, 2], [3, 3, 4, 5, 5], [3, 3, 4, 5, 5]])


@pytest.mark.parametrize("interpolation", ["nearest", "linear"])
@pytest.mark.parametrize("size", [(5, 7), (8, 10), (9, 13), (30, 20), (64, 64)])
def test_a_mirrored_mask_comes_back_mirrored(interpolation, size):
    """A resampling that is half a pixel off to one side is not the same from the other side."""
    values = np.random.default_rng(0).random(size).astype(np.float32)
    mapped = PixelMap((16, 24)).resize(*size)
    plain = mapped.restore(values, interpolation)
    if interpolation == "nearest":  # where a centre falls on an edge of two pixels, either may be taken
        inside = [np.mod((np.arange(n) + 0.5) * now / n, 1) > 1e-9 for n, now in zip((16, 24), size, strict=True)]
        plain = plain[np.ix_(*inside)]
    for axis in (0, 1):
        turned = mapped.restore(np.flip(values, axis), interpolation)
        turned = turned[np.ix_(*inside)] if interpolation == "nearest" else turned
        np.testing.assert_allclose(np.flip(turned, axis), plain, atol=1e-6)


@pytest.mark.parametrize("size", [(5, 7), (9, 13), (30, 20)])
def test_nearest_restores_the_pixel_that_the_stored_centre_maps_to(size):
    mapped = PixelMap((16, 24)).resize(*size)
    rows, columns = np.mgrid[:16, :24] + 0.5
    at = np.floor(mapped.from_source(np.stack([rows, columns], axis=-1)) + 1e-9).astype(int)
    numbers = np.arange(np.prod(size)).reshape(size)
    np.testing.assert_array_equal(mapped.restore(numbers), numbers[at[..., 0], at[..., 1]])


def test_linear_by_hand():
    """Two pixels 0 and 4 on four stored ones: centres at 0.25, 0.75, 1.25, 1.75 of the array; edges stay."""
    restored = PixelMap((1, 4)).resize(1, 2).restore(np.array([[0.0, 4.0]]), "linear")
    np.testing.assert_allclose(restored, [[0, 1, 3, 4]])
    # antialiased where it makes things smaller: a triangle of two pixels' reach around each centre
    smaller = PixelMap((1, 2)).resize(1, 4).restore(np.array([[8.0, 0, 0, 0]]), "linear")
    np.testing.assert_allclose(smaller, [[24 / 7, 0]], atol=1e-6)


def test_points_by_hand():
    # stored 10x20; rows 2..9, columns 4..19 kept; to half size; mirrored: 4x8
    mapped = PixelMap((10, 20)).crop(2, 4, 8, 16).resize(4, 8).flip(1)
    np.testing.assert_allclose(mapped.from_source([2.0, 4.0]), [0, 8])
    np.testing.assert_allclose(mapped.from_source([10.0, 20.0]), [4, 0])
    np.testing.assert_allclose(mapped.to_source([1.0, 2.0]), [4.0, 16.0])


def test_points_go_where_values_go():
    rng = np.random.default_rng(0)
    mapped = PixelMap((40, 30)).transpose().flip(0).crop(3, 5, 20, 30).pad(1, 2, 3, 4).resize(46, 74).transpose()
    height, width = mapped.shape
    for row, column in rng.integers(8, min(height, width) - 8, size=(50, 2)):
        values = np.zeros(mapped.shape, np.float32)
        values[row, column] = 1
        stored = mapped.restore(values, "linear")
        if stored.max() <= 0:  # on the padding
            continue
        weights = stored / stored.sum()
        centre = [(weights.sum(1) * (np.arange(40) + 0.5)).sum(), (weights.sum(0) * (np.arange(30) + 0.5)).sum()]
        # two array pixels to a stored one: its centre is known to half a stored pixel
        np.testing.assert_allclose(mapped.to_source([row + 0.5, column + 0.5]), centre, atol=0.51)


def test_points_there_and_back():
    mapped = PixelMap((40, 30)).transpose().flip(0).crop(3, 5, 20, 30).pad(1, 2, 3, 4).resize(9, 17).flip(1)
    points = np.random.default_rng(1).uniform(0, 30, (20, 2))
    np.testing.assert_allclose(mapped.from_source(mapped.to_source(points)), points, atol=1e-9)


def test_json_round_trip():
    mapped = PixelMap((40, 30)).transpose().flip(0).crop(3, 5, 20, 30).pad(1, 2, 3, 4).resize(9, 17)
    assert PixelMap.from_dict(json.loads(json.dumps(mapped.to_dict()))) == mapped


def test_a_resize_to_the_same_size_is_no_step():
    assert PixelMap((4, 5)).resize(4, 5) == PixelMap((4, 5))


@pytest.mark.parametrize(
    "steps",
    [(("crop", 0, 0, 5, 1),), (("crop", -1, 0, 2, 2),), (("rotate", 90),), (("flip", 2),), (("pad", -1, 0, 0, 0),)],
)
def test_impossible_steps_are_refused(steps):
    with pytest.raises(ValueError, match="step"):
        PixelMap((4, 4), steps)


def test_wrong_values_are_refused():
    with pytest.raises(ValueError, match="don't end with"):
        PixelMap((4, 4)).restore(np.zeros((4, 5)))
    with pytest.raises(ValueError, match="interpolation"):
        PixelMap((4, 4)).restore(np.zeros((4, 4)), "cubic")


def test_each_side_of_a_padding_is_taken_off_again():
    film = np.arange(12, dtype=np.float32).reshape(3, 4)
    padded = np.pad(film, ((1, 2), (4, 3)), constant_values=-1)
    for how in ("nearest", "linear"):
        np.testing.assert_array_equal(PixelMap.identity((3, 4)).pad(1, 2, 4, 3).restore(padded, how), film)
