import pytest

from cxw_monai.training.batch_plan import BatchPlan


def test_nothing_is_scaled_unless_asked_for():
    plan = BatchPlan(64, world_size=4, accumulation_steps=2, base_lr=2e-4)
    assert (plan.images, plan.lr) == (512, 2e-4)


@pytest.mark.parametrize(("world", "accumulated"), [(1, 32), (2, 16), (8, 4), (32, 1)])
def test_a_run_keeps_its_batch_and_rate_on_other_machines(world, accumulated):
    plan = BatchPlan(64, world_size=world, global_batch_size=2048, base_lr=1e-4, lr_batch_size=256)
    assert (plan.images, plan.accumulation_steps) == (2048, accumulated)
    assert plan.lr == pytest.approx(8e-4)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"global_batch_size": 100, "world_size": 2}, "not a multiple of the 32 images"),
        ({"global_batch_size": 64, "accumulation_steps": 2}, "not both"),
        ({"world_size": 0}, "world_size must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_is_told(settings, said):
    with pytest.raises(ValueError, match=said):
        BatchPlan(16, **settings)
