"""Surprise of worlds whose answer is known, and what it is compared with."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from cxw_monai.metrics.world.films import WorldFilms
from cxw_monai.metrics.world.surprise import (
    FAULTS,
    _hidden_parts,
    grey_statistics,
    prediction_errors,
    surprise_maps,
    surprise_scores,
    usual_of,
)

from .conftest import films_of


class GreyWorld:
    """Targets are mean grey values of the patches; a hidden one is predicted as the mean of those in sight."""

    grid, size, predicts = (4, 4), (32, 32), frozenset({"local"})

    def tokens(self, images):
        return F.avg_pool2d(images, 8).flatten(1)[..., None]

    targets = tokens

    def predict(self, images, visible=None, wanted=None, **others):
        assert not set(visible[0].tolist()) & set(wanted[0].tolist())
        seen = self.tokens(images)[:, visible[0]].mean(dim=1, keepdim=True)
        return seen.expand(-1, wanted.shape[1], -1)


class Oracle(GreyWorld):
    def predict(self, images, wanted=None, **others):
        return self.tokens(images)[:, wanted[0]]


class EncoderAlone(GreyWorld):
    predicts = frozenset()


def values_of(scores, test, condition):
    found = [s for s in scores if (s.test, s.condition) == (test, condition) and np.isfinite(s.values).any()]
    return {s.measure: float(np.nanmean(s.values)) for s in found}


def test_all_tokens_are_hidden_equally_often_and_by_the_seed():
    count = torch.zeros(10)
    for seen, hidden in _hidden_parts(10, seed=3):
        assert sorted([*seen[0].tolist(), *hidden[0].tolist()]) == list(range(10))
        count[hidden[0]] += 1
    assert count.tolist() == [6] * 10
    first, again, other = ([seen.tolist() for seen, _ in _hidden_parts(10, seed)] for seed in (3, 3, 4))
    assert first == again != other


def test_errors_by_hand():
    """One bright patch in a black film: 1 where it is hidden, and (1 / 4)^2 elsewhere where it is in sight (twice)."""
    image = torch.zeros(1, 1, 32, 32)
    image[..., :8, :8] = 1
    errors = prediction_errors(GreyWorld(), image)[0].exp()
    assert errors[0] == pytest.approx(1.0)
    seen_with = {t: sum(0 in seen[0] and t in hidden[0] for seen, hidden in _hidden_parts(16, 0)) for t in range(1, 16)}
    for token, times in seen_with.items():
        assert errors[token] == pytest.approx(max(times / 16 / 6, 1e-12), rel=1e-3)
    assert prediction_errors(Oracle(), image).exp().max() < 1e-9
    with pytest.raises(ValueError, match="objective local"):
        prediction_errors(EncoderAlone(), image)


def test_what_is_usual_by_hand():
    values = torch.tensor([0.0, 2.0] * 4).view(8, 1).repeat(1, 2)  # mean 1, standard deviation sqrt(8 / 7)
    usual = usual_of(values)
    assert usual.mean.tolist() == [1, 1] and usual.spread[0] == pytest.approx((8 / 7) ** 0.5)
    maps = surprise_maps(torch.tensor([[3.0, 1.0]]), usual)
    assert maps[0].tolist() == pytest.approx([2 / (8 / 7) ** 0.5, 0])
    # a 0 against three other 0s and four 2s: mean 8 / 7, variance (16 - 64 / 7) / 6 = 8 / 7
    assert usual.scores[0] == pytest.approx(-((8 / 7) ** 0.5), rel=1e-3)
    assert usual.share_below(torch.tensor([-9.0, 9.0])).tolist() == [0, 1]
    with pytest.raises(ValueError, match="at least 8 reference films, got 7"):
        usual_of(values[:7])


def test_several_values_count_alike_whatever_their_scale():
    values = torch.randn(50, 3, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 100.0])
    usual = usual_of(values)
    one, other = (surprise_maps(usual.mean[None] + 3 * usual.spread * axis, usual) for axis in torch.eye(2))
    torch.testing.assert_close(one, other)
    assert one[0, 0] == pytest.approx(3 / 2**0.5 - 1, rel=1e-4)


def test_grey_statistics_by_hand():
    image = torch.zeros(1, 1, 16, 16)
    image[..., :8, 4:8] = 1  # the left half of the upper left patch is black, the right half white
    found = grey_statistics(image, (2, 2))[0]
    assert found[0].tolist() == pytest.approx([0.5, 0.5, (8 + 8 + 4) / 64])  # edges at columns 4 and 8, and row 8
    assert found[3].tolist() == [0, 0, 0]


def gradual_films(count=24):
    """Films that get brighter downwards and to the right, each with a little noise."""
    rows, columns = np.mgrid[0:64, 0:64] / 64
    noise = np.random.default_rng(0).normal(0, 0.01, (count, 64, 64))
    return films_of(np.clip(0.1 + 0.5 * rows + 0.25 * columns + noise, 0, 1))


@pytest.mark.parametrize("world", [GreyWorld(), EncoderAlone()])
def test_faults_are_surprising_and_no_fault_is_not(world, monkeypatch):
    monkeypatch.setitem(FAULTS, "none", lambda images: images)
    scores = surprise_scores(world, gradual_films())
    wanted = {"tokens, no prediction", "grey statistics"} | ({"predicted"} if world.predicts else set())
    assert {s.condition for s in scores} == wanted
    for condition in wanted - {"predicted"}:
        found = values_of(scores, "surprise, film", condition)
        assert found["AUROC, none"] == pytest.approx(0.5, abs=0.06)
        assert min(found[f"AUROC, {fault}"] for fault in ("upside down", "mirrored", "inverted")) > 0.95
    if world.predicts:
        found = values_of(scores, "surprise, film", "predicted")
        assert found["AUROC, none"] == pytest.approx(0.5, abs=0.06)
        assert found["AUROC, shifted collimation"] > 0.95


@pytest.fixture
def sick_films(tmp_path):
    """Every other film has a spot, and a mask of it; one spot is larger than the other."""
    films = gradual_films(40)
    pixels, rows = films.pixels.clone(), [dict(row) for row in films.rows]
    for n in range(0, 40, 2):
        side = 8 if n % 4 else 24
        mask = np.zeros((64, 64), np.uint8)
        mask[32 : 32 + side, 16 : 16 + side] = 255
        pixels[n, 0][torch.from_numpy(mask) > 0] = 0
        Image.fromarray(mask).save(tmp_path / f"{n}.png")
        rows[n]["finding_mask_Nodule"] = str(tmp_path / f"{n}.png")
    return WorldFilms(rows, films.patients, pixels, films.shapes, films.spacing_mm, [])


def test_a_spot_is_found_by_its_pixels_and_the_other_film_is_a_control(sick_films):
    scores = surprise_scores(EncoderAlone(), sick_films)
    for condition in ("tokens, no prediction", "grey statistics"):
        found = values_of(scores, "surprise, finding", condition)
        assert found["pixel AUROC"] > 0.9
        assert found["pixel AUROC, Nodule"] == pytest.approx(found["pixel AUROC"])
        small = "pixel AUROC, findings below 2% of the film"
        large = "pixel AUROC, findings above 6% of the film"
        assert found[small] > 0.9 and found[large] > 0.9 and found[small] != found[large]
    (first,) = [s for s in scores if (s.measure, s.condition) == ("pixel AUROC", "grey statistics")]
    assert np.isfinite(first.values[::2]).all() and np.isnan(first.values[1::2]).all()


def test_without_masks_or_films_without_findings_nothing_is_said_of_findings(sick_films):
    tests = {s.test for s in surprise_scores(EncoderAlone(), gradual_films())}
    assert tests == {"surprise, film"}
    only = WorldFilms(sick_films.rows[::2], np.arange(20), sick_films.pixels[::2], [(64, 64)] * 20, [None] * 20, [])
    assert {s.test for s in surprise_scores(EncoderAlone(), only)} == {"surprise, film"}
