"""Retrieval tests of predictors whose answer is known: oracles, constants, collapsed targets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cxw_monai.metrics.world import prediction
from cxw_monai.metrics.world.films import crops
from cxw_monai.metrics.world.prediction import domain_scores, layout_boxes, layout_scores, local_scores
from cxw_monai.metrics.world.scores import retrieval_scores, summary, true_places
from cxw_monai.transforms import perturb

GRID, SIZE = (4, 4), (32, 32)


class PatchWorld:
    """Tokens and targets are the grey values of the patches; predictions are a constant."""

    grid, size = GRID, SIZE
    predicts = frozenset({"local", "global", "domain"})

    def tokens(self, images):
        return F.unfold(images, 8, stride=8).transpose(1, 2)  # [B, 16, 64]

    def targets(self, images):
        return self.tokens(images)

    def predict(self, images, action=None, rel=None, visible=None, wanted=None):
        return torch.full((len(images), 16 if wanted is None else wanted.shape[1], 64), 0.5)


class Collapsed(PatchWorld):
    def targets(self, images):
        return torch.ones(len(images), 16, 64)


class Favourite(PatchWorld):
    """Predicts the second of the film's candidates, whatever it is given."""

    def targets(self, images):
        found = super().targets(images)
        self.kept = found[1] if len(images) >= 24 else self.kept
        return found

    def predict(self, images, *others, **more):
        return self.kept.expand(len(images), -1, -1)


class DomainOracle(PatchWorld):
    """Tries the given action on each candidate, and predicts the one that becomes what it sees; else a constant."""

    def targets(self, images):
        self.shown = images if len(images) == prediction.CANDIDATES else self.shown
        return super().targets(images)

    def predict(self, images, action=None, **others):
        predicted = super().predict(images)
        for place, image in enumerate(images if action is not None else ()):
            made = perturb(self.shown, action[place].expand(len(self.shown), -1))
            gap = (made - image).abs().amax(dim=(1, 2, 3))
            if gap.min() < 1e-5:
                predicted[place] = self.tokens(self.shown[gap.argmin()][None])[0]
        return predicted


class LayoutOracle(PatchWorld):
    """Knows all films by their crops, and predicts the crop that lies where it is asked to, if it overlaps enough."""

    least_overlap = 0.0

    def __init__(self, films):
        boxes = np.array([(b.top, b.left, b.height, b.width) for b in layout_boxes(*films.pixels.shape[2:])]) / 64
        self.corners, self.side = boxes[:, :2], boxes[0, 2]
        self.crops = [crops(films.pixels[[n] * 25], boxes, SIZE) for n in range(len(films))]
        self.known = {
            view.numpy().tobytes(): (n, k) for n, views in enumerate(self.crops) for k, view in enumerate(views)
        }

    def predict(self, images, action=None, rel=None, **others):
        found = []
        for image, where in zip(images, rel, strict=True):
            film, place = self.known[image.numpy().tobytes()]
            corner = self.corners[place] + self.side * where[:2].numpy()
            target = self.crops[film][int(np.linalg.norm(self.corners - corner, axis=1).argmin())]
            shared = float(np.clip(1 - where[:2].abs().numpy(), 0, None).prod())
            found.append(target if shared >= self.least_overlap else torch.full_like(target, 0.5))
        return self.tokens(torch.stack(found))


class LocalOracle(PatchWorld):
    def predict(self, images, action=None, rel=None, visible=None, wanted=None):
        assert not set(visible[0].tolist()) & set(wanted[0].tolist())
        return self.tokens(images)[:, wanted[0]]


def means(scores, measure="recall@1"):
    return {(s.test, s.condition): float(np.nanmean(s.values)) for s in scores if s.measure == measure}


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(prediction, "MOST_FILMS", 6)


def test_recall_by_hand_with_ties_shared():
    nearer, equal = true_places(np.array([[0.1, 0.2, 0.3], [0.5, 0.5, 0.5]]), np.array([1, 0]))
    assert nearer.tolist() == [1, 0] and equal.tolist() == [1, 3]
    first, second, reciprocal = retrieval_scores("t", "c", nearer[None], equal[None], 3, recalls=(1, 2, 3))
    assert first.values[0] == pytest.approx((0 + 1 / 3) / 2) and first.chance == pytest.approx(1 / 3)
    assert second.values[0] == pytest.approx((1 + 2 / 3) / 2)
    assert reciprocal.values[0] == pytest.approx((1 / 2 + (1 + 1 / 2 + 1 / 3) / 3) / 2)
    assert reciprocal.chance == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)


def test_an_oracle_of_exposures_needs_the_action(noise_films, few):
    scores = domain_scores(DomainOracle(), noise_films)
    assert summary(scores[0], noise_films.patients)["films"] == 6 < len(noise_films)
    found = means(scores)
    assert found["domain", "action given"] == 1.0
    assert found["domain", "action withheld"] < 0.2 and found["domain", "action shuffled"] < 0.2


def test_an_oracle_of_layout_needs_the_geometry(noise_films):
    scores = layout_scores(LayoutOracle(noise_films), noise_films)
    found = means(scores)
    assert found["layout", "geometry given"] == found["layout, other patients", "geometry given"] == 1.0
    assert found["layout", "geometry shuffled"] < 0.2
    assert means(scores, "mean reciprocal rank")["layout", "no geometry"] < 0.35
    assert found["layout, other patients", "context shuffled"] < 0.3
    bins = [score for score in scores if "overlap" in score.condition]
    assert len(bins) == 3 and all(np.nanmin(score.values) == 1.0 for score in bins)


def test_without_controls_the_geometry_is_given_alone(noise_films):
    scores = layout_scores(LayoutOracle(noise_films), noise_films, controls=False)
    assert means(scores)["layout", "geometry given"] == 1.0
    assert {s.test for s in scores} == {"layout"}
    assert not {"no geometry", "geometry shuffled"} & {s.condition for s in scores}


def test_the_recall_of_near_crops_is_under_their_overlap(noise_films):
    near = LayoutOracle(noise_films)
    near.least_overlap = 0.5
    found = means(layout_scores(near, noise_films))
    assert found["layout", "geometry given, overlap 0.5 to 1"] == 1.0
    assert found["layout", "geometry given, overlap 0.25 to 0.5"] < 0.3
    assert found["layout", "geometry given, overlap 0 to 0.25"] < 0.3


def test_an_oracle_of_blocks_needs_the_film(noise_films):
    found = means(local_scores(LocalOracle(), noise_films))
    for test in ("local, other patients", "local, other places"):
        assert found[test, "film given"] == 1.0
    assert found["local, other patients", "another film"] < 0.3
    assert found["local, other patients", "mean of the place"] < 0.4


def test_equal_candidates_score_exactly_chance(noise_films, few):
    for run in (domain_scores, layout_scores, local_scores):
        for score in run(Collapsed(), noise_films):
            assert np.nanmean(score.values) == pytest.approx(score.chance), score


def test_a_constant_prediction_scores_chance_whatever_it_is_told(noise_films):
    """The true candidate is drawn at random, so that none is favoured: within four standard errors, of each score."""
    for run in (domain_scores, layout_scores, local_scores):
        scores = [
            s for s in run(PatchWorld(), noise_films) if s.condition not in ("no prediction", "mean of the place")
        ]
        assert scores
        for score in scores:
            values = score.values[np.isfinite(score.values)]
            share = max(score.chance, values.std() ** 2)  # of one query a film the largest variance there is
            assert values.mean() == pytest.approx(score.chance, abs=4 * np.sqrt(share / len(values))), score


def test_the_place_of_a_candidate_says_nothing(noise_films):
    for run, test, condition in (
        (domain_scores, "domain", "action given"),
        (layout_scores, "layout", "geometry given"),
    ):
        found = means(run(Favourite(), noise_films))[test, condition]
        assert found == pytest.approx(1 / 64 if test == "domain" else 1 / 24, abs=0.03)


def test_a_seed_repeats_the_numbers(noise_films, few):
    first, again, other = (means(layout_scores(PatchWorld(), noise_films, seed)) for seed in (1, 1, 2))
    assert first == again != other
