"""The objective `pooled`: one embedding for all crops of a film."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cxw_monai.losses.pooled import pooled_terms
from cxw_monai.losses.regularisers import sigreg
from cxw_monai.networks import WorldModelSettings
from tests.helpers.small_networks import random_inputs, world_model


def pooled_model(**settings):
    return world_model(**{"objectives": ("pooled",), "projector_dim": 8, **settings})


class TestTerms:
    def test_invariance_is_the_distance_from_the_mean_of_the_two_large_crops(self):
        embeddings = torch.tensor([[[1.0], [0.0]], [[3.0], [0.0]], [[5.0], [2.0]]])  # [V 3, B 2, P 1], centres 2 and 0
        invariance, _ = pooled_terms(embeddings)
        assert invariance.item() == pytest.approx((1 + 1 + 9 + 0 + 0 + 4) / 6)

    def test_the_regulariser_is_that_of_each_crop_over_the_films(self):
        embeddings = torch.randn(4, 10, 1)  # in one channel every direction is 1 or -1, which SIGReg holds alike
        _, spread = pooled_terms(embeddings)
        one = torch.ones(1, 1)
        assert spread.item() == pytest.approx(sum(sigreg(crop, one).item() for crop in embeddings) / 4, rel=1e-5)

    def test_gradients_flow_through_the_centres(self):
        embeddings = torch.tensor([[[0.0]], [[2.0]], [[4.0]]], requires_grad=True)
        pooled_terms(embeddings)[0].backward()
        # ((a - c)^2 + (b - c)^2 + (d - c)^2) / 3 with c = (a + b) / 2 = 1: for a, (2 (a - c) - 3 + ...) by hand
        assert embeddings.grad.flatten().tolist() == pytest.approx([(-2 - 3) / 3, (2 - 3) / 3, 6 / 3])


class TestModel:
    def test_alone_it_needs_neither_target_nor_predictor(self):
        model = pooled_model()
        for part in (model.target_encoder, model.predictor):
            part.forward = None
        output = model(random_inputs().replace(local_crops=torch.rand(2, 4, 1, 16, 16)))
        assert output.predictions["pooled"].shape == (12, 1, 8) and output.targets["pooled"].shape == (2, 1, 8)
        assert set(output.losses) == {"invariance", "pooled_regulariser"}

    def test_each_embedding_is_of_its_film_and_crop(self):
        model = pooled_model().eval()
        model.projector = nn.Identity()
        small = torch.rand(2, 4, 1, 16, 16)
        context = torch.rand(4, 5, 24)  # both views of two films
        found = model.projected(context, small)  # [2 + 4, 2, 24]
        torch.testing.assert_close(found[:2], context.mean(dim=1).view(2, 2, 24))
        for film in range(2):
            for crop in range(4):
                own = model.encoder(small[film, crop][None]).mean(dim=1)[0]
                torch.testing.assert_close(found[2 + crop, film], own, rtol=1e-4, atol=1e-5)

    def test_it_sees_the_perturbed_views_and_no_action_without_domain(self):
        model = pooled_model(objectives=("local", "pooled")).eval()
        inputs = random_inputs()
        seen = model(inputs).contexts[0]
        expected = torch.cat(
            [model.encoder(inputs.perturbed1, inputs.context1), model.encoder(inputs.perturbed2, inputs.context2)]
        )
        torch.testing.assert_close(seen, expected, rtol=1e-4, atol=1e-5)
        other = inputs.replace(action1=inputs.action1 + 1, action2=inputs.action2 + 1)
        assert model(inputs).losses["intra"].item() == model(other).losses["intra"].item()

    def test_the_loss_is_the_weighted_mean_of_its_terms(self):
        model = pooled_model(objectives=("local", "pooled"), pooled_weight=3.0, pooled_regulariser_weight=0.25)
        output = model(random_inputs())
        terms = {name: value.item() for name, value in output.losses.items()}
        pooled = 0.75 * terms["invariance"] + 0.25 * terms["pooled_regulariser"]
        assert output.loss.item() == pytest.approx((terms["intra"] + 3 * pooled) / 4, rel=1e-5)

    def test_films_with_one_embedding_cannot_be_made_alike_by_shrinking(self):
        model = pooled_model()
        values = torch.randn(12, 24)
        for scale in (1.0, 1e-2):
            embeddings = model.projector(values * scale)
            assert embeddings.std(dim=0, correction=0).tolist() == pytest.approx([1.0] * 8, rel=0.05)

    def test_without_it_a_model_has_no_projector(self):
        assert not [name for name in world_model().state_dict() if "projector" in name]

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"objectives": ("pooled",), "unified": False}, "unified"),
            ({"pooled_weight": 0.0}, "pooled_weight"),
            ({"pooled_regulariser_weight": 1.5}, "pooled_regulariser_weight"),
        ],
    )
    def test_bad_settings_are_refused(self, settings, message):
        with pytest.raises(ValueError, match=message):
            WorldModelSettings(**settings)
