import logging
import math
from types import SimpleNamespace

import pytest
import torch

from cxw_monai.metrics.world.spread import embedding_statistics
from cxw_monai.tasks.pretraining.monitors import CollapseWarning


def test_identical_embeddings_are_collapsed():
    found = embedding_statistics(torch.ones(50, 8) * torch.arange(1.0, 9.0))
    assert found["std"] == pytest.approx(0.0, abs=1e-6)
    assert found["cosine"] == pytest.approx(1.0)
    assert found["rank"] == pytest.approx(1.0, abs=1e-4)


def test_targets_that_depend_on_their_place_alone_warn():
    handler = CollapseWarning()
    assert handler(engine(1, target_image_std=0.3)) == []
    (warning,) = handler(engine(2, target_image_std=0.1))
    assert "target_image_std fell from 0.3 to 0.1" in warning


def test_orthogonal_embeddings_have_full_rank_and_no_cosine():
    found = embedding_statistics(torch.eye(6) * 3)
    assert found["rank"] == pytest.approx(6.0)
    assert found["cosine"] == pytest.approx(0.0, abs=1e-6)
    assert found["std"] == pytest.approx(math.sqrt(9 / 6))


def test_opposite_pair_by_hand():
    found = embedding_statistics(torch.tensor([[2.0, 0.0], [-2.0, 0.0]]))
    assert found["cosine"] == pytest.approx(-1.0)
    assert found["rank"] == pytest.approx(1.0)
    assert found["std"] == pytest.approx(math.sqrt(8) / 2)


def test_rank_of_two_singular_values_by_hand():
    found = embedding_statistics(torch.diag(torch.tensor([3.0, 1.0])))
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert found["rank"] == pytest.approx(math.exp(entropy), rel=1e-5)


def test_shape_before_the_last_axis_does_not_matter_and_many_are_thinned():
    tokens = torch.randn(40, 100, 16, generator=torch.Generator().manual_seed(0))
    assert embedding_statistics(tokens) == embedding_statistics(tokens.reshape(-1, 16))
    assert embedding_statistics(tokens, limit=500)["rank"] == pytest.approx(16, abs=0.5)


def test_one_embedding_is_refused():
    with pytest.raises(ValueError, match="at least two"):
        embedding_statistics(torch.ones(1, 4))


def engine(epoch, **metrics):
    return SimpleNamespace(state=SimpleNamespace(epoch=epoch, metrics=metrics))


def test_healthy_metrics_raise_no_warning():
    assert CollapseWarning()(engine(1, target_cosine=0.3, target_std=0.5, target_rank=40)) == []


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({"target_cosine": 0.99}, "cosine of targets is 0.990"),
        ({"prediction_std": 0.01}, "standard deviation of predictions is 0.0100"),
    ],
)
def test_collapsed_metrics_warn_once(metrics, said, caplog):
    handler = CollapseWarning()
    with caplog.at_level(logging.WARNING):
        (warning,) = handler(engine(3, **metrics))
    assert said in warning and warning in caplog.text
    assert handler(engine(4, **metrics)) == []


def test_a_fall_of_rank_warns():
    handler = CollapseWarning()
    assert handler(engine(1, target_rank=40.0)) == []
    (warning,) = handler(engine(2, target_rank=19.0))
    assert "target_rank fell from 40 to 19" in warning


def test_the_warm_up_counts_but_does_not_warn():
    handler = CollapseWarning(after=2)
    assert handler(engine(1, target_rank=40.0)) == []
    assert handler(engine(2, target_cosine=1.0)) == []
    (warning,) = handler(engine(3, target_rank=10.0))
    assert "fell from 40 to 10" in warning


def test_a_resumed_run_warns_of_a_fall_since_before_and_not_twice():
    before = CollapseWarning()
    before(engine(1, target_rank=40.0, target_cosine=0.99))
    after = CollapseWarning()
    after.load_state_dict(before.state_dict())
    (warning,) = after(engine(2, target_rank=19.0, target_cosine=0.99))
    assert "target_rank fell from 40 to 19" in warning
