"""Dynamic range compression: what it leaves, weakens and strengthens."""

import numpy as np
import pytest
import torch

from cxw_monai.transforms.film_processing import RandRangeCompressiond, RandShoulderAird, compress_range, corner_air

SIDE = 64


def shaded_stripes(amplitude=0.05):
    """A slow ramp from 0.3 to 0.7 over the columns with stripes of 4 rows."""
    ramp = torch.linspace(0.3, 0.7, SIDE).expand(SIDE, SIDE)
    stripes = amplitude * torch.sign(torch.sin(torch.arange(SIDE) * torch.pi / 2 + 0.1))[:, None]
    return (ramp + stripes)[None]


def test_gains_of_one_change_nothing():
    image = torch.rand(1, 40, 56, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(compress_range(image, 7, 1.0, 1.0, 0.3), image, atol=1e-6, rtol=0)


def test_a_flat_film_moves_towards_the_grey():
    """0.2 is 0.3 below a grey of 0.5; with half the shading it stays 0.15 below."""
    flat = torch.full((1, SIDE, SIDE), 0.2)
    torch.testing.assert_close(compress_range(flat, 6, 0.5, 3.0, 0.5), torch.full_like(flat, 0.35))


def test_shading_is_weakened_and_detail_strengthened():
    image = shaded_stripes()
    found = compress_range(image, 8, 0.5, 2.0, 0.5)
    middle = slice(8, -8)
    span = found[0, middle].mean(0)[48] - found[0, middle].mean(0)[16]
    assert span == pytest.approx(0.5 * 0.4 * 32 / 63, rel=0.1)
    spread = found[0, middle, 32].std() / image[0, middle, 32].std()
    assert spread == pytest.approx(2.0, rel=0.1)


def test_it_is_drawn_anew_and_again_the_same():
    draw = RandRangeCompressiond(prob=1.0)
    film = {"image": (shaded_stripes() * 255).to(torch.uint8).numpy()}
    draw.set_random_state(3)
    first, second = draw(film)["image"], draw(film)["image"]
    draw.set_random_state(3)
    torch.testing.assert_close(draw(film)["image"], first, rtol=0, atol=0)
    assert not torch.equal(first, second)
    assert first.dtype == torch.float32 and first.min() >= 0 and first.max() <= 1


def test_without_a_draw_a_film_is_only_scaled():
    film = np.array([[[0, 51, 255]]], np.uint8)
    image = RandRangeCompressiond(prob=0.0)({"image": film})["image"]
    torch.testing.assert_close(image, torch.tensor([[[0.0, 0.2, 1.0]]]))


@pytest.mark.parametrize(
    "wrong", [{"cells": (1, 4)}, {"shading": (0.5, 0.2)}, {"detail": (-1, 2)}, {"grey": (0.2, 1.2)}]
)
def test_ranges_out_of_place_are_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be a range within"):
        RandRangeCompressiond(**wrong)


def test_air_of_power_one_is_a_triangle_in_its_corner():
    """4 x 4 px, half the width and height: centres at 1/8 and 3/8, so 1/4 + 1/4, 3/4 + 1/4 (on the line: outside)."""
    expected = torch.zeros(4, 4, dtype=torch.bool)
    expected[0, 0] = True
    torch.testing.assert_close(corner_air((4, 4), 0.5, 0.5, 1.0, left=True), expected)
    torch.testing.assert_close(corner_air((4, 4), 0.5, 0.5, 1.0, left=False), expected.flip(1))


def test_air_spares_the_structures_and_their_surroundings():
    label = torch.zeros(2, 50, 50)
    label[1, :10, 20:24] = 1
    draw = RandShoulderAird(width=(0.5, 0.5), height=(0.4, 0.4), power=(2, 2), prob=1.0)
    image = draw({"image": torch.ones(1, 50, 50), "label": label})["image"]
    assert (image[0, :12, 18:26] == 1).all()  # 2 px around it
    assert (image[0, :5, :16] <= 0.1).all() and (image[0, :5, 30:] <= 0.1).all()
    assert (image[0, 21:] == 1).all()


def test_no_air_where_none_is_drawn():
    draw = RandShoulderAird(prob=0.0)
    film = {"image": torch.rand(1, 20, 20), "label": torch.zeros(1, 20, 20)}
    assert torch.equal(draw(film)["image"], film["image"])
    with pytest.raises(ValueError, match="width must be a range above 0"):
        RandShoulderAird(width=(0, 1))
