"""The one resampling of a film and its masks."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cxw_monai.transforms.warp import RandFilmWarpd, mirrored_order
from cxw_monai.transforms.whole_film import WholeFilmd

STILL = {"crop_prob": 0.0, "affine_prob": 0.0, "distortion_prob": 0.0}


def sample_of(image, masks=None):
    image = np.asarray(image)
    masks = np.zeros((1, *image.shape[1:]), np.uint8) if masks is None else masks
    return {"image": image, "label": masks, "known": torch.ones(len(masks), dtype=torch.bool)}


def warp(size, structures=("spot",), seed=0, **settings):
    return RandFilmWarpd(size, structures, **{**STILL, **settings}).set_random_state(seed)


def test_left_and_right_change_places():
    assert mirrored_order(["lung_left", "heart", "lung_right", "left_hilum", "right_hilum"]) == [2, 1, 0, 4, 3]
    with pytest.raises(ValueError, match="lung_left"):
        mirrored_order(["lung_left", "heart"])
    with pytest.raises(ValueError, match="set flip_prob to 0"):
        warp(8, ["lung_left", "heart"], flip_prob=0.5)
    assert warp(8, ["lung_left", "heart"]).order == [0, 1]  # without flips one side alone will do


def test_a_zoom_shows_the_middle():
    image = np.random.default_rng(0).random((1, 16, 20)).astype(np.float32)
    out = warp((16, 20), affine_prob=1.0, rotate=0, shear=0, translate=0, zoom=(2.0, 2.0))(sample_of(image))
    middle = torch.from_numpy(image[None, :, 4:12, 5:15])
    wanted = F.interpolate(middle, (16, 20), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(out["image"][:, 1:-1, 1:-1], wanted[:, 1:-1, 1:-1], atol=1e-5, rtol=0)


def test_a_quarter_turn_is_one_of_the_film_not_of_its_stretched_picture():
    """A film twice as wide as high: turned by 90 degrees, a horizontal bar of 20 x 4 px is a vertical one of 4 x 20."""
    film = np.zeros((1, 24, 48), np.float32)
    film[:, 10:14, 14:34] = 1
    turning = warp((24, 48), affine_prob=1.0, rotate=90, shear=0, translate=0, zoom=(1.0, 1.0))
    numbers = np.array([0, 0, 0, 0, 0, 0, 1, 0.5, 0, 0.5, 0.5])  # gate of the map, then the whole angle to one side
    turning._theta, turning._points = turning._drawn_theta(numbers, 24, 48), None
    out = F.grid_sample(torch.from_numpy(film)[None], turning._grid(), align_corners=False)[0, 0]
    rows, columns = (out > 0.5).nonzero(as_tuple=True)
    assert (rows.min(), rows.max()) == (2, 21) and (columns.min(), columns.max()) == (22, 25)


def test_crops_lie_within_the_film_and_have_the_asked_share():
    """On a film whose pixels hold their own coordinates, the corners of a crop tell where it lies."""
    places = np.linspace(0, 1, 101, dtype=np.float32)
    film = np.stack(np.meshgrid(places, places, indexing="ij"))  # [2, 101, 101]: row, column
    cropping = warp(50, ["row", "column"], crop_prob=1.0, crop_scale=(0.4, 0.6), crop_ratio=(0.8, 1.25))
    shares = []
    for _ in range(40):
        cropping.randomize((101, 101))
        grid = cropping._grid()
        seen = F.grid_sample(torch.from_numpy(film)[None], grid, align_corners=False, padding_mode="zeros")[0]
        assert seen.min() >= 0 and seen.max() <= 1
        height, width = (seen[0, -1, 0] - seen[0, 0, 0]) * 50 / 49, (seen[1, 0, -1] - seen[1, 0, 0]) * 50 / 49
        shares.append(float(height * width))
        assert 0.75 < height / width < 1.33
    assert 0.38 < min(shares) < 0.45 and 0.55 < max(shares) < 0.63


def test_what_lies_beyond_the_film_is_empty():
    ones = np.ones((1, 20, 20), np.float32)
    mask = np.ones((1, 20, 20), np.uint8)
    out = warp(20, affine_prob=1.0, rotate=0, shear=0, translate=0, zoom=(0.5, 0.5))(sample_of(ones, mask))
    assert out["image"].sum() == out["label"].sum() == 100  # the film at half its size, in the middle


def test_a_much_larger_film_is_averaged_and_not_picked_from():
    checkers = np.indices((256, 256)).sum(axis=0)[None] % 2
    out = warp(64)(sample_of(checkers.astype(np.float32)))
    torch.testing.assert_close(out["image"], torch.full((1, 64, 64), 0.5))


def test_the_distortion_is_smooth_and_bounded():
    still, bent = warp(64), warp(64, distortion_prob=1.0, distortion=0.05)
    for one in (still, bent):
        one.randomize((64, 64))
    moved = (bent._grid() - still._grid())[0] / 2  # share of the side
    assert 0.01 < moved.abs().max() < 0.07  # a bicubic curve may pass its points a little
    assert moved.diff(dim=0).abs().max() < 0.01


def test_no_distortion_is_the_identity():
    still, bent = warp((24, 40)), warp((24, 40), distortion_prob=1.0, distortion=0.0)
    for one in (still, bent):
        one.randomize((24, 40))
    assert bent._points is not None
    torch.testing.assert_close(bent._grid(), still._grid(), atol=1e-6, rtol=0)


def test_a_film_that_is_large_one_way_is_averaged_that_way_alone():
    """256 x 64 px to 64 x 64: four rows become one, columns stay, and the other way round."""
    columns = np.random.default_rng(0).random(64).astype(np.float32)
    film = np.where(np.arange(256)[:, None] % 2, columns, 0)[None]
    wanted = torch.from_numpy(np.tile(columns / 2, (64, 1)))
    torch.testing.assert_close(warp(64)(sample_of(film))["image"][0], wanted, atol=1e-4, rtol=0)
    turned = warp(64)(sample_of(film.transpose(0, 2, 1).copy()))["image"][0]
    torch.testing.assert_close(turned, wanted.T, atol=1e-4, rtol=0)


def test_zoom_and_shift_by_hand():
    """Twice as large: the middle half is seen; shifted by a quarter of the film to the right and up, a corner of it."""
    film = np.random.default_rng(0).random((1, 8, 8)).astype(np.float32)
    moving = warp((8, 8), affine_prob=1.0, rotate=0, shear=0, zoom=(2.0, 2.0), translate=0.25)
    numbers = np.array([0.9, 0, 0, 0, 0, 0, 0.5, 0.5, 0.5, 1.0, 0.0])  # the last two: x to the right, y up
    moving._theta, moving._points = moving._drawn_theta(numbers, 8, 8), None
    np.testing.assert_allclose(moving._theta, [[0.5, 0, 0.5], [0, 0.5, -0.5]], atol=1e-9)
    seen = F.grid_sample(torch.from_numpy(film)[None], moving._grid(), align_corners=False)[0]
    wanted = F.interpolate(torch.from_numpy(film)[None, :, :4, 4:], (8, 8), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(seen[:, 1:-1, 1:-1], wanted[:, 1:-1, 1:-1], atol=1e-5, rtol=0)


def test_a_shear_moves_rows_against_each_other():
    """45 degrees: a row one pixel further down is seen one to the side; a pixel is one on any film."""
    slanting = warp((8, 16), affine_prob=1.0, rotate=0, shear=45, zoom=(1.0, 1.0), translate=0)
    numbers = np.array([0.9, 0, 0, 0, 0, 0, 0.5, 1.0, 0.5, 0.5, 0.5])
    theta = slanting._drawn_theta(numbers, 8, 16)
    np.testing.assert_allclose(theta, [[1, 0.5, 0], [0, 1, 0]], atol=1e-9)  # x: half of 16 px for half of 8 px


def test_a_film_at_half_its_rows_is_averaged():
    rows = np.zeros((1, 64, 32), np.float32)
    rows[:, 1::2] = 1
    torch.testing.assert_close(warp(32)(sample_of(rows))["image"], torch.full((1, 32, 32), 0.5))


def test_a_masks_stripes_are_averaged_before_half_of_a_pixel_is_asked_for():
    """One of four columns, at a quarter of the size: a quarter of each pixel, so no pixel is inside."""
    stripes = np.zeros((1, 16, 64), np.uint8)
    stripes[..., 1::4] = 1
    sample = {"image": np.zeros((1, 16, 64), np.float32), "label": stripes}
    assert WholeFilmd((16, 16))(sample)["label"].sum() == 0
    assert WholeFilmd((16, 16))({**sample, "label": 1 - stripes})["label"].min() == 1


def drawn(count, size=(60, 60), **settings):
    """`[count, 2, 3]`: maps from normalised output to normalised film."""
    warping, maps = warp(8, seed=1, **settings), []
    for _ in range(count):
        warping.randomize(size)
        maps.append(warping._theta)
    return np.stack(maps)


def test_turns_shifts_and_zooms_fill_their_ranges_evenly():
    still = {"affine_prob": 1.0, "rotate": 0.0, "shear": 0.0, "translate": 0.0, "zoom": (1.0, 1.0)}
    maps = drawn(300, **{**still, "rotate": 30.0})
    angles = np.degrees(np.arctan2(maps[:, 1, 0], maps[:, 0, 0]))
    assert (angles.min(), angles.max()) == pytest.approx((-30, 30), abs=1) and abs(angles.mean()) < 3
    maps = drawn(300, **{**still, "translate": 0.1})[:, :, 2] / 2  # shares of the film
    assert maps.min(axis=0) == pytest.approx([-0.1, -0.1], abs=0.003) and np.abs(maps.mean(axis=0)).max() < 0.02
    assert maps.max(axis=0) == pytest.approx([0.1, 0.1], abs=0.003)
    assert abs(np.corrcoef(maps.T)[0, 1]) < 0.2  # each axis by itself
    maps = 1 / drawn(300, **{**still, "zoom": (0.5, 2.0)})[:, 0, 0]
    assert (maps.min(), maps.max()) == pytest.approx((0.5, 2.0), abs=0.02)
    assert maps.mean() == pytest.approx(1.25, abs=0.1)


@pytest.mark.parametrize("size", [(60, 60), (40, 80)])
def test_the_aspect_of_a_crop_is_relative_to_the_films_own(size):
    """Normalised coordinates are shares of the film's sides, so the map's scales tell both."""
    maps = drawn(400, size, crop_prob=1.0, crop_scale=(0.3, 0.3), crop_ratio=(0.5, 2.0))
    ratios, areas = maps[:, 0, 0] / maps[:, 1, 1], maps[:, 0, 0] * maps[:, 1, 1]
    assert (ratios.min(), ratios.max()) == pytest.approx((0.5, 2.0), rel=0.05)
    assert areas == pytest.approx(0.3, abs=1e-6)
    reach = np.abs(maps[:, :, 2]) + maps[:, [0, 1], [0, 1]]
    assert reach.max() <= 1 + 1e-9 and reach.max() > 0.99  # corners anywhere within the film
    assert abs(np.corrcoef(maps[:, :, 2].T)[0, 1]) < 0.2


def test_a_gate_opens_as_often_as_asked():
    def opened(**settings):
        return (drawn(400, **settings) != np.eye(2, 3)).any(axis=(1, 2)).mean()

    assert opened() == 0
    assert opened(crop_prob=0.25) == pytest.approx(0.25, abs=0.06)
    assert opened(affine_prob=0.75) == pytest.approx(0.75, abs=0.06)


def test_a_distortion_comes_before_the_map_and_has_the_outputs_rows_and_columns():
    """One control point moved along x: columns are shifted around its place, most at the point itself."""
    warping = warp((20, 32), distortion_prob=1.0, distortion=0.05)
    warping.randomize((20, 32))
    warping._points = torch.zeros(1, 2, 5, 5)
    warping._points[0, 0, 0, 4] = 0.2  # upper right corner
    warping._theta = np.array([[0.5, 0, 0.25], [0, 0.5, -0.125]])  # half of the film, to the right and up
    theta = torch.from_numpy(warping._theta.astype(np.float32))[None]
    moved = warping._grid() - F.affine_grid(theta, [1, 1, 20, 32], align_corners=False)
    assert moved.shape == (1, 20, 32, 2) and moved[..., 1].abs().max() < 1e-6
    assert moved[0, 0, -1, 0] == pytest.approx(0.1, abs=1e-5) == moved[..., 0].max()
    assert moved[0, :, 0].abs().max() < 1e-6 and moved[0, -1].abs().max() < 1e-6


def test_sixteen_bits_and_eight_give_the_same():
    eight = np.random.default_rng(0).integers(0, 256, (1, 24, 24)).astype(np.uint8)
    first, second = (warp(24)(sample_of(pixels))["image"] for pixels in (eight, eight.astype(np.uint16) * 257))
    torch.testing.assert_close(first, second, atol=1e-6, rtol=0)


def test_half_a_pixel_of_a_mask_is_in_it():
    """Two columns become one: either alone is half of it; of three, a third is not, and two thirds are."""
    label = np.array([[[1, 0]], [[0, 1]], [[0, 0]], [[1, 1]]], np.uint8)
    seen = WholeFilmd((1, 1))({"image": np.zeros((1, 1, 2), np.float32), "label": label})["label"]
    assert seen.flatten().tolist() == [1, 1, 0, 1]
    warped = warp((1, 1), ["a", "b", "c", "d"])(
        {"image": np.zeros((1, 1, 2), np.float32), "label": label, "known": np.ones(4, bool)}
    )
    assert warped["label"].flatten().tolist() == [1, 1, 0, 1]


def test_a_mirrored_film_shows_its_right_on_the_left_and_names_change_places():
    film = np.arange(12, dtype=np.float32).reshape(1, 3, 4) / 12
    label = np.zeros((3, 3, 4), np.uint8)
    label[0, :, 0], label[1, :, 1], label[2, :, 3] = 1, 1, 1
    sample = {"image": film, "label": label, "known": np.array([True, True, False])}
    seen = warp((3, 4), ["lung_left", "heart", "lung_right"], flip_prob=1.0)(sample)
    torch.testing.assert_close(seen["image"], torch.from_numpy(film).flip(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(seen["label"], torch.from_numpy(label[[2, 1, 0]]).flip(2).float())
    assert seen["known"].tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"crop_prob": 1.5}, "crop_prob"),
        ({"crop_scale": (0.0, 1.0)}, "crop_scale"),
        ({"crop_scale": (0.5, 1.2)}, "crop_scale"),
        ({"zoom": (1.2, 0.8)}, "zoom"),
        ({"rotate": 200}, "rotate"),
    ],
)
def test_settings_out_of_range_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        warp(8, **settings)


def test_films_without_masks_are_warped_as_those_with_masks():
    """The same random numbers give the same film, whether or not masks go along."""
    film = np.random.default_rng(0).random((1, 40, 48), dtype=np.float32)
    mask, known = np.ones((1, 40, 48), np.uint8), np.array([True])
    options = {"size": 32, "crop_prob": 1.0, "flip_prob": 0.5, "distortion_prob": 0.5}
    for seed in range(4):
        alone = RandFilmWarpd(keys="image", **options).set_random_state(seed)({"image": film})
        both = RandFilmWarpd(structures=("heart",), **options).set_random_state(seed)
        found = both({"image": film, "label": mask, "known": known})
        assert alone.keys() == {"image"} and torch.equal(alone["image"], found["image"])
    with pytest.raises(ValueError, match="or of the image alone"):
        RandFilmWarpd(keys=("image", "label"), **options)
