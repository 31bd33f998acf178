"""Another patch size: hand-computed kernels, equal activations, positions, a whole encoder."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch.nn import functional as F

from cxw_monai.networks import RadiographViT, radiograph_segmenter, resize_encoder, resize_patch_embedding, sincos_table

SMALL = {"image_size": 64, "patch_size": 16, "embed_dim": 24, "depth": 2, "num_heads": 3}  # grid 4 x 4


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def encoder(seed: int = 0, **overrides: object) -> RadiographViT:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return RadiographViT(**{**SMALL, **overrides}).eval()


def test_half_the_patch_takes_the_sums_of_two_by_two_weights():
    weight = torch.arange(16.0).view(1, 1, 4, 4)
    resized = resize_patch_embedding(weight, 2)
    # 0 + 1 + 4 + 5, 2 + 3 + 6 + 7, 8 + 9 + 12 + 13, 10 + 11 + 14 + 15
    torch.testing.assert_close(resized, torch.tensor([[[[10.0, 18.0], [42.0, 50.0]]]]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("new", [8, 4, 2])
def test_a_smaller_patch_acts_like_its_pixels_repeated(new):
    weight, patch = random(5, 3, 16, 16), random(1, 3, new, new, seed=1)
    repeated = F.interpolate(patch, size=(16, 16), mode="nearest")
    expected = F.conv2d(repeated, weight)
    torch.testing.assert_close(F.conv2d(patch, resize_patch_embedding(weight, new)), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("old, new", [(8, 16), (14, 16), (16, 32)])
def test_a_larger_patch_acts_on_an_enlarged_image_as_the_old_on_the_small(old, new):
    weight, patch = random(5, 1, old, old), random(1, 1, old, old, seed=1)
    enlarged = F.interpolate(patch, size=(new, new), mode="bilinear", align_corners=False)
    expected = F.conv2d(patch, weight)
    torch.testing.assert_close(F.conv2d(enlarged, resize_patch_embedding(weight, new)), expected, rtol=0, atol=1e-9)


def test_size_of_activations_on_a_smooth_film():
    film = torch.from_numpy(gaussian_filter(random(256, 256).numpy(), sigma=12, mode="wrap")).view(1, 1, 256, 256)
    weight = random(64, 1, 16, 16, seed=1)
    size = F.conv2d(film, weight, stride=16).std()
    ours, official = (
        (F.conv2d(film, kernel, stride=8).std() / size).item()
        for kernel in (resize_patch_embedding(weight, 8), F.interpolate(weight, size=(8, 8), mode="bicubic"))
    )
    assert ours == pytest.approx(1.0, abs=0.1)
    assert 0.2 < official < 0.35  # the shrinkage of about four that ours mends


def test_positions_lie_between_those_of_the_old_grid():
    table = resize_encoder(encoder().state_dict(), 8)["pos_embed"]
    assert table.shape == (1, 64, 24)
    # 24 features: 6 sines and 6 cosines of the column, then of the row; the first frequency is 1
    assert table[0, 0, 0].item() == pytest.approx(math.sin(-0.25), abs=1e-6)  # token (0, 0) at (-0.25, -0.25)
    assert table[0, 8 * 5 + 2, 0].item() == pytest.approx(math.sin(0.75), abs=1e-6)  # token (5, 2) at (2.25, 0.75)
    assert table[0, 8 * 5 + 2, 12].item() == pytest.approx(math.sin(2.25), abs=1e-6)
    # four new tokens around an old one have its place for a mean
    assert torch.equal(table, sincos_table((8, 8), 24, reference_grid=(4, 4)))


@pytest.mark.parametrize("height, width", [(64, 64), (32, 48)])
def test_the_resized_encoder_gives_the_same_tokens_on_an_image_of_half_the_size(height, width):
    old = encoder()
    new = encoder(seed=1, patch_size=8, position_grid=(4, 4))
    new.load_state_dict(resize_encoder(old.state_dict(), 8))
    image = torch.rand(2, 1, height // 2, width // 2, generator=torch.Generator().manual_seed(2))
    enlarged = F.interpolate(image, scale_factor=2.0, mode="nearest")
    with torch.no_grad():
        torch.testing.assert_close(new(image), old(enlarged), rtol=0, atol=1e-5)


def test_non_square_grids():
    old = encoder(image_size=(32, 64))
    resized = resize_encoder(old.state_dict(), 8, grid=(2, 4))
    assert torch.equal(resized["pos_embed"], sincos_table((4, 8), 24, reference_grid=(2, 4)))
    encoder(image_size=(32, 64), patch_size=8).load_state_dict(resized)


def test_a_segmenter_of_patch_8_takes_an_encoder_of_patch_16():
    segmenter = radiograph_segmenter("tiny", 8, 2, "linear", image_size=64, pretrained_patch=16)
    state = resize_encoder(encoder(embed_dim=192, depth=12).state_dict(), 8)
    assert segmenter.encoder.position_grid == (4, 4)
    assert torch.equal(segmenter.encoder.pos_embed, state["pos_embed"])
    segmenter.encoder.load_state_dict(state)


def test_only_stem_and_table_change_and_the_original_stays():
    state = encoder().state_dict()
    before = {name: value.clone() for name, value in state.items()}
    resized = resize_encoder(state, 8)
    assert resized.keys() == state.keys()
    changed = {name for name in state if resized[name].shape != state[name].shape}
    assert changed == {"patch_embed.proj.weight", "pos_embed"}
    assert all(torch.equal(resized[name], value) for name, value in before.items() if name not in changed)
    assert all(torch.equal(state[name], value) for name, value in before.items())


def test_the_same_patch_changes_nothing():
    state = encoder().state_dict()
    for name, value in resize_encoder(state, 16).items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=1e-6)


def test_the_kernel_keeps_its_dtype():
    assert resize_patch_embedding(torch.zeros(2, 1, 16, 16, dtype=torch.bfloat16), 8).dtype == torch.bfloat16


@pytest.mark.parametrize(
    "weight, new_patch, message",
    [
        ((2, 1, 16, 8), 8, r"shape \[D, C, p, p\], got \(2, 1, 16, 8\)"),
        ((2, 1, 16, 16), 0, "new_patch must be 1 px or more, got 0"),
    ],
)
def test_kernels_that_do_not_fit_are_refused(weight, new_patch, message):
    with pytest.raises(ValueError, match=message):
        resize_patch_embedding(torch.zeros(weight), new_patch)


@pytest.mark.parametrize(
    "change, arguments, message",
    [
        ({"pos_embed": None}, {}, "Not an encoder's state dict: pos_embed missing"),
        ({}, {"grid": (3, 5)}, r"The table \(1, 16, 24\) is not of the grid \(3, 5\): give grid"),
        ({"pos_embed": torch.zeros(1, 15, 24)}, {}, r"\(1, 15, 24\) is not of the grid \(4, 4\): give grid"),
        ({"pos_embed": torch.zeros(1, 16, 24)}, {}, "not a sine-cosine table"),
        ({}, {"new_patch": 12}, "Images of 64 x 64 px cannot be cut into patches of 12 px"),
    ],
)
def test_encoders_that_do_not_fit_are_refused(change, arguments, message):
    state = {name: value for name, value in {**encoder().state_dict(), **change}.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        resize_encoder(state, **{"new_patch": 8, **arguments})
