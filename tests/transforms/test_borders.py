"""Borders are cropped, films are not; crops map back."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Flipd
from PIL import Image
from scipy.ndimage import gaussian_filter

from cxw_monai.io import LoadRadiographd
from cxw_monai.io.pixel_map import PixelMap
from cxw_monai.transforms.borders import RemoveBorders, RemoveBordersd, find_content_box


def map_of(data: dict) -> PixelMap:
    """The pixel map that a dictionary's image carries."""
    return PixelMap.from_json(data["image"].meta["pixel_map"])


def film(rows: int = 96, columns: int = 80, seed: int = 0) -> np.ndarray:
    """Smooth blobs from 0.1 to 0.9, float32 ``[rows, columns]``."""
    blobs = gaussian_filter(np.random.default_rng(seed).standard_normal((rows, columns)), sigma=6)
    return (0.1 + 0.8 * (blobs - blobs.min()) / np.ptp(blobs)).astype(np.float32)


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


@pytest.mark.parametrize("level", [0.0, 1.0, 0.5])
@pytest.mark.parametrize("sides", [(7, 0, 0, 0), (0, 0, 0, 9), (3, 11, 0, 6), (5, 5, 5, 5)])
def test_a_border_on_any_side_is_found_to_the_pixel(level, sides):
    above, below, before, after = sides
    image = np.pad(film(), ((above, below), (before, after)), constant_values=level)
    assert find_content_box(image) == (above, before, 96, 80)


def test_nested_borders_of_different_greys():
    image = np.pad(np.pad(film(), 4, constant_values=0), 6, constant_values=1)
    assert find_content_box(image) == (10, 10, 96, 80)


@pytest.mark.parametrize("quality", [95, 75, 50])
def test_compression_costs_less_than_a_block(quality):
    image = jpeg(np.pad(film(200, 160), ((21, 30), (13, 0))), quality)
    top, left, height, width = find_content_box(image)
    assert 21 - 8 < top <= 21 and 13 - 8 < left <= 13
    assert 221 <= top + height < 221 + 8 and left + width == 173


def test_a_noisy_black_border():
    noise = np.random.default_rng(1).uniform(0, 0.03, (120, 110)).astype(np.float32)
    noise[10:106, 20:100] = film()
    assert find_content_box(noise) == (10, 20, 96, 80)


def test_a_slanted_wedge_keeps_every_row_with_picture_in_it():
    image = film(100, 100)
    row, column = np.mgrid[:100, :100]
    image[row < 10 + column // 5] = 0  # rows 0 to 9 black all along, 10 to 29 partly
    assert find_content_box(image) == (10, 0, 90, 100)


def test_a_band_with_writing_in_it_stays():
    image = np.pad(film(), ((20, 0), (0, 0)))
    image[8:12, 30:50] = 1
    assert find_content_box(image) == (8, 0, 108, 80)


@pytest.mark.parametrize("seed", range(10))
def test_twice_is_once(seed):
    rng = np.random.default_rng(seed)
    sides = rng.integers(0, 20, (2, 2))
    image = jpeg(np.pad(film(seed=seed), sides, constant_values=rng.choice([0, 0.4, 1])), int(rng.integers(30, 96)))
    top, left, height, width = find_content_box(image)
    assert find_content_box(image[top : top + height, left : left + width]) == (0, 0, height, width)


@pytest.mark.parametrize("image", [np.zeros((9, 7)), np.ones((9, 7)), np.full((1, 9, 7), 0.3), np.zeros((1, 1))])
def test_a_constant_image_stays_whole(image):
    assert find_content_box(image) == (0, 0, *image.shape[-2:])


def test_a_picture_that_fades_into_white_stays():
    image = film(100, 80)
    image[60:] += (0.99 - image[60:]) * np.linspace(0, 1, 40)[:, None] ** 0.2  # its last rows span less than 3/255
    assert np.ptp(image[-1]) < 0.01 and np.ptp(image[-2]) < 0.012
    assert find_content_box(image) == (0, 0, 100, 80)


def test_a_speck_in_the_dark_is_no_film():
    image = np.zeros((100, 100), np.float32)
    image[50:55, 50:55] = 1
    assert find_content_box(image) == (0, 0, 100, 100)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_integers_are_read_over_their_range(dtype):
    image = np.rint(np.pad(film(), 6, constant_values=1) * np.iinfo(dtype).max).astype(dtype)
    assert find_content_box(image[None]) == (6, 6, 96, 80)
    assert find_content_box(torch.from_numpy(np.pad(film(), 6))) == (6, 6, 96, 80)


@pytest.mark.parametrize("shape", [(4,), (1, 1, 4, 4), (0, 4)])
def test_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match=r"image must be \[H, W\] or \[C, H, W\]"):
        find_content_box(np.zeros(shape))


def test_refuses_signed_integers():
    with pytest.raises(TypeError, match="got int64"):
        find_content_box(np.zeros((4, 4), np.int64))


def test_the_mask_is_cropped_with_its_film_and_comes_back():
    mask = np.zeros((1, 110, 100), np.float32)
    mask[0, 40:60, 30:50] = 1
    image = np.pad(film(), ((10, 4), (0, 20)))[None]
    mapped = PixelMap.identity(image.shape).flip(1)
    data = {
        "image": MetaTensor(image[..., ::-1].copy(), meta={"pixel_map": mapped.to_json()}),
        "label": MetaTensor(mask[..., ::-1].copy()),
    }
    crop = Compose([RemoveBordersd(("image", "label"), source_key="image")])
    out = crop(data)
    assert out["image"].shape == out["label"].shape == (1, 96, 80)
    assert map_of(out).steps == (("flip", 1), ("crop", 10, 20, 96, 80))
    np.testing.assert_array_equal(map_of(out).restore(out["label"].numpy()), mask)
    back = crop.inverse(out)
    np.testing.assert_array_equal(back["label"].numpy(), mask[..., ::-1])
    np.testing.assert_array_equal(back["image"].numpy(), image[..., ::-1])
    assert map_of(back).shape == (110, 100)
    np.testing.assert_array_equal(map_of(back).restore(back["label"].numpy()), mask)
    assert data["image"].shape == (1, 110, 100) and map_of(data) == mapped  # the input is untouched


@pytest.mark.parametrize("lazy", [False, True])
def test_each_key_by_its_own_border_and_in_a_chain(lazy):
    data = {"a": torch.from_numpy(np.pad(film(), 5)[None]), "b": torch.from_numpy(film()[None])}
    chain = Compose([RemoveBordersd(("a", "b")), Flipd(("a", "b"), spatial_axis=0)], lazy=lazy)
    out = chain(data)
    assert out["a"].shape == out["b"].shape == (1, 96, 80)
    np.testing.assert_array_equal(chain.inverse(out)["a"].numpy(), data["a"].numpy())


def test_refuses_a_mask_of_another_size():
    data = {"image": torch.zeros(1, 20, 20), "label": torch.zeros(1, 20, 21)}
    with pytest.raises(ValueError, match="'label' of shape.*must have the height and width of 'image'"):
        RemoveBordersd(("image", "label"), source_key="image")(data)
    with pytest.raises(ValueError, match=r"img must be \[C, H, W\]"):
        RemoveBorders()(torch.zeros(4, 4))


def test_real_lungs_are_not_cropped(shared_data):
    folder = shared_data / "covid_ieee8023_cc"
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    columns = [name for name in rows[0] if name.startswith("mask_") and "lung" in name]
    looked_at = 0
    for row in rows:
        box = find_content_box(np.asarray(Image.open(folder / row["image"]).convert("L")))
        for name in columns:
            if row[name]:
                mask = np.asarray(Image.open(folder / row[name])) > 0
                inside = mask[box[0] : box[0] + box[2], box[1] : box[1] + box[3]]
                # one annotator's outline runs a few pixels into a black band
                assert inside.sum() > 0.995 * mask.sum(), row["image"]
                looked_at += 1
    assert looked_at > 50


def test_the_inside_of_real_films_is_never_cropped(shared_data):
    films = sorted((shared_data / "nih_cxr14_subset" / "images").glob("*.jpg"))[::10]
    for path in films:
        inner = np.asarray(Image.open(path))[102:-102, 102:-102]  # 60 % of 512 px: no border reaches so far
        assert find_content_box(inner) == (0, 0, *inner.shape), path.name


def test_a_crop_after_the_reader_leads_back_to_the_stored_grid(tmp_path):
    film = np.zeros((96, 120), np.uint8)
    film[16:80, 24:104] = np.random.default_rng(0).integers(60, 200, (64, 80))
    Image.fromarray(film).save(tmp_path / "film.png")
    read = Compose([LoadRadiographd("image"), RemoveBordersd("image")])
    data = read({"image": str(tmp_path / "film.png")})
    loaded, mapped = data["image"], map_of(data)
    assert mapped.source_shape == (96, 120) and mapped.shape == tuple(loaded.shape[1:]) == (64, 80)
    np.testing.assert_array_equal(mapped.restore((loaded[0] * 255).round().numpy().astype(np.uint8)), film)
