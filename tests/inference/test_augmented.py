"""Test-time augmentation: views that are undone, sides that change places, and a mean that is computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.inferers import SimpleInferer
from torch import nn

from cxw_monai.inference.augmented import VIEWS, AugmentedInferer, FilmView
from cxw_monai.inference.predictor import Predictor, film_inferer
from cxw_monai.transforms.warp import mirrored_order

SIDES = ("lung_left", "lung_right", "heart")


class Bright(nn.Module):
    """Logit 4 where a film is bright, else -4: lung_left at image right, lung_right at image left, the heart both."""

    def forward(self, film: torch.Tensor) -> torch.Tensor:
        bright = torch.where(film[:, 0] > 0.5, 4.0, -4.0)
        middle = film.shape[-1] // 2
        left, right = bright.clone(), bright.clone()
        left[..., :middle], right[..., middle:] = -4.0, -4.0
        return torch.stack([left, right, bright], dim=1)


def smooth(shape=(48, 64)) -> torch.Tensor:
    """One film `[1, 1, H, W]`: a bright disc at image right, a smaller one at image left."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    discs = [((rows - 24) ** 2 + (columns - at) ** 2 < radius**2) for at, radius in ((46, 12), (16, 8))]
    return torch.from_numpy(np.logical_or(*discs).astype(np.float32))[None, None]


@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_a_view_undone_is_the_film_again(view):
    film = smooth()
    back = view.undo(view.apply(film), [0])
    assert back.shape == film.shape
    assert ((back > 0.5) == (film > 0.5)).float().mean() > 0.98  # the discs' edges move by less than a pixel
    assert view.apply(film).amin() >= 0
    assert view.apply(film).amax() <= 1


def test_nearer_is_larger_and_further_is_smaller():
    film = smooth()
    areas = [float((FilmView(zoom).apply(film) > 0.5).sum() / film.sum()) for zoom in (1.1, 0.93)]
    assert areas == pytest.approx([1.1**2, 0.93**2], abs=0.06)


def test_a_mirrored_film_gives_the_same_structures_on_the_same_sides():
    film = smooth()
    plain = torch.sigmoid(Bright()(film))
    mirrored = FilmView(mirrored=True)
    found = mirrored.undo(torch.sigmoid(Bright()(mirrored.apply(film))), mirrored_order(SIDES))
    torch.testing.assert_close(found, plain)
    assert (plain[0, 0] > 0.5).sum() > (plain[0, 1] > 0.5).sum() > 0  # the discs differ, so sides would be noticed


def test_the_answer_is_the_logit_of_the_mean_probability():
    """A network that knows no mirrored film: the mean of .9 and .2 is .55."""

    def network(film: torch.Tensor) -> torch.Tensor:
        known = film[..., 0, -1] > 0.5  # [B, 1], bright upper right corner
        return torch.logit(torch.where(known, 0.9, 0.2))[..., None, None].expand(-1, 1, *film.shape[2:])

    film = torch.zeros(1, 1, 4, 6)
    film[..., 0, -1] = 1
    inferer = AugmentedInferer(SimpleInferer(), ["heart"], [FilmView(), FilmView(mirrored=True)])
    torch.testing.assert_close(torch.sigmoid(inferer(film, network)), torch.full((1, 1, 4, 6), 0.55))


def test_what_a_view_does_not_show_is_the_mean_of_the_others():
    """A structure at the film's very edge isn't thinned by the nearer view, which doesn't show it."""

    def network(film: torch.Tensor) -> torch.Tensor:
        return torch.full_like(film, 2.0)

    found = AugmentedInferer(SimpleInferer(), ["heart"])(torch.zeros(1, 1, 32, 32), network)
    torch.testing.assert_close(found, torch.full_like(found, 2.0))


def test_predictor_and_bundle_average_alike():
    film = smooth()[0].numpy()
    plain = Predictor(Bright(), (48, 64), structures=SIDES)
    averaged = plain.augmented()
    bundle = Predictor(Bright(), (48, 64), structures=SIDES, inferer=film_inferer(None, 16, SIDES))
    found = averaged.probabilities(film)
    np.testing.assert_array_equal(found, bundle.probabilities(film))
    assert ((found >= 0.5) == (plain.probabilities(film) >= 0.5)).mean() > 0.98
    assert not np.array_equal(found, plain.probabilities(film))  # edges are means now
    assert isinstance(plain.inferer, SimpleInferer)  # the predictor itself is as it was


def test_a_side_without_its_counterpart_is_refused():
    with pytest.raises(ValueError, match=r"turns clavicle_left into the other side's.*augmented to false"):
        film_inferer(None, 16, ["clavicle_left", "heart"])
