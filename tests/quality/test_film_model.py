"""The model's algebra by hand, and what it says of real films."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from benchmarks.quality.fitting import save_model
from benchmarks.quality.other_films import drawn
from cxw_monai.io import read_radiograph
from cxw_monai.quality.film_model import SIDE, FilmModel, default_model, thumbnail, turned, way
from cxw_monai.quality.measure import measure_array
from cxw_monai.quality.records import QualitySettings


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((128, 128), dtype=np.float32)


def treat(image: np.ndarray, index: int) -> np.ndarray:
    invert, mirror, quarters = way(index)
    image = 1 - image if invert else image
    return np.ascontiguousarray(np.rot90(image[:, ::-1] if mirror else image, quarters))


def test_the_sixteen_ways_are_different():
    assert len({way(index) for index in range(16)}) == 16 and way(0) == (False, False, 0)


@pytest.mark.parametrize("index", range(16))
def test_the_thumbnail_of_a_treated_film_is_the_treated_thumbnail(index):
    image = picture()
    np.testing.assert_allclose(turned(thumbnail(image))[index], thumbnail(treat(image, index)), atol=1e-4)


@pytest.mark.parametrize("index", range(16))
def test_the_treatment_that_puts_a_film_right_is_named(index):
    """A model without convolutions whose weights are one film's own thumbnail knows that film in every position."""
    image = picture()
    own = thumbnail(image)
    model = FilmModel((), own[None] * (20 / own.size), -5.0, {})
    scores = model.scores(thumbnail(treat(image, index)))
    invert, mirror, quarters = scores.treatment(scores.mirrored > 0)
    again = treat(treat(image, index), 8 * invert + 4 * mirror + quarters)
    np.testing.assert_allclose(again, image, atol=1e-6)
    spoilt = way(index)
    assert (scores.inverted > 0, scores.mirrored > 0, scores.rotated > 0) == (*spoilt[:2], spoilt[2] != 0)


def test_unlike_are_the_odds_that_no_way_makes_a_chest_of_it():
    """A model that gives every picture log odds of b: 16 ways of odds e^b against none."""
    model = FilmModel((), np.zeros((1, SIDE, SIDE), dtype=np.float32), 0.3, {})
    assert model.scores(thumbnail(picture())).unlike == pytest.approx(-(0.3 + np.log(16)))


def test_convolutions_are_those_of_torch():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(3, 1, 5, 5)), rng.normal(size=(4, 3, 3, 3))
    biases, last = (rng.normal(size=3), rng.normal(size=4)), rng.normal(size=(4, 12, 12))
    values = rng.normal(size=(2, SIDE, SIDE))
    maps = torch.from_numpy(values)[:, None]
    for weights, bias in zip((first, second), biases, strict=True):
        maps = F.conv2d(
            maps, torch.from_numpy(weights), torch.from_numpy(bias), stride=2, padding=weights.shape[2] // 2
        ).relu()
    expected = (maps * torch.from_numpy(last)).sum((1, 2, 3)) + 0.7
    model = FilmModel(list(zip((first, second), biases, strict=True)), last, 0.7, {})
    np.testing.assert_allclose(model.logits(values), expected.numpy())


def test_the_file_is_small_and_comes_back(tmp_path):
    model = default_model()
    save_model(model, tmp_path / "model.npz")
    assert (tmp_path / "model.npz").stat().st_size < 120_000
    again = FilmModel.load(tmp_path / "model.npz")
    np.testing.assert_array_equal(again.weights, model.weights)
    for one, other in zip(again.layers, model.layers, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])
    assert again.thresholds == model.thresholds
    assert set(model.thresholds) == {"inverted", "rotated", "mirrored", "unlike"}


def test_what_is_no_chest_is_called_so_and_neither_inverted_nor_turned():
    """Limbs, hands, skulls, teeth, text, patterns and noise, as they are drawn for the fit but of other seeds."""
    settings, taken = QualitySettings(), []
    for seed in range(60):
        flags = measure_array(drawn(np.random.default_rng([99, seed])), settings).flags
        taken.append("not_frontal_chest" in flags or "low_contrast" in flags)
        assert not (taken[-1] and {"inverted", "rotated", "mirrored"} & set(flags))
    assert sum(taken) >= 57


def test_real_films_that_are_no_frontal_chests(shared_data):
    """A panoramic film, a breast, a shoulder, a dog on its side, a test pattern: none is told to be turned over."""
    for name in (
        "CR-ModalitySequenceLUT",
        "GH133_mg_voilut",
        "KarstenHilbertRF",
        "dx_canine_thorax",
        "smpte_vlut_04",
    ):
        film = read_radiograph(shared_data / "dicom" / "images" / f"{name}.dcm", min_size=1)
        assert "not_frontal_chest" in measure_array(film.array[0], QualitySettings()).flags, name


def test_real_films_of_other_hospitals(shared_data):
    """42 films that the model never saw: bounds well inside what was measured."""
    folder, settings = shared_data / "covid_ieee8023_cc", QualitySettings()
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as stream:
        paths = [folder / row["image"] for row in csv.DictReader(stream)]
    films = [np.asarray(Image.open(path).convert("L"), dtype=np.float32) / 255 for path in paths]
    untouched = [measure_array(film, settings).flags for film in films]
    assert sum(bool({"inverted", "rotated", "not_frontal_chest"} & set(flags)) for flags in untouched) <= 2
    for check, index in (("inverted", 8), ("rotated", 1), ("rotated", 2), ("rotated", 3)):
        found = sum(check in measure_array(treat(film, index), settings).flags for film in films)
        assert found >= 0.85 * len(films), (check, index)
    mirrored = [[measure_array(one, settings).mirrored for one in (film, film[:, ::-1])] for film in films]
    sides = [as_it_is < turned_over for as_it_is, turned_over in mirrored]
    assert sum(sides) >= 0.9 * len(films)


def test_a_tilt_is_upright_up_to_ten_degrees_and_not_from_thirty(shared_data):
    """42 films of other hospitals, turned about their middle; outside them it is black."""
    folder, settings = shared_data / "covid_ieee8023_cc", QualitySettings()
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as stream:
        pictures = [Image.open(folder / row["image"]).convert("L") for row in csv.DictReader(stream)]

    def flagged(angle: int) -> int:
        films = [np.asarray(one.rotate(angle, Image.Resampling.BILINEAR), dtype=np.float32) / 255 for one in pictures]
        found = [measure_array(film, settings).flags for film in films]
        return sum(bool({"inverted", "rotated", "not_frontal_chest"} & set(flags)) for flags in found)

    assert max(flagged(10), flagged(-10)) <= 4
    assert min(flagged(45), flagged(-45)) >= 40


def test_photographs_are_no_chests():
    """Kinds of pictures that the model wasn't fitted on."""
    data = pytest.importorskip("skimage").data
    for name in ("astronaut", "camera", "cat", "coffee", "coins", "moon", "page", "rocket"):
        image = np.asarray(Image.fromarray(getattr(data, name)()).convert("L"), dtype=np.float32) / 255
        assert "not_frontal_chest" in measure_array(image, QualitySettings()).flags, name
