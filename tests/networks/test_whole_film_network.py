"""Film model: its resizing against torch's own, and the whole against the steps that it stands for."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cxw_monai.io.pixel_map import PixelMap
from cxw_monai.networks import RadiographEmbedder, WholeFilmNetwork, radiograph_segmenter, radiograph_vit
from cxw_monai.networks.whole_film_network import resampling_weights
from cxw_monai.transforms.whole_film import WholeFilmd


@pytest.mark.parametrize(("source", "target"), [(300, 64), (65, 64), (64, 64), (20, 64), (1, 8), (8, 1), (2999, 160)])
@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
def test_resampling_is_that_of_torch(source, target, mode):
    # Two columns: torch 2.13 resizes a single one wrongly.
    values = torch.rand(1, 1, source, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = resampling_weights(values[0, 0, :, 0], torch.zeros(target), mode == "bicubic")
    expected = F.interpolate(values, (target, 2), mode=mode, antialias=True)
    torch.testing.assert_close(weights @ values[0, 0], expected[0, 0], atol=1e-12, rtol=0)
    torch.testing.assert_close(weights.sum(1), torch.ones(target, dtype=torch.float64))


def test_halving_by_hand():
    """Two pixels of 0.5 and two neighbours each: the triangle of half-width 2 about 1 and 3."""
    weights = resampling_weights(torch.zeros(4), torch.zeros(2), False)
    expected = torch.tensor([[0.75, 0.75, 0.25, 0.0], [0.0, 0.25, 0.75, 0.75]], dtype=torch.float64) / 1.75
    torch.testing.assert_close(weights, expected)


@pytest.mark.parametrize("shape", [(150, 90), (64, 96), (33, 40)])
def test_probabilities_are_those_of_the_steps(shape):
    torch.manual_seed(0)
    network = radiograph_segmenter("tiny", structures=["lungs", "heart"], image_size=(64, 96), base_channels=4).eval()
    film = torch.rand(1, *shape)
    with torch.no_grad():
        found = WholeFilmNetwork(network, (64, 96), dense=True).eval()(film[None])[0]
        image = WholeFilmd((64, 96))({"image": film.numpy()})["image"]
        probabilities = network(image[None]).sigmoid()[0]
    restored = PixelMap.identity(shape).resize(64, 96).restore(probabilities.numpy(), "linear")
    assert found.shape == (2, *shape)
    np.testing.assert_allclose(found.numpy(), restored, atol=1e-5)


def test_a_batch_gives_each_films_own_embedding():
    torch.manual_seed(0)
    network = RadiographEmbedder(radiograph_vit("tiny", image_size=64)).eval()
    model = WholeFilmNetwork(network, (64, 64), dense=False).eval()
    films = torch.rand(3, 1, 100, 70)
    with torch.no_grad():
        together = model(films)
        alone = torch.cat([model(film[None]) for film in films])
        image = WholeFilmd(64)({"image": films[1].numpy()})["image"]
        torch.testing.assert_close(together[1], network(image[None])[0], atol=1e-5, rtol=1e-4)
    assert together.shape == (3, 192)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    assert (together[0] - together[1]).abs().max() > 1e-3
    assert not {name for name in model.state_dict() if not name.startswith("network.")}
