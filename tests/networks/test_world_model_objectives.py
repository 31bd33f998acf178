"""World model: the paper's ablation rows (Table 3), what each does not look at, and image sizes."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest
import torch

from cxw_monai.networks import WorldModel, WorldModelInputs
from tests.helpers.small_networks import random_inputs, world_model

ROWS = {
    "1 local": {"objectives": ("local",), "condition_on_action": False, "condition_on_geometry": False},
    "2 local+global": {"objectives": ("local", "global"), "condition_on_action": False},
    "3 local+domain": {"objectives": ("local", "domain"), "condition_on_geometry": False},
    "4 all": {},
    "5 all, naive sum": {"unified": False, "average_terms": False},
    "6 all, no action": {"condition_on_action": False},
    "7 all, no geometry": {"condition_on_geometry": False},
}
EXTRA_ROWS = {
    "global": {"objectives": ("global",)},
    "domain": {"objectives": ("domain",)},
    "global+domain": {"objectives": ("global", "domain")},
    "naive local+global": {"objectives": ("local", "global"), "unified": False},
}


@pytest.mark.parametrize("row", [*ROWS.values(), *EXTRA_ROWS.values()], ids=[*ROWS, *EXTRA_ROWS])
def test_every_row_of_the_ablation_trains(row):
    model = world_model(**row).train()
    target_before = [p.clone() for p in model.target_encoder.parameters()]
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
    losses = []
    for _ in range(8):
        optimiser.zero_grad()
        output = model(random_inputs())
        output.loss.backward()
        losses.append(output.loss.item())
        optimiser.step()
    assert all(math.isfinite(loss) for loss in losses)
    assert losses[-1] < losses[0]
    for name, parameter in model.named_parameters():
        if name.startswith("target_encoder.") or name.endswith("pos_embed"):
            assert not parameter.requires_grad and parameter.grad is None, name
        else:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
            if not name.endswith("attn.qkv.bias"):  # a third of it, the keys' bias, has no effect on a softmax
                assert parameter.grad.abs().max() > 0, name
    assert all(torch.equal(p, q) for p, q in zip(target_before, model.target_encoder.parameters(), strict=True))


@pytest.mark.parametrize("row, terms", [("1 local", {"intra"}), ("4 all", {"intra", "cross"})])
def test_names_of_unified_terms(row, terms):
    assert set(world_model(**ROWS[row])(random_inputs()).losses) == terms


def changed_loss(model: WorldModel, *names: str) -> bool:
    """Whether the loss moves when these fields do."""
    inputs, other = random_inputs(seed=1), random_inputs(seed=2)
    changed = inputs.replace(**{name: getattr(other, name) for name in names})
    assert all(not torch.equal(getattr(inputs, name), getattr(changed, name)) for name in names)
    return abs(model(inputs).loss.item() - model(changed).loss.item()) > 1e-6


ACTIONS = ("action1", "action2")
RELS = ("rel_12", "rel_21")
PERTURBED = ("perturbed1", "perturbed2")
MASKS = ("context1", "context2", "target1", "target2")
CROPS = ("local_crops",)


@pytest.mark.parametrize(
    "row, ignored",
    [
        ({}, ()),
        ({"condition_on_action": False}, ("action1", "action2")),
        ({"condition_on_geometry": False}, RELS),
        ({"objectives": ("local", "global")}, ACTIONS + PERTURBED),
        ({"objectives": ("local", "domain")}, RELS),
        ({"objectives": ("global", "domain")}, MASKS),
        ({"objectives": ("global", "domain"), "cross_targets": "masked"}, MASKS),
        ({"objectives": ("local",)}, ACTIONS + PERTURBED + RELS),
        ({"objectives": ("global",)}, ACTIONS + PERTURBED + MASKS),
        ({"objectives": ("domain",)}, RELS + MASKS),
        ({"objectives": ("local", "global", "domain"), "unified": False}, ()),
        ({"objectives": ("local", "global"), "unified": False}, ACTIONS + PERTURBED),
        ({"objectives": ("global", "domain"), "unified": False}, MASKS),
        ({"unified": False, "condition_on_action": False}, ACTIONS),
        ({"unified": False, "condition_on_geometry": False}, RELS),
        ({"objectives": ("pooled",), "pooled_regulariser_weight": 0.0}, ("view1", "view2", *ACTIONS, *RELS, *MASKS)),
        ({"objectives": ("local", "pooled"), "pooled_regulariser_weight": 0.0}, ACTIONS + RELS),
    ],
    ids=str,
)
def test_what_a_model_looks_at(row, ignored):
    model = world_model(**row).eval()
    if "pooled" not in model.settings.objectives:
        ignored = (*ignored, *CROPS)
    for field in fields(WorldModelInputs):
        assert changed_loss(model, field.name) == (field.name not in ignored), field.name


def test_naive_sum_is_the_sum_of_three_losses_each_on_its_own_views():
    x = random_inputs()
    output = world_model(unified=False, average_terms=False)(x)
    assert output.loss.item() == pytest.approx(sum(value.item() for value in output.losses.values()), rel=1e-6)
    for objective in ("local", "global", "domain"):
        alone = world_model(objectives=(objective,), unified=True)(x)
        if objective != "global":  # a single objective is the same thing, unified or not
            assert output.losses[objective].item() == pytest.approx(alone.losses["intra"].item(), rel=1e-5)
        else:
            assert output.losses["global"].item() == pytest.approx(alone.losses["cross"].item(), rel=1e-5)
    mean = world_model(unified=False, cross_weight=2.0)(x)
    local, cross, domain = (mean.losses[name].item() for name in ("local", "global", "domain"))
    assert mean.loss.item() == pytest.approx((local + 2 * cross + domain) / 4, rel=1e-6)


def test_without_masks_the_local_task_sees_and_predicts_everything():
    x = random_inputs().replace(context1=None, context2=None, target1=None, target2=None)
    assert world_model(objectives=("local",))(x).predictions["11"].shape == (2, 16, 24)


def test_masks_of_one_view_only_are_refused():
    with pytest.raises(ValueError, match="for one view only: give both or neither"):
        world_model()(random_inputs().replace(context2=None))


def test_other_image_sizes():
    generator = torch.Generator().manual_seed(0)
    changes = {name: torch.rand((2, 1, 24, 48), generator=generator) for name in ("view1", "view2", *PERTURBED)}
    output = world_model()(random_inputs().replace(**changes))
    assert output.predictions["21"].shape == (2, 18, 24)  # 3 rows, 6 columns
    assert output.predictions["11"].shape == (2, 5, 24)
    assert output.loss.isfinite()
