"""Points go where their film's pixels go."""

import numpy as np
import pytest
import torch

from cxw_monai.transforms.points import RandPointWarpd, WholePointsd

STILL = {"crop_prob": 0.0, "affine_prob": 0.0, "distortion_prob": 0.0}
HARD = {"crop_prob": 1.0, "crop_scale": (0.5, 0.9), "affine_prob": 1.0, "rotate": 25, "shear": 10, "zoom": (0.8, 1.3),
        "translate": 0.1, "distortion_prob": 1.0, "distortion": 0.03}  # fmt: skip


def film_with(points, height=120, width=90):
    """A black film with a soft spot at each of the points (row and column)."""
    rows, columns = np.ogrid[:height, :width]
    spots = [np.exp(-((rows + 0.5 - r) ** 2 + (columns + 0.5 - c) ** 2) / (2 * 1.5**2)) for r, c in points]
    return np.max(spots, axis=0)[None].astype(np.float32)


def sample_of(points, **more):
    return {
        "image": film_with(points),
        "points": np.array(points, np.float32),
        "known": np.ones(len(points), bool),
    } | more


def centre(image):
    """Centre of mass of a film with one spot."""
    weight = image[0].double()
    rows, columns = (torch.arange(side) + 0.5 for side in weight.shape)
    return torch.stack([weight.sum(1) @ rows.double(), weight.sum(0) @ columns.double()]) / weight.sum()


def test_a_stretched_film_stretches_its_points():
    out = WholePointsd((60, 180))(sample_of([(30, 45)]))
    assert out["points"].tolist() == [[15, 90]] and out["points"].dtype == torch.float32
    torch.testing.assert_close(centre(out["image"]), torch.tensor([15.0, 90.0]).double(), atol=0.05, rtol=0)
    assert "points" not in WholePointsd(32)({"image": film_with([(30, 45)])})


@pytest.mark.parametrize("flip", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(6))
def test_a_warped_point_is_where_the_warped_spot_is(seed, flip):
    warp = RandPointWarpd((128, 100), ["spot"], flip_prob=flip, **HARD).set_random_state(seed)
    out = warp(sample_of([(58, 47)]))
    row, column = out["points"][0].tolist()
    if not out["known"][0] or min(row, 128 - row, column, 100 - column) < 12:
        pytest.skip("the spot is cut by the edge")
    torch.testing.assert_close(centre(out["image"]), out["points"][0].double(), atol=0.4, rtol=0)


def test_the_warps_of_the_test_above_move_the_point_and_keep_it_on_the_film():
    moved = []
    for seed in range(6):
        out = RandPointWarpd((128, 100), ["spot"], **HARD).set_random_state(seed)(sample_of([(58, 47)]))
        row, column = out["points"][0].tolist()
        still = (58 / 120 * 128, 47 / 90 * 100)
        if out["known"][0] and min(row, 128 - row, column, 100 - column) >= 12:
            moved.append(np.hypot(row - still[0], column - still[1]))
    assert len(moved) >= 4 and max(moved) > 8


def test_the_image_is_that_of_the_warp_without_points():
    from cxw_monai.transforms.warp import RandFilmWarpd

    one = RandPointWarpd(64, ["spot"], **HARD).set_random_state(3)(sample_of([(58, 47)]))
    other = RandFilmWarpd(64, keys="image", **HARD).set_random_state(3)({"image": film_with([(58, 47)])})
    assert torch.equal(one["image"], other["image"])


def test_a_mirrored_film_exchanges_left_and_right():
    names = ["clavicle_left", "carina", "clavicle_right"]
    warp = RandPointWarpd((120, 90), names, flip_prob=1.0, **STILL).set_random_state(0)
    sample = sample_of([(20, 60), (30, 45), (25, 25)], known=np.array([True, True, False]))
    out = warp(sample)
    torch.testing.assert_close(out["points"], torch.tensor([[25.0, 65.0], [30.0, 45.0], [20.0, 30.0]]))
    assert out["known"].tolist() == [False, True, True]
    with pytest.raises(ValueError, match="set flip_prob to 0"):
        RandPointWarpd(32, names[:2], flip_prob=0.5)


def test_what_leaves_the_film_is_unknown():
    warp = RandPointWarpd(32, ["corner", "middle"], **{**STILL, "affine_prob": 1.0}, rotate=0, shear=0, translate=0,
                          zoom=(2.0, 2.0)).set_random_state(0)  # fmt: skip
    out = warp(sample_of([(4, 4), (60, 45)]))
    assert out["known"].tolist() == [False, True]
    torch.testing.assert_close(out["points"][1], torch.tensor([16.0, 16.0]))
