"""The model's algebra by hand, and what it says of real films."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image

from cxw_monai.quality.film_model import CELLS, FilmModel, default_model, features, turned, way
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
def test_features_of_a_treated_film_are_treated_features(index):
    image = picture()
    np.testing.assert_allclose(turned(features(image))[index], features(treat(image, index)), atol=1e-4)


@pytest.mark.parametrize("index", range(16))
def test_the_treatment_that_puts_a_film_right_is_named(index):
    """A model whose weights are one film's own features knows that film in every position."""
    image = picture()
    own = features(image)
    model = FilmModel(own, own * 0, own[None] / np.linalg.norm(own), {})
    scores = model.scores(features(treat(image, index)))
    invert, mirror, quarters = scores.treatment(scores.mirrored > 0)
    again = treat(treat(image, index), 8 * invert + 4 * mirror + quarters)
    np.testing.assert_allclose(again, image, atol=1e-6)
    spoilt = way(index)
    assert (scores.inverted > 0, scores.mirrored > 0, scores.rotated > 0) == (*spoilt[:2], spoilt[2] != 0)
    assert scores.unlike == pytest.approx(0, abs=1e-5)
    assert model.unexplained(features(picture(1))) > 0.9


def test_the_file_is_small_and_comes_back(tmp_path):
    model = default_model()
    assert model.weights.shape == model.mean.shape == (2, CELLS, CELLS)
    model.save(tmp_path / "model.npz")
    assert (tmp_path / "model.npz").stat().st_size < 50_000
    again = FilmModel.load(tmp_path / "model.npz")
    np.testing.assert_array_equal(again.components, model.components)
    assert again.thresholds == model.thresholds
    assert set(model.thresholds) == {"inverted", "rotated", "mirrored", "unlike"}


def test_real_films_of_other_hospitals(shared_data):
    """42 films that the model never saw: bounds well inside what was measured."""
    folder, settings = shared_data / "covid_ieee8023_cc", QualitySettings()
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as stream:
        paths = [folder / row["image"] for row in csv.DictReader(stream)]
    films = [np.asarray(Image.open(path).convert("L"), dtype=np.float32) / 255 for path in paths]
    untouched = [measure_array(film, settings).flags for film in films]
    assert sum("inverted" in flags or "rotated" in flags for flags in untouched) <= 1
    for check, index in (("inverted", 8), ("rotated", 1), ("rotated", 2), ("rotated", 3)):
        found = sum(check in measure_array(treat(film, index), settings).flags for film in films)
        assert found >= 0.85 * len(films), (check, index)
