"""Tests of encoders whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cxw_monai.metrics.world.correspondence import (
    MovedFilms,
    landmark_scores,
    match_errors,
    match_points,
    moved_films,
)
from cxw_monai.metrics.world.encoding import (
    composition_scores,
    localizability_scores,
    place_errors,
    position_scores,
    spread_scores,
)
from cxw_monai.metrics.world.films import WorldFilms, crops, read_world_films
from cxw_monai.metrics.world.ridge import folds_of, held_out_predictions
from cxw_monai.metrics.world.scores import WorldScore, summary

from .conftest import films_of


class GreyWorld:
    """Tokens are the mean grey values of the patches, on one channel."""

    grid, size, predicts = (4, 4), (32, 32), frozenset()

    def tokens(self, images):
        return F.avg_pool2d(images, 8).flatten(1)[..., None]


class ConstantWorld(GreyWorld):
    def tokens(self, images):
        return torch.ones(len(images), 16, 3)


def value(scores, measure, condition, test=None):
    (found,) = [s for s in scores if (s.measure, s.condition) == (measure, condition) and test in (None, s.test)]
    return float(np.nanmean(found.values))


@pytest.fixture(scope="module")
def ramps():
    """Films that get brighter from top to bottom."""
    ramp = np.broadcast_to(np.linspace(0, 1, 64)[:, None], (64, 64))
    return films_of(np.stack([ramp] * 12))


def test_a_token_that_tells_the_row_tells_nothing_of_the_column(ramps):
    scores = position_scores(GreyWorld(), ramps)
    assert value(scores, "R2 of the row", "token") > 0.99
    assert value(scores, "R2 of the column", "token") < 0.1
    assert value(scores, "AUROC of left or right", "token") == pytest.approx(0.5, abs=0.15)
    assert value(scores, "AUROC of left or right", "place in the crop alone") > 0.8
    assert value(position_scores(ConstantWorld(), ramps), "R2 of the row", "token") < 0.05


def test_a_place_is_read_off_where_it_is_to_be_seen(ramps, noise_films):
    def describe(images):
        return images.mean(dim=(1, 2, 3))[:, None].numpy()

    assert place_errors(describe, ramps, (32, 32)).mean() < 0.7 * place_errors(describe, noise_films, (32, 32)).mean()


def test_a_mean_is_the_mean_of_its_parts_and_a_constant_is_nothing(noise_films):
    for parts in ("2 parts and whole", "4 parts and whole"):
        scores = composition_scores(GreyWorld(), noise_films)
        assert value(scores, "centred cosine", "same film", parts) > 0.85
        assert abs(value(scores, "centred cosine", "another film", parts)) < 0.5
        scores = composition_scores(ConstantWorld(), noise_films)
        assert value(scores, "plain cosine", "same film", parts) == pytest.approx(1.0)  # why it is centred
        assert value(scores, "centred cosine", "same film", parts) == pytest.approx(0.0, abs=1e-6)
        assert value(scores, "same film is nearer", "same film", parts) == pytest.approx(0.5)


def test_places_that_differ_are_told_apart(noise_films):
    rows, columns = np.mgrid[:3, :3].repeat(22, axis=1).repeat(22, axis=2)[:, :64, :64]
    chart = films_of(np.stack([(3 * rows + columns) / 9 + 0.002 * n for n in range(8)]))
    told, not_told = (localizability_scores(GreyWorld(), films) for films in (chart, noise_films))
    for measure, least, most in (
        ("accuracy of the place", 0.7, 0.3),
        ("silhouette of the places", 0.4, 0.0),
        ("adjusted Rand index of nine clusters", 0.5, 0.1),
    ):
        assert value(told, measure, "embedding") > least, measure
        assert value(not_told, measure, "embedding") < most, measure


class PlaneWorld(GreyWorld):
    """Level and slopes of a film whose grey values are a plane: a crop's vector is linear in its place."""

    def tokens(self, images):
        places = torch.linspace(-0.5, 0.5, 32)
        moments = torch.stack([torch.ones(32, 32), places[:, None].expand(32, 32), places.expand(32, 32)])
        return 1e3 * torch.einsum("bhw,chw->bc", images[:, 0], moments)[:, None] / 1024


def test_a_vector_that_moves_straight_is_found_between_and_beyond():
    rng = np.random.default_rng(4)
    rows, columns = np.mgrid[:64, :64] / 64
    slopes = rng.uniform(-0.4, 0.4, (2, 24, 1, 1))
    planes = films_of(0.5 + slopes[0] * (rows - 0.5) + slopes[1] * (columns - 0.5))
    scores = composition_scores(PlaneWorld(), planes)
    for test in ("interpolation at 0.25", "interpolation at 0.75", "extrapolation by 0.25", "extrapolation by 0.75"):
        assert value(scores, "centred cosine", "same film", test) > 0.99, test
        assert value(scores, "same film is nearer", "same film", test) > 0.9, test
        assert abs(value(scores, "centred cosine", "another film", test)) < 0.5, test


def test_a_prediction_knows_nothing_of_the_patient_it_is_for():
    """Each patient has a number and a vector of its own, on two films: only a fit to the same patient could know."""
    rng, patients = np.random.default_rng(0), np.repeat(np.arange(20), 2)
    vectors, numbers = rng.standard_normal((20, 1, 30)), rng.standard_normal((20, 1, 1))
    values, wanted = vectors[patients].repeat(3, axis=1), numbers[patients].repeat(3, axis=1)
    predicted = held_out_predictions(values, wanted, patients)
    assert abs(np.corrcoef(predicted.ravel(), wanted.ravel())[0, 1]) < 0.4


def test_a_linear_map_is_found_on_other_patients():
    rng = np.random.default_rng(1)
    values = rng.standard_normal((20, 30, 5))
    wanted = values @ rng.standard_normal((5, 2)) + 4
    assert held_out_predictions(values, wanted, np.arange(20)) == pytest.approx(wanted, abs=0.15)


def test_too_few_patients_for_the_folds():
    with pytest.raises(ValueError, match="4 folds need films of at least 4 patients, got 3"):
        list(folds_of(np.array([0, 0, 1, 2])))


def test_spread_of_a_collapse(noise_films):
    scores = spread_scores(ConstantWorld(), noise_films)
    assert value(scores, "effective rank", "tokens") == pytest.approx(1.0)
    assert value(scores, "uniformity", "mean tokens") == pytest.approx(0.0, abs=1e-9)
    assert value(spread_scores(GreyWorld(), noise_films), "effective rank", "tokens") == pytest.approx(1.0)


def test_a_point_is_found_where_its_vector_went():
    tokens = torch.eye(16)[None]  # 4 x 4 places, each unlike the others
    moved = tokens.view(1, 4, 4, 16).roll((1, 2), (1, 2)).reshape(1, 16, 16)
    centre = torch.tensor([[[0.375, 0.125]]])  # row 1, column 0
    found = match_points(tokens, centre, moved, (4, 4))[0, 0]
    assert found.tolist() == pytest.approx([0.625, 0.625], abs=1 / 16)  # row 2, column 2


def test_landmark_errors_in_px_and_mm():
    """A network that knows places alone answers with the same place: the landmarks are 8 px apart."""

    class Places(GreyWorld):
        def tokens(self, images):
            rows, columns = torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij")
            return torch.stack([rows, columns], dim=-1).reshape(1, 16, 2).expand(len(images), -1, -1)

    rows = [{"image": f"{n}.png", "landmark_carina": [24 + 8 * (n % 2), 32]} for n in range(2)]
    films = films_of(np.zeros((2, 64, 64)), rows)
    films = WorldFilms(rows, films.patients, films.pixels, films.shapes, [(0.5, 0.5)] * 2, [])
    scores = landmark_scores(Places(), films)
    for unit, expected, within in (("px", 8, 2.1), ("mm", 4, 1.1)):
        name = f"error, {unit}"
        assert value(scores, name, "the same place of the image", "landmarks, whole film") == pytest.approx(expected)
        assert value(scores, name, "token", "landmarks, whole film") == pytest.approx(expected, abs=within)
    assert landmark_scores(Places(), films_of(np.zeros((2, 64, 64)))) == []


def test_a_point_is_found_through_the_place_of_the_crop():
    """Tokens that hold the place in the film, of the film and of its crop: the error is that of the fine grid."""
    films, boxes = films_of(np.zeros((2, 64, 64))), np.array([[0.1, 0.3, 0.6, 0.6], [0.2, 0.0, 0.8, 0.8]])
    points = boxes[:, None, :2] + np.array([[0.3, 0.4], [0.6, 0.7]]) * boxes[:, None, 2:]
    moved = MovedFilms(points, boxes, films.whole())
    steps = (torch.arange(4.0) + 0.5) / 4
    cells = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), dim=-1).reshape(16, 2)
    places = iter([cells.expand(2, -1, -1), torch.from_numpy(boxes[:, None, :2] + cells.numpy() * boxes[:, None, 2:])])
    errors = match_errors(lambda images: next(places).float(), films, moved, (4, 4))
    assert errors.max() < 0.04  # half a cell of 1/16 in each direction, times the crop's side


def test_a_moved_film_is_the_crop_that_it_says(noise_films):
    moved = moved_films(noise_films, (32, 32), seed=2)
    low, high = moved.boxes[:, None, :2], (moved.boxes[:, :2] + moved.boxes[:, 2:])[:, None]
    assert (moved.points > low).all() and (moved.points < high).all()
    there = crops(noise_films.pixels, moved.boxes, (32, 32)).flatten(1).numpy()
    whole = noise_films.whole().flatten(1).numpy()
    shown = moved.images.flatten(1).numpy()
    alike = [[np.corrcoef(a, b)[0, 1] for a, b in zip(shown, other, strict=True)] for other in (there, whole)]
    assert min(alike[0]) > 0.85 and np.median(alike[1]) < 0.8  # of another exposure, which keeps the order of greys
    assert np.abs(shown - there).max(axis=1).min() > 0.01


def test_films_without_landmarks_or_spacing_give_no_warnings(recwarn):
    rows = [{"image": f"{n}.png"} | ({"landmark_carina": [30, 30]} if n < 4 else {}) for n in range(6)]
    films = films_of(np.random.default_rng(0).uniform(size=(6, 64, 64)), rows)
    spacing = [None] * 4 + [(0.5, 0.5)] * 2  # known where no landmark is
    films = WorldFilms(rows, films.patients, films.pixels, films.shapes, spacing, [])
    scores = landmark_scores(GreyWorld(), films)
    assert {s.measure for s in scores} == {"error, px"} and all(np.isfinite(s.chance) for s in scores)
    assert not [str(w.message) for w in recwarn]


def test_a_number_of_all_films_has_no_interval(noise_films):
    (rank, *_) = spread_scores(GreyWorld(), noise_films)
    row = summary(rank, noise_films.patients)
    assert row["value"] == pytest.approx(1.0) and row["low"] is row["high"] is None
    row = summary(WorldScore("t", "m", "c", np.array([0.0, 1.0, np.nan])), np.arange(3))
    assert (row["value"], row["films"]) == (0.5, 2) and row["low"] < row["value"] < row["high"]


def test_films_are_shown_in_an_order_that_says_nothing():
    items = [{"image": f"{n}.png", "patient_id": None if n else "a"} for n in range(40)]
    films = read_world_films(items, (8, 8), seed=3, decoded=lambda n: np.full((1, 9, 9), n, np.uint8))
    order = films.pixels[:, 0, 0, 0].tolist()
    assert sorted(order) == list(range(40)) and abs(np.corrcoef(order, np.arange(40))[0, 1]) < 0.4
    assert [row["image"] for row in films.rows] == [f"{n}.png" for n in order]
    assert len(np.unique(films.patients)) == 40
