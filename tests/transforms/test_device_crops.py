"""Views cut on the device: the loader's within two grey levels, whatever else is in the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cxw_monai.transforms import RandWorldViewPaird
from cxw_monai.transforms.device_crops import collate_films, crop_batch, with_views

LEVEL = 1 / 255
CPU = torch.device("cpu")
SIZES = ((96, 120), (130, 100), (64, 64), (230, 310))


def film(height: int, width: int, seed: int, dtype: type) -> np.ndarray:
    """A smooth film, or noise where `seed` is odd."""
    rows, columns = np.mgrid[:height, :width]
    wave = 127 + 90 * np.sin(rows / 17 + seed) * np.cos(columns / 11)
    noise = np.random.RandomState(seed).randint(0, 256, (height, width))
    whole = np.round(noise if seed % 2 else wave).astype(np.uint8)[None]
    return {np.uint8: whole, np.uint16: whole.astype(np.uint16) * 257, np.float32: (whole / 255).astype(np.float32)}[
        dtype
    ]


def samples(cut: bool, dtype: type = np.uint8, size: tuple[int, int] = (64, 80), **options: float) -> list[dict]:
    made = []
    for number in range(12):
        views = RandWorldViewPaird(size=size, flip_prob=0.5, cut=cut, **options)
        views.set_random_state(number)
        made.append(views({"image": film(*SIZES[number % len(SIZES)], number, dtype), "index": number}))
    return made


@pytest.mark.parametrize("size", [(64, 80), (224, 224), (16, 16)], ids=str)
@pytest.mark.parametrize(
    ("dtype", "jitter", "tolerance"),
    [(np.uint8, 0, 2.01 * LEVEL), (np.uint8, 1, 1.4 * 1.4 * 2.01 * LEVEL), (np.uint16, 1, 1e-5), (np.float32, 1, 1e-5)],
)
def test_views_are_those_of_the_loader(dtype, jitter, tolerance, size):
    """Both round 8-bit films twice, each in its own way; jitter multiplies what that leaves by 1.96 at most."""
    expected = collate_films(samples(True, dtype, size, jitter_prob=jitter))
    found = with_views(collate_films(samples(False, dtype, size, jitter_prob=jitter)), CPU)
    assert found.keys() == expected.keys()
    for name in ("rel_12", "rel_21", "box1", "box2", "index"):
        assert torch.equal(found[name], expected[name])
    for name in ("view1", "view2"):
        assert found[name].shape == expected[name].shape and found[name].dtype == torch.float32
        difference = (found[name] - expected[name]).abs()
        assert difference.max() <= tolerance
        assert (difference > 1.01 * LEVEL).float().mean() < 0.01


def test_a_crop_of_the_size_of_the_view_is_the_film_s_own_pixels():
    pixels = torch.from_numpy(film(40, 50, 1, np.uint8))[None]
    box1, box2 = torch.tensor([[3, 5, 32, 32, 0]]), torch.tensor([[8, 10, 32, 32, 1]])
    plain = torch.tensor([[1.0, 1.0, 1.0]])
    view1, view2 = crop_batch(pixels, torch.tensor([[40, 50]]), box1, box2, plain, (32, 32))
    assert torch.allclose(view1 * 255, pixels[:, :, 3:35, 5:37].float(), atol=1e-4)
    mirror_image = pixels.flip(3)  # the box of a flipped view counts from its edge
    assert torch.allclose(view2 * 255, mirror_image[:, :, 8:40, 10:42].float(), atol=1e-4)


def test_jitter_by_hand():
    """A film of 0.2 on its left and 0.6 on its right half, mean 0.4; a crop of the left."""
    pixels = torch.full((1, 1, 8, 16), 0.2)
    pixels[..., 8:] = 0.6
    box = torch.tensor([[0, 0, 8, 4, 0]])
    jitter = torch.tensor([[1.5, 0.5, 1.0]])  # brightness 1.5, then contrast 0.5 around the mean 0.6
    view, _ = crop_batch(pixels, torch.tensor([[8, 16]]), box, box, jitter, (4, 4))
    assert torch.allclose(view, torch.full_like(view, 0.6 + 0.5 * (0.3 - 0.6)))
    jitter[0, 2] = 0.0  # contrast around 0.4, then brightness
    view, _ = crop_batch(pixels, torch.tensor([[8, 16]]), box, box, jitter, (4, 4))
    assert torch.allclose(view, torch.full_like(view, 1.5 * (0.4 + 0.5 * (0.2 - 0.4))))


def test_views_do_not_depend_on_the_other_films_of_the_batch():
    """The films have different sizes, and the contrast step looks at the mean of the film alone."""
    made = samples(False, jitter_prob=1.0)
    together = with_views(collate_films(made), CPU)
    for number, sample in enumerate(made):
        alone = with_views(collate_films([sample]), CPU)
        for name in ("view1", "view2"):
            assert torch.allclose(alone[name][0], together[name][number], atol=1e-5)


def test_films_of_8_and_16_bits_make_one_batch():
    films = [film(40, 50, 1, np.uint8), film(50, 40, 2, np.uint16)]
    whole = {"box1": torch.tensor([0, 0, 40, 40, 0]), "box2": torch.tensor([0, 0, 40, 40, 0])}
    rest = {**whole, "jitter": torch.ones(3), "view_size": torch.tensor([40, 40])}
    batch = collate_films([{"film": one, **rest} for one in films])
    assert batch["film"].dtype == torch.uint16 and batch["film"].shape == (2, 1, 50, 50)
    views = with_views(batch, CPU)["view1"]
    for view, pixels, full in zip(views, films, (255, 65535), strict=True):
        assert np.allclose(view.numpy(), pixels[:, :40, :40] / full, atol=1e-6)


def test_other_batches_are_collated_as_usual():
    batch = collate_films([{"view1": torch.zeros(1, 4, 4), "index": 3}, {"view1": torch.ones(1, 4, 4), "index": 5}])
    assert batch["view1"].shape == (2, 1, 4, 4) and batch["index"].tolist() == [3, 5]
    assert with_views(batch, CPU) == batch


def test_products_have_all_their_digits_and_tf32_is_set_back():
    before = torch.backends.cuda.matmul.allow_tf32
    seen = []
    multiply = torch.Tensor.__matmul__
    try:
        torch.backends.cuda.matmul.allow_tf32 = True
        with pytest.MonkeyPatch.context() as patch:
            watched = lambda a, b: seen.append(torch.backends.cuda.matmul.allow_tf32) or multiply(a, b)  # noqa: E731
            patch.setattr(torch.Tensor, "__matmul__", watched)
            with_views(collate_films(samples(False)[:1]), CPU)
        assert seen == [False] * 4 and torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_films_are_cut_where_they_are_sent(dtype):
    found = with_views(collate_films(samples(False, dtype)), torch.device("meta"))
    assert found["view1"].device.type == "meta" and found["view2"].shape == (12, 1, 64, 80)
