"""Tests of encoders whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cxw_monai.metrics.world.correspondence import landmark_scores, match_points
from cxw_monai.metrics.world.encoding import (
    composition_scores,
    localizability_scores,
    place_errors,
    position_scores,
    spread_scores,
)
from cxw_monai.metrics.world.films import WorldFilms, read_world_films

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
    told = value(localizability_scores(GreyWorld(), chart), "accuracy of the place", "embedding")
    not_told = value(localizability_scores(GreyWorld(), noise_films), "accuracy of the place", "embedding")
    assert told > 0.7 and not_told < 0.3


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


def test_films_are_shown_in_an_order_that_says_nothing():
    items = [{"image": f"{n}.png", "patient_id": None if n else "a"} for n in range(40)]
    films = read_world_films(items, (8, 8), seed=3, decoded=lambda n: np.full((1, 9, 9), n, np.uint8))
    order = films.pixels[:, 0, 0, 0].tolist()
    assert sorted(order) == list(range(40)) and abs(np.corrcoef(order, np.arange(40))[0, 1]) < 0.4
    assert [row["image"] for row in films.rows] == [f"{n}.png" for n in order]
    assert len(np.unique(films.patients)) == 40
