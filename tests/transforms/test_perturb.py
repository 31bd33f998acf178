"""Perturbations: hand-computed values, an 8-bit PIL oracle of the released recipe, exactness of the identity."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter

from cxw_monai.transforms import IDENTITY_ACTION, ActionSampler, Perturbd, RandActiond, perturb
from cxw_monai.transforms.perturb import _adjust_batch


def action(**changes: float) -> torch.Tensor:
    names = ("brightness", "contrast", "gamma", "blur", "noise")
    values = dict(zip(names, IDENTITY_ACTION, strict=True)) | changes
    return torch.tensor([list(values.values())])


def eight_bit(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Noise on a ramp: every grey level, sharp edges at the borders too."""
    rng = np.random.RandomState(seed)
    ramp = np.linspace(0, 255, width)[None] * np.linspace(0.5, 1, height)[:, None]
    return np.clip(ramp + rng.normal(0, 60, (height, width)), 0, 255).astype(np.uint8)


def as_batch(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image / np.float32(255))[None, None]


def oracle(image: np.ndarray, values: list[float]) -> np.ndarray:
    """The released recipe without noise: PIL on 8 bit, rounded after every stage."""
    brightness, contrast, gamma, radius = values[:4]
    out = ImageEnhance.Contrast(ImageEnhance.Brightness(Image.fromarray(image)).enhance(brightness)).enhance(contrast)
    out = out.point([int(255.999 * (level / 255) ** gamma) for level in range(256)])
    return np.asarray(out.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float64)


def levels_apart(image: np.ndarray, act: torch.Tensor) -> np.ndarray:
    ours = perturb(as_batch(image), act)[0, 0].double().numpy() * 255
    return np.abs(ours - oracle(image, act[0].tolist()))


@pytest.mark.parametrize(
    ("changes", "before", "after"),
    [
        ({"brightness": 1.5}, [0.4, 0.8], [0.6, 1.0]),
        ({"brightness": 0.0}, [0.4, 0.8], [0.0, 0.0]),
        ({"contrast": 0.5}, [0.2, 0.6], [0.3, 0.5]),  # mean 0.4
        ({"contrast": 2.0}, [0.1, 0.9, 0.2, 0.8], [0.0, 1.0, 0.0, 1.0]),  # mean 0.5; -0.3 and 1.3 clip
        ({"contrast": 0.0}, [0.2, 0.6], [0.4, 0.4]),
        ({"gamma": 2.0}, [0.5, 1.0, 0.0], [0.25, 1.0, 0.0]),
        ({"gamma": 0.5}, [0.25, 0.81], [0.5, 0.9]),
        # 0.5 and 1 (1.5 clips), mean 0.75 after the brightness, then 0.625 and 0.875, then squared
        ({"brightness": 2.0, "contrast": 0.5, "gamma": 2.0}, [0.25, 0.75], [0.390625, 0.765625]),
    ],
)
def test_pointwise_stages_by_hand(changes, before, after):
    out = perturb(torch.tensor(before).reshape(1, 1, 1, -1), action(**changes))
    torch.testing.assert_close(out.flatten(), torch.tensor(after), atol=1e-6, rtol=0)


def test_noise_is_scaled_added_last_and_clipped():
    image = torch.tensor([0.5, 0.5, 0.9, 0.1]).reshape(1, 1, 1, 4)
    noise = torch.tensor([1.0, -2.0, 3.0, -3.0]).reshape(1, 1, 1, 4)
    out = perturb(image, action(noise=0.1), noise)
    torch.testing.assert_close(out.flatten(), torch.tensor([0.6, 0.3, 1.0, 0.0]))
    out = perturb(image, action(noise=0.1, gamma=2.0), noise)
    torch.testing.assert_close(out.flatten(), torch.tensor([0.35, 0.05, 1.0, 0.0]))


def test_contrast_uses_the_mean_of_all_channels_of_its_own_image():
    image = torch.tensor([[[0.2, 0.2]], [[0.6, 0.6]]])[None]  # two channels, mean 0.4
    other = torch.full_like(image, 0.9)
    out = perturb(torch.cat([image, other]), action(contrast=0.5).repeat(2, 1))
    torch.testing.assert_close(out[0, :, 0, 0], torch.tensor([0.3, 0.5]))
    torch.testing.assert_close(out[1], other[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("beside", [{}, {"brightness": 1.3, "contrast": 0.7, "gamma": 1.7, "blur": 1.4, "noise": 0.1}])
def test_identity_is_exact_to_the_last_bit(dtype, beside):
    image = torch.rand(2, 3, 21, 17, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    image[0, 0, 0, :2] = torch.tensor([0.0, 1.0])
    before = image.clone()
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(1))
    out = perturb(image, torch.cat([action(), action(**beside)]), noise)
    assert out.dtype == dtype
    assert torch.equal(out[0], before[0])
    assert torch.equal(out[1], before[1]) == (not beside)
    out.zero_()
    assert torch.equal(image, before)  # a new tensor, and the input is left alone


@pytest.mark.parametrize("radius", [0.05, 0.1, 0.3, 0.5, 0.8, 1.0, 1.2, 1.5, 1.75, 2.0, 3.3, 6.0])
@pytest.mark.parametrize("shape", [(64, 80), (9, 5), (1, 30)])
def test_blur_agrees_with_pil_borders_included(radius, shape):
    image = eight_bit(*shape)
    difference = levels_apart(image, action(blur=radius))
    assert difference.max() <= 3.001  # PIL rounds after each of its six passes, half a level each
    assert difference.mean() < 0.9
    mean = perturb(as_batch(image), action(blur=radius)).mean().item() * 255
    # at radius 1 the taps are sixths, so that halves are common, and PIL rounds those down
    assert mean == pytest.approx(oracle(image, action(blur=radius)[0].tolist()).mean(), abs=0.6)


def dense_blur(length: int, radius: float) -> np.ndarray:
    """Three passes of the extended box filter along one axis as a matrix, indices beyond the border clipped."""
    ideal = math.sqrt(12 * radius**2 / 3 + 1)  # length of the box
    whole = math.floor((ideal - 1) / 2)
    # the fraction of the two outermost taps follows from the variance that one pass must have
    inner = sum(2 * k * k for k in range(1, whole + 1))
    part = (radius**2 / 3 * (2 * whole + 1) - inner) / (2 * (whole + 1) ** 2 - 2 * radius**2 / 3)
    one_pass = np.zeros((length, length))
    for row in range(length):
        for k in range(-whole - 1, whole + 2):
            tap = part if abs(k) == whole + 1 else 1.0
            one_pass[row, min(max(row + k, 0), length - 1)] += tap / (2 * whole + 1 + 2 * part)
    return np.linalg.matrix_power(one_pass, 3)


@pytest.mark.parametrize("radius", [0.1, 0.5, 1.0, 1.2, 2.0, 6.0])
@pytest.mark.parametrize("shape", [(20, 31), (9, 5), (1, 30)])
def test_blur_is_three_replicated_box_filters_per_axis(radius, shape):
    image = np.random.RandomState(0).uniform(size=shape)
    expected = dense_blur(shape[0], radius) @ image @ dense_blur(shape[1], radius).T
    ours = perturb(torch.from_numpy(image)[None, None], action(blur=radius).double())[0, 0].numpy()
    assert np.abs(ours - expected).max() < 1e-6


@pytest.mark.parametrize("radius", [0.2, 0.7, 1.0, 1.9, 4.5])
def test_blur_has_the_standard_deviation_of_its_radius(radius):
    image = torch.zeros(1, 1, 81, 81, dtype=torch.float64)
    image[0, 0, 40, 40] = 1
    out = perturb(image, action(blur=radius).double())[0, 0]
    offset = torch.arange(81, dtype=torch.float64) - 40
    assert out.sum().item() == pytest.approx(1, abs=1e-12)
    for profile in (out.sum(0), out.sum(1)):
        assert (profile * offset).sum().item() == pytest.approx(0, abs=1e-12)
        assert (profile * offset.square()).sum().item() == pytest.approx(radius**2, rel=1e-6)


def test_blur_by_hand():
    # radius sqrt(2) has variance 2: three passes of variance 2/3 each, the plain box [1, 1, 1] / 3;
    # its threefold convolution is [1, 3, 6, 7, 6, 3, 1] / 27
    image = torch.zeros(1, 1, 1, 9, dtype=torch.float64)
    image[..., 4] = 1
    blurred = perturb(image, action(blur=math.sqrt(2)).double())
    expected = torch.tensor([0, 1, 3, 6, 7, 6, 3, 1, 0], dtype=torch.float64) / 27
    torch.testing.assert_close(blurred.flatten(), expected, atol=1e-6, rtol=0)


def test_blur_leaves_a_constant_image():
    image = torch.full((1, 1, 12, 7), 1.0)
    torch.testing.assert_close(perturb(image, action(blur=1.7)), image)
    assert perturb(image, action(blur=1.7)).max() <= 1


@pytest.mark.parametrize(
    ("changes", "most"),
    [
        ({"brightness": 0.6}, 1.01),  # PIL cuts the fraction off
        ({"brightness": 1.4}, 1.01),
        ({"contrast": 0.6}, 1.3),  # the same, and PIL rounds the mean
        ({"contrast": 1.4}, 1.3),
        ({"gamma": 0.5}, 1.01),
        ({"gamma": 2.0}, 1.01),
    ],
)
def test_each_stage_agrees_with_pil(changes, most):
    assert levels_apart(eight_bit(70, 90), action(**changes)).max() <= most


def test_drawn_actions_agree_with_the_released_recipe():
    rng = np.random.RandomState(3)
    sampler = ActionSampler(gamma=(0.8, 1.25), jitter_prob=1.0, blur_prob=0.5)  # a root near 0 multiplies rounding
    for seed in range(25):
        drawn = torch.from_numpy(sampler(rng))[None]
        difference = levels_apart(np.clip(eight_bit(60, 60, seed), 30, 255).astype(np.uint8), drawn)
        assert difference.max() < 5
        assert difference.mean() < 2


def test_batch_equals_one_by_one():
    rng = np.random.RandomState(0)
    sampler = ActionSampler(blur=(0.1, 5.0), blur_prob=0.6, noise_prob=0.5)
    actions = torch.from_numpy(np.stack([sampler(rng) for _ in range(12)]))
    assert 0 < (actions[:, 3] > 0).sum() < 12
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(12, 1, 33, 47, generator=generator)
    noise = torch.randn(images.shape, generator=generator)
    together = perturb(images, actions, noise)
    for i in range(12):
        one = perturb(images[i : i + 1], actions[i : i + 1], noise[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], one, atol=2e-6, rtol=0)
    assert together.min() >= 0
    assert together.max() <= 1


@pytest.mark.parametrize("gamma", [0.3, 0.5, 0.9, 1.05, 1.2, 2.0, 6.0])
def test_levels_agree_with_the_formula_in_double_precision(gamma):
    image = (torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0)) * 1.4 - 0.2).clamp(0, 1)
    act = action(brightness=1.1, contrast=1.3, gamma=gamma)
    bright = (image.double() * act[0, 0].double()).clamp(0, 1)
    stretched = (bright.mean() + (bright - bright.mean()) * act[0, 1].double()).clamp(0, 1)
    assert (stretched == 0).any() and (stretched == 1).any()
    expected = stretched ** act[0, 2].double()
    slope = expected / stretched.clamp(min=1e-4)  # a root near zero multiplies the rounding of what it is taken of
    error = (perturb(image, act).double() - expected).abs()
    assert (error / (1 + slope)).max() < 1e-6
    assert perturb(image, act)[stretched == 0].max() < 1e-10
    factors = act[:, :3, None, None, None].unbind(1)
    torch.testing.assert_close(perturb(image, act), _adjust_batch(image, *factors), atol=1e-5, rtol=0)


def test_a_batch_off_the_cpu_leaves_the_identity_alone_to_the_last_bit():
    images = torch.rand(3, 1, 9, 7, generator=torch.Generator().manual_seed(0))
    acts = torch.cat([action(), action(brightness=1.2, contrast=0.7, gamma=1.4), action(contrast=0.5)])
    together = _adjust_batch(images, *acts[:, :3, None, None, None].unbind(1))
    assert torch.equal(together[0], images[0])
    torch.testing.assert_close(together, perturb(images, acts), atol=1e-6, rtol=0)


def test_half_precision_is_computed_in_single():
    image = torch.rand(1, 1, 40, 40, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    act = action(brightness=0.9, contrast=1.2, gamma=1.5, blur=1.3)
    assert torch.equal(perturb(image, act), perturb(image.float(), act).to(torch.bfloat16))


def test_empty_batch():
    assert perturb(torch.zeros(0, 1, 4, 4), torch.zeros(0, 5)).shape == (0, 1, 4, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"brightness": -0.1}, "brightness must be finite and at least 0, got -0.1 in sample 1"),
        ({"contrast": -1.0}, "contrast must be finite and at least 0"),
        ({"gamma": 0.0}, "gamma must be finite and above 0, got 0 in sample 1"),
        ({"blur": -0.5}, "blur must be"),
        ({"noise": -0.1}, "noise must be finite"),
        ({"gamma": float("nan")}, "gamma must be finite"),
        ({"brightness": float("inf")}, "brightness must be finite"),
        ({"noise": 0.1}, r"noise must be a unit normal field of shape \[2, 1, 4, 4\]"),
    ],
)
def test_refuses_actions(changes, message):
    with pytest.raises(ValueError, match=message):
        perturb(torch.zeros(2, 1, 4, 4), torch.cat([action(), action(**changes)]))


@pytest.mark.parametrize(
    ("image", "act", "noise", "message"),
    [
        (torch.zeros(1, 4, 4), action(), None, r"image must be floating \[B, C, H, W\]"),
        (torch.zeros(1, 1, 4, 4, dtype=torch.uint8), action(), None, "torch.uint8"),
        (torch.zeros(2, 1, 4, 4), action(), None, r"action must have shape \[B, 5\] = \[2, 5\], got \[1, 5\]"),
        (torch.zeros(1, 1, 4, 4), action()[:, :4], None, "action must have shape"),
        (torch.zeros(1, 1, 4, 4), action(), torch.zeros(1, 1, 4, 5), "noise must have the shape of image"),
    ],
)
def test_refuses_shapes_and_types(image, act, noise, message):
    with pytest.raises(ValueError, match=message):
        perturb(image, act, noise)


def test_sampler_has_the_distribution_of_the_released_recipe():
    rng = np.random.RandomState(0)
    drawn = np.stack([ActionSampler()(rng) for _ in range(6000)])
    assert drawn.dtype == np.float32
    jittered, blurred = (drawn[:, :3] != 1).any(axis=1), drawn[:, 3] > 0
    assert jittered.mean() == pytest.approx(0.8, abs=0.02)
    assert blurred.mean() == pytest.approx(0.2, abs=0.02)
    assert np.corrcoef(jittered, blurred)[0, 1] == pytest.approx(0, abs=0.05)
    assert (drawn[~jittered, :3] == 1).all()
    assert (drawn[:, 4] == 0).all()
    values = drawn[jittered, :3]
    for column in (0, 1):
        assert 0.6 <= values[:, column].min() < 0.61 and 1.39 < values[:, column].max() <= 1.4 + 1e-6
        assert values[:, column].std() == pytest.approx(0.8 / math.sqrt(12), abs=0.01)
    gamma = np.log2(values[:, 2])
    assert -1 <= gamma.min() < -0.99 and 0.99 < gamma.max() <= 1
    assert gamma.mean() == pytest.approx(0, abs=0.03)
    assert gamma.std() == pytest.approx(2 / math.sqrt(12), abs=0.02)
    radius = drawn[blurred, 3]
    assert 0.1 <= radius.min() < 0.12 and 1.98 < radius.max() <= 2
    assert radius.mean() == pytest.approx(1.05, abs=0.05)
    assert np.abs(np.corrcoef(values.T)[np.triu_indices(3, 1)]).max() < 0.05


def test_sampler_draws_noise_only_when_asked_and_always_advances_alike():
    quiet, loud = np.random.RandomState(0), np.random.RandomState(0)
    noisy = [ActionSampler(jitter_prob=0, blur_prob=0, noise_prob=1.0)(loud) for _ in range(300)]
    for _ in range(300):
        assert ActionSampler(jitter_prob=0, blur_prob=0)(quiet).tolist() == list(IDENTITY_ACTION)
    sigma = np.stack(noisy)[:, 4]
    assert 0.05 <= sigma.min() < 0.055 and 0.195 < sigma.max() <= 0.2 + 1e-6
    assert quiet.uniform() == loud.uniform()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"brightness": (1.4, 0.6)}, "brightness must be"),
        ({"contrast": (-0.1, 1.0)}, "contrast must be"),
        ({"gamma": (0.0, 2.0)}, "gamma must be .* 0 < low"),
        ({"blur": (-1.0, 2.0)}, "blur must be"),
        ({"noise": (0.1,)}, "noise must be"),
        ({"blur": (0.0, math.inf)}, "blur must be"),
        ({"jitter_prob": 1.1}, "jitter_prob must lie"),
        ({"blur_prob": -0.1}, "blur_prob must lie"),
        ({"noise_prob": 2}, "noise_prob must lie"),
    ],
)
def test_sampler_refuses(settings, message):
    with pytest.raises(ValueError, match=message):
        ActionSampler(**settings)


def test_rand_action_writes_independent_reproducible_draws():
    transform = RandActiond(sampler=ActionSampler(jitter_prob=1.0, blur_prob=1.0)).set_random_state(4)
    first, second = transform({"label": 1}), transform({"label": 1})
    assert set(first) == {"label", "action1", "action2"}
    drawn = [sample[key] for sample in (first, second) for key in ("action1", "action2")]
    assert all(value.dtype == torch.float32 and value.shape == (5,) for value in drawn)
    assert len({tuple(value.tolist()) for value in drawn}) == 4
    again = RandActiond(sampler=ActionSampler(jitter_prob=1.0, blur_prob=1.0)).set_random_state(4)({})
    assert torch.equal(again["action1"], first["action1"])
    assert torch.equal(again["action2"], first["action2"])


def test_rand_action_with_other_keys():
    assert list(RandActiond(keys="a").set_random_state(0)({})) == ["a"]


def test_perturb_dictionary_transform_equals_the_function():
    generator = torch.Generator().manual_seed(0)
    views = [torch.rand(1, 30, 20, generator=generator) for _ in range(2)]
    acts = [action(gamma=1.5, blur=1.1)[0], action(brightness=0.7)[0]]
    sample = {"view1": views[0], "view2": views[1], "action1": acts[0], "action2": acts[1], "label": 0}
    out = Perturbd()(sample)
    assert set(out) == {*sample, "perturbed1", "perturbed2"}
    for i in (0, 1):
        assert torch.equal(out[f"perturbed{i + 1}"], perturb(views[i][None], acts[i][None])[0])
        assert torch.equal(out[f"view{i + 1}"], views[i])


def test_perturb_dictionary_transform_draws_its_own_noise():
    sample = {key: torch.full((1, 60, 60), 0.5) for key in ("view1", "view2")}
    sample |= {"action1": action(noise=0.1)[0], "action2": action(noise=0.05)[0]}
    out = Perturbd().set_random_state(0)(sample)
    again = Perturbd().set_random_state(0)(sample)
    assert torch.equal(out["perturbed1"], again["perturbed1"])
    noise = [out["perturbed1"] - 0.5, out["perturbed2"] - 0.5]
    assert noise[0].std().item() == pytest.approx(0.1, rel=0.05)
    assert noise[1].std().item() == pytest.approx(0.05, rel=0.05)
    assert abs(np.corrcoef(noise[0].flatten(), noise[1].flatten())[0, 1]) < 0.06


def test_perturb_dictionary_transform_keys():
    sample = {"a": torch.rand(1, 4, 4), "act": action(brightness=0.5)[0]}
    out = Perturbd("a", "act", "b")(sample)
    torch.testing.assert_close(out["b"], sample["a"] * 0.5)
    with pytest.raises(KeyError):
        Perturbd()(sample)
    assert set(Perturbd(allow_missing_keys=True)(sample)) == set(sample)
    with pytest.raises(ValueError, match="action_keys must have one key for each"):
        Perturbd(keys=("a", "b"), action_keys="c")
    with pytest.raises(ValueError, match="output_keys must have one key for each"):
        Perturbd(output_keys="c")
