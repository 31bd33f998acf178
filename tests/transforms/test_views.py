"""World view pairs: resizing against PIL, base jitter against its definition, distributions, types and refusals."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image, ImageEnhance

from cxw_monai.transforms import BaseJitter, RandWorldViewPaird, crop_views, sample_base_jitter, sample_crop_pair
from cxw_monai.transforms.geometry import CropBox, relative_geometry

LEVEL = 1 / 255


def noisy(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (1, height, width)).astype(np.uint8)


def smooth(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    wave = 0.5 + 0.25 * np.sin(y / 23) + 0.2 * np.cos(x / 31 + y / 57)
    return np.round(255 * wave).astype(np.uint8)[None]


def pil_crop(image: Image.Image, box: CropBox, size: tuple[int, int], columns_first: bool = False) -> np.ndarray:
    """Mirror, crop, resize: what the view's own frame says. PIL resizes rows first; columns if they change places."""
    if box.flipped:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    crop = image.crop((box.left, box.top, box.left + box.width, box.top + box.height))
    if columns_first:
        turned = crop.transpose(Image.Transpose.TRANSPOSE).resize(size, Image.Resampling.BICUBIC)
        return np.asarray(turned, dtype=np.float64).T
    return np.asarray(crop.resize(size[::-1], Image.Resampling.BICUBIC), dtype=np.float64)


@pytest.mark.parametrize("image", [noisy(230, 310), smooth(230, 310)], ids=["noise", "smooth"])
@pytest.mark.parametrize(
    ("box1", "box2", "size"),
    [
        (CropBox(10, 20, 180, 200), CropBox(40, 90, 180, 200), (96, 96)),
        (CropBox(0, 0, 230, 310), CropBox(0, 0, 230, 310, True), (64, 112)),
        (CropBox(17, 3, 90, 101, True), CropBox(140, 209, 90, 101), (224, 224)),  # enlarges
        (CropBox(5, 6, 3, 1), CropBox(7, 8, 3, 1, True), (16, 16)),
        (CropBox(30, 40, 64, 64), CropBox(31, 41, 64, 64), (64, 64)),  # keeps the size
    ],
)
def test_crops_agree_with_pil(image, box1, box2, size):
    views = torch.cat(crop_views(image, (box1, box2), size))
    assert views.shape == (2, *size)
    assert views.dtype == torch.float32
    for view, box in zip(views, (box1, box2), strict=True):
        # columns are resized before rows here, and after them in PIL: the passes clip and round in between
        expected = pil_crop(Image.fromarray(image[0]), box, size, columns_first=True)
        difference = np.abs(view.numpy() * 255 - expected)
        assert difference.max() <= 2.01
        assert np.mean(difference > 1.01) < 1e-4


@pytest.mark.parametrize("size", [(96, 96), (150, 224)])
def test_crops_of_a_smooth_film_agree_with_pils_order_too(size):
    image, boxes = smooth(230, 310), (CropBox(10, 20, 180, 200), CropBox(40, 90, 180, 200))
    for view, box in zip(torch.cat(crop_views(image, boxes, size)), boxes, strict=True):
        difference = np.abs(view.numpy() * 255 - pil_crop(Image.fromarray(image[0]), box, size))
        assert difference.max() <= 1.01
        assert np.mean(difference > 0.01) < 0.15


@pytest.mark.parametrize("dtype", [np.uint16, np.float16, np.float32, np.float64])
def test_other_types_agree_with_uint8(dtype):
    image = noisy(120, 150) // 2 + 64  # away from 0 and 255, where 8 bits clip between the two passes of the resize
    full = 65535 if dtype == np.uint16 else 1
    converted = (image * (full / 255)).astype(dtype)
    boxes = (CropBox(10, 20, 80, 100), CropBox(30, 40, 80, 100, True))
    jitter = BaseJitter(1.3, 0.8, True)
    for step in (None, jitter):
        expected, views = (torch.cat(crop_views(film, boxes, (48, 56), step)) for film in (image, converted))
        assert views.dtype == torch.float32
        assert views.min() >= 0 and views.max() <= 1
        assert (views - expected).abs().max() < 1.2 * 1.3 * LEVEL  # rounding to 8 bit, stretched by the jitter


def test_uint16_keeps_what_eight_bits_would_lose():
    image = np.full((1, 40, 40), 1000, dtype=np.uint16)
    image[..., 20:] = 1100  # less than one of 256 levels apart
    views = torch.cat(crop_views(image, (CropBox(0, 0, 40, 40), CropBox(0, 0, 40, 40)), (40, 40)))
    assert views[0, 5, 5].item() == pytest.approx(1000 / 65535, abs=1e-6)
    assert views[0, 5, 35].item() == pytest.approx(1100 / 65535, abs=1e-6)


@pytest.mark.parametrize("first", [True, False], ids=["brightness first", "contrast first"])
@pytest.mark.parametrize(("brightness", "contrast"), [(1.4, 0.6), (0.6, 1.4), (1.35, 1.4), (0.7, 0.7), (1.0, 1.0)])
def test_base_jitter_agrees_with_pil_on_the_full_image(brightness, contrast, first):
    image = smooth(240, 300)
    boxes = (CropBox(0, 0, 120, 140), CropBox(100, 110, 120, 140))
    steps = [(ImageEnhance.Brightness, brightness), (ImageEnhance.Contrast, contrast)]
    full = Image.fromarray(image[0])
    for enhance, factor in steps if first else steps[::-1]:
        full = enhance(full).enhance(factor)
    views = torch.cat(crop_views(image, boxes, (56, 56), BaseJitter(brightness, contrast, first)))
    for view, box in zip(views, boxes, strict=True):
        difference = np.abs(view.numpy() * 255 - pil_crop(full, box, (56, 56)))
        assert difference.max() < 4  # PIL rounds to 8 bit three times, and its mean too
        assert difference.mean() < 1.2


@pytest.mark.parametrize(
    ("jitter", "dark", "bright"),
    [
        # full image: 0.2 and 0.8 in equal parts, mean 0.5
        (BaseJitter(0.5, 1.0, True), 0.1, 0.4),
        (BaseJitter(1.0, 0.5, True), 0.35, 0.65),
        (BaseJitter(1.4, 0.5, True), 0.46, 0.82),  # 0.28, 1 (clipped): mean 0.64
        (BaseJitter(1.4, 0.5, False), 0.49, 0.91),  # 0.35, 0.65, then times 1.4
        (BaseJitter(0.5, 2.0, True), 0.0, 0.55),  # 0.1, 0.4: mean 0.25, then -0.05 (clipped), 0.55
        (BaseJitter(0.5, 2.0, False), 0.0, 0.5),  # -0.1 and 1.1 (clipped), then halved
    ],
)
def test_base_jitter_by_hand(jitter, dark, bright):
    image = np.full((1, 20, 20), 51, dtype=np.uint8)
    image[:, :, 10:] = 204
    boxes = (CropBox(2, 2, 6, 6), CropBox(2, 12, 6, 6))  # one in the dark half, one in the bright half
    for values in (image, image / np.float32(255)):
        views = torch.cat(crop_views(values, boxes, (8, 8), jitter))
        torch.testing.assert_close(views[0], torch.full((8, 8), dark), atol=1e-5, rtol=0)
        torch.testing.assert_close(views[1], torch.full((8, 8), bright), atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("first", [True, False], ids=["brightness first", "contrast first"])
@pytest.mark.parametrize(("brightness", "contrast"), [(1.37, 0.6), (0.63, 1.4), (1.0, 1.2), (0.0, 1.2), (2.0, 0.0)])
def test_base_jitter_is_that_of_the_whole_film(dtype, brightness, contrast, first):
    full = {np.uint8: 255, np.uint16: 65535, np.float32: 1}[dtype]
    unit = np.random.RandomState(0).uniform(size=(1, 600, 70))  # more rows than a sum in 16 bits can hold
    image = (unit * full).astype(dtype)

    def brighten(values):
        return np.clip(values * brightness, 0, 1)

    def stretch(values):
        return np.clip(values.mean() + (values - values.mean()) * contrast, 0, 1)

    film = image.astype(np.float64) / full
    expected = stretch(brighten(film)) if first else brighten(stretch(film))
    boxes = (CropBox(3, 5, 40, 33), CropBox(500, 30, 40, 33, True))  # views of their size: nothing is resampled
    views = crop_views(image, boxes, (40, 33), BaseJitter(brightness, contrast, first))
    np.testing.assert_allclose(views[0], expected[:, 3:43, 5:38], atol=1e-5)
    np.testing.assert_allclose(views[1], expected[:, 500:540, 7:40][..., ::-1], atol=1e-5)


def test_both_views_share_the_jitter():
    transform = RandWorldViewPaird(size=32, scale=(1, 1), ratio=(1, 1), jitter_prob=1.0)
    image = noisy(50, 50)
    plain = torch.cat(crop_views(image, (CropBox(0, 0, 50, 50),) * 2, (32, 32)))
    seen = set()
    for seed in range(10):
        transform.set_random_state(seed)
        sample = transform({"image": image})
        assert torch.equal(sample["view1"], sample["view2"])
        seen.add((sample["view1"][0] - plain[0]).abs().max().item())
    assert len(seen) == 10
    assert sorted(seen)[5] > 0.1


def test_sampled_jitter_has_the_stated_distribution():
    rng = np.random.RandomState(0)
    drawn = [sample_base_jitter(rng, 0.8, 0.4, 0.2) for _ in range(4000)]
    jitters = [jitter for jitter in drawn if jitter is not None]
    assert len(jitters) / len(drawn) == pytest.approx(0.8, abs=0.025)
    brightness, contrast = np.array([(jitter.brightness, jitter.contrast) for jitter in jitters]).T
    assert 0.6 <= brightness.min() < 0.61 and 1.39 < brightness.max() <= 1.4
    assert 0.8 <= contrast.min() < 0.81 and 1.19 < contrast.max() <= 1.2
    assert brightness.mean() == pytest.approx(1, abs=0.02)
    assert np.mean([jitter.brightness_first for jitter in jitters]) == pytest.approx(0.5, abs=0.03)


def test_crops_have_the_stated_distribution():
    rng = np.random.RandomState(0)
    pairs = [sample_crop_pair(rng, 1000, 1000) for _ in range(3000)]
    first = np.array([(box.top, box.left, box.height, box.width) for box, _ in pairs], dtype=float)
    second = np.array([(box.top, box.left, box.height, box.width) for _, box in pairs], dtype=float)
    assert np.array_equal(first[:, 2:], second[:, 2:])
    area, aspect = first[:, 2] * first[:, 3] / 1e6, first[:, 3] / first[:, 2]
    assert 0.299 < area.min() < 0.305 and 0.95 < area.max() <= 1
    assert 0.749 < aspect.min() < 0.76 and 1.32 < aspect.max() < 1.335
    assert np.mean(area[area < 0.75] < 0.525) == pytest.approx(0.5, abs=0.035)  # uniform where every box fits
    assert np.log(aspect).mean() == pytest.approx(0, abs=0.01)
    for axis in (0, 1):
        room = 1000 - first[:, 2 + axis]
        place1, place2 = ((boxes[:, axis] / np.maximum(room, 1))[room > 50] for boxes in (first, second))
        for place in (place1, place2):
            assert place.mean() == pytest.approx(0.5, abs=0.02)
            assert place.std() == pytest.approx(12**-0.5, abs=0.015)
            assert place.min() == 0 or place.min() < 0.01
            assert place.max() > 0.99
        assert abs(np.corrcoef(place1, place2)[0, 1]) < 0.06
    assert not any(box.flipped for pair in pairs for box in pair)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (10, 1000, CropBox(0, 493, 10, 13)),  # too wide for any try: 10 * 4/3 columns at the centre
        (1000, 10, CropBox(493, 0, 13, 10)),
    ],
)
def test_centred_fallback(height, width, expected):
    rng = np.random.RandomState(0)
    for _ in range(5):
        assert sample_crop_pair(rng, height, width)[0] == expected


@pytest.mark.parametrize("flip_prob", [0.0, 0.5])
@pytest.mark.parametrize("min_overlap", [0.0, 0.3, 0.7, 0.9, 1.0])
def test_min_overlap_bounds_each_axis_on_the_radiograph(min_overlap, flip_prob):
    rng = np.random.RandomState(1)
    least = 1.0
    for _ in range(500):
        boxes = sample_crop_pair(rng, 300, 400, min_overlap=min_overlap, flip_prob=flip_prob)
        upright = [box.mirrored(400) if box.flipped else box for box in boxes]
        down = 1 - abs(upright[0].top - upright[1].top) / upright[0].height
        across = 1 - abs(upright[0].left - upright[1].left) / upright[0].width
        least = min(least, down, across)
    assert least >= min_overlap - 1e-12
    assert least < min_overlap + 0.08 or min_overlap == 0.0


def test_disjoint_pairs_occur_without_a_bound_only():
    def disjoint(min_overlap):
        rng = np.random.RandomState(2)
        pairs = [sample_crop_pair(rng, 300, 300, (0.2, 0.2), (1, 1), min_overlap) for _ in range(300)]
        return sum(abs(a.left - b.left) >= a.width or abs(a.top - b.top) >= a.height for a, b in pairs)

    assert disjoint(None) > 20
    assert disjoint(0.1) == 0


def test_sample_has_exactly_the_stated_entries():
    transform = RandWorldViewPaird(size=(48, 32), flip_prob=0.5)
    for seed in range(8):
        transform.set_random_state(seed)
        data = {"image": noisy(90, 120), "label": 3}
        sample = transform(data)
        assert set(sample) == {"label", "view1", "view2", "rel_12", "rel_21", "box1", "box2"}
        assert set(data) == {"image", "label"}  # the input is left alone
        boxes = [CropBox(*sample[key].tolist()[:4], bool(sample[key][4])) for key in ("box1", "box2")]
        for key, (source, target) in {"rel_21": boxes, "rel_12": boxes[::-1]}.items():
            assert sample[key].dtype == torch.float32
            assert sample[key].tolist() == pytest.approx(relative_geometry(source, target, 120), rel=1e-6)
        for key in ("view1", "view2"):
            assert type(sample[key]) is torch.Tensor
            assert sample[key].shape == (1, 48, 32)
            assert sample[key].dtype == torch.float32
            assert sample[key].min() >= 0 and sample[key].max() <= 1
            assert sample[key].untyped_storage().nbytes() == 48 * 32 * 4
        assert sample["box1"].dtype == sample["box2"].dtype == torch.int64


@pytest.mark.parametrize("wrap", [torch.from_numpy, MetaTensor, np.asfortranarray], ids=["torch", "meta", "fortran"])
def test_containers_give_the_same_views(wrap):
    image = noisy(60, 80)
    transform = RandWorldViewPaird(size=24)
    samples = []
    for source in (image, wrap(image)):
        transform.set_random_state(5)
        samples.append(transform({"image": source}))
    for key in ("view1", "view2", "box1", "box2", "rel_12", "rel_21"):
        assert torch.equal(samples[0][key], samples[1][key])
        assert type(samples[1][key]) is torch.Tensor


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.filterwarnings("error")
def test_read_only_memory_map(tmp_path, dtype):
    np.save(tmp_path / "image.npy", (noisy(40, 50) / 255).astype(dtype))
    image = np.load(tmp_path / "image.npy", mmap_mode="r")
    sample = RandWorldViewPaird(size=16, scale=(1, 1), jitter_prob=1.0).set_random_state(0)({"image": image})
    assert sample["view1"].shape == (1, 16, 16)


def test_same_seed_same_pair_and_other_seed_other_pair():
    image = noisy(80, 90)
    transform, other = RandWorldViewPaird(size=32, flip_prob=0.5), RandWorldViewPaird(size=32, flip_prob=0.5)
    transform.set_random_state(7)
    other.set_random_state(7)
    state = np.random.get_state()[1].copy()
    pairs = [(transform({"image": image}), other({"image": image})) for _ in range(4)]
    for ours, theirs in pairs:
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert len({tuple(ours["box1"].tolist()) for ours, _ in pairs}) > 1
    assert np.array_equal(state, np.random.get_state()[1])  # the global generator is untouched


def test_a_seed_set_again_gives_the_numbers_of_a_new_state():
    transform = RandWorldViewPaird()
    for seed in (3, 3, 2**32 - 1, np.int64(5)):
        transform.set_random_state(seed)
        assert transform.R.uniform() == np.random.RandomState(int(seed)).uniform()
    shared = np.random.RandomState(7)
    assert transform.set_random_state(state=shared).R is shared
    transform.set_random_state(3)
    assert shared.uniform() == np.random.RandomState(7).uniform()  # a state that was lent is left alone
    copied = copy.deepcopy(transform)
    copied.set_random_state(4)
    assert transform.R.uniform() == np.random.RandomState(3).uniform()


@pytest.mark.parametrize("image", [noisy(32, 32), noisy(32, 32) / np.float32(255), torch.from_numpy(noisy(32, 32))])
def test_views_do_not_alias_the_source_or_each_other(image):
    before = np.array(image)
    sample = RandWorldViewPaird(size=32, scale=(1, 1), jitter_prob=1).set_random_state(0)({"image": image})
    sample["view1"].zero_()
    assert np.array_equal(np.asarray(image), before)
    assert sample["view2"].max() > 0


def test_smallest_image():
    sample = RandWorldViewPaird(size=8).set_random_state(0)({"image": noisy(2, 2)})
    assert sample["view1"].shape == (1, 8, 8)


def test_missing_key():
    with pytest.raises(KeyError):
        RandWorldViewPaird()({"label": 1})
    assert RandWorldViewPaird(allow_missing_keys=True)({"label": 1}) == {"label": 1}


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((40, 40), np.uint8), r"'image' must have shape \[1, H, W\], got \[40, 40\]"),
        (np.zeros((3, 40, 40), np.uint8), r"\[3, 40, 40\]"),
        (np.zeros((1, 1, 40), np.uint8), "at least 2 px"),
        (np.zeros((1, 40, 40), np.int16), "got int16"),
        (np.zeros((1, 40, 40), np.int64), "got int64"),
        (np.zeros((1, 40, 40), bool), "got bool"),
        (np.full((1, 40, 40), 1.5), r"must lie in \[0, 1\], got \[1.5, 1.5\]"),
        (np.full((1, 40, 40), -0.1, np.float32), "scale it first"),
        (np.full((1, 40, 40), np.nan, np.float32), "nan"),
    ],
)
def test_refuses_images(image, message):
    with pytest.raises(ValueError, match=message):
        RandWorldViewPaird()({"image": image})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keys": ("a", "b")}, "keys must name the one image"),
        ({"size": 0}, "size must be"),
        ({"size": (224, 224, 1)}, "size must be"),
        ({"scale": (0.0, 1.0)}, "scale must be"),
        ({"scale": (0.5, 0.4)}, "scale must be"),
        ({"scale": (0.5, 1.1)}, "scale must be"),
        ({"ratio": (0, 1)}, "ratio must be"),
        ({"ratio": (2, 1)}, "ratio must be"),
        ({"min_overlap": 1.1}, "min_overlap must be"),
        ({"min_overlap": -1}, "min_overlap must be"),
        ({"flip_prob": 1.5}, "flip_prob must lie"),
        ({"jitter_prob": -0.1}, "jitter_prob must lie"),
        ({"jitter_brightness": 1.2}, "jitter_brightness must lie"),
        ({"jitter_contrast": -0.4}, "jitter_contrast must lie"),
    ],
)
def test_refuses_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        RandWorldViewPaird(**settings)
