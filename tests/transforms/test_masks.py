"""Token masks: block sizes, disjointness, bias of the truncation, restoring, refusals."""

from __future__ import annotations

import pytest
import torch

from cxw_monai.transforms import TokenMasks, TokenMaskSampler

STRATEGIES = [
    {},
    {"truncation": "first"},
    {"num_targets": 1},
    {"grid": (14, 28)},
    {"grid": (32, 24), "truncation": "first"},
    {"grid": (8, 8)},
    {"grid": (10, 10)},
    {"strategy": "block"},
    {"strategy": "block", "grid": (16, 16), "target_scale": (0.3, 0.7)},
    {"strategy": "random"},
    {"strategy": "random", "grid": (7, 9), "mask_ratio": 0.75},
]


def tables(masks: TokenMasks, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Context and target as ``[B, tokens]`` bool."""
    blank = torch.zeros(len(masks.context), tokens, dtype=torch.bool)
    return blank.scatter(1, masks.context, True), blank.scatter(1, masks.target, True)


def frequency(sampler: TokenMaskSampler, batches: int, batch_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """How often each patch of the grid is context and target, ``[G_h, G_w]`` each."""
    totals = [torch.zeros(sampler.grid[0] * sampler.grid[1]) for _ in range(2)]
    for _ in range(batches):
        for total, table in zip(totals, tables(sampler.sample(batch_size), len(totals[0])), strict=True):
            total += table.sum(0)
    return tuple((total / (batches * batch_size)).reshape(sampler.grid) for total in totals)


@pytest.mark.parametrize("settings", STRATEGIES, ids=str)
def test_masks_are_sorted_disjoint_and_large_enough(settings):
    sampler = TokenMaskSampler(**settings)
    tokens = sampler.grid[0] * sampler.grid[1]
    for batch_size in [1, 2, 16, 128] * 5:
        masks = sampler.sample(batch_size)
        for indices in (masks.context, masks.target):
            assert indices.dtype == torch.int64
            assert indices.shape[0] == batch_size
            assert indices.min() >= 0 and indices.max() < tokens
            assert (indices.diff(dim=1) > 0).all()
        context, target = tables(masks, tokens)
        assert not (context & target).any()
        assert masks.context.shape[1] > 10
        assert masks.target.shape[1] >= 1
        assert sorted(masks.permutation.tolist()) == list(range(batch_size))
    assert sampler.step == 20


@pytest.mark.parametrize("settings", STRATEGIES, ids=str)
def test_numbers_of_tokens_come_in_multiples(settings):
    sampler = TokenMaskSampler(**settings, multiple=8)
    counts = set()
    for batch_size in [1, 4, 64] * 5:
        masks = sampler.sample(batch_size)
        for indices, least in ((masks.context, 11), (masks.target, 1)):
            count = indices.shape[1]
            assert count >= least and (count % 8 == 0 or count - count % 8 < least)
            counts.add(count)
        context, target = tables(masks, sampler.grid[0] * sampler.grid[1])
        assert not (context & target).any()
    assert any(count % 8 == 0 for count in counts)


@pytest.mark.parametrize("strategy", ["block", "random"])
def test_what_is_cut_to_a_multiple_is_drawn_at_random(strategy):
    """The first tokens of a mask aren't preferred where its strategy has no truncation of its own."""
    _, target = frequency(TokenMaskSampler((14, 14), strategy, multiple=32), 40, 64)
    middle = target[5:9, 5:9]
    assert float(target[:4].mean()) == pytest.approx(float(target[-4:].mean()), rel=0.1) and middle.min() > 0.3


def test_multiples_of_one_change_nothing():
    one, other = TokenMaskSampler(multiple=1).sample(8), TokenMaskSampler().sample(8)
    assert torch.equal(one.context, other.context) and torch.equal(one.target, other.target)


def test_block_sizes_are_those_of_the_specification():
    sampler = TokenMaskSampler()
    sizes = [sampler.block_sizes(step) for step in range(4000)]
    allowed = {(5, 5), (5, 6), (5, 7), (6, 4), (6, 5), (6, 6), (6, 7), (7, 4), (7, 5), (7, 6), (8, 5)}
    assert {target for target, _ in sizes} == allowed
    assert {context for _, context in sizes} == {(12, 12), (13, 13), (14, 14)}


def test_block_sizes_by_hand():
    # torch.rand of a generator seeded with 0: 0.4963, 0.7682, 0.0885, 0.1320
    # target: int(196 * 0.17481) = 34 tokens, aspect 0.75 * 2**0.7682 = 1.2774: 6.59 x 5.16
    # context: int(196 * 0.77211) = 151 tokens: 12.29 x 12.29
    assert TokenMaskSampler(seed=5).block_sizes(0) == ((7, 5), (12, 12))
    # 14 x 28: int(392 * 0.17481) = 68: 9.32 x 7.30; context int(392 * 0.77211) = 302 in the shape of the grid
    assert TokenMaskSampler((14, 28)).block_sizes(0) == ((9, 7), (12, 25))
    assert TokenMaskSampler(strategy="block", target_scale=(0.3, 0.3)).block_sizes(0) == ((9, 7), (14, 14))


def test_block_sizes_do_not_depend_on_the_sampler_s_state():
    sampler, fresh = TokenMaskSampler(seed=1), TokenMaskSampler(seed=2)
    sampler.sample(3)
    assert [sampler.block_sizes(step) for step in range(50)] == [fresh.block_sizes(step) for step in range(50)]


def test_a_single_sample_shows_its_blocks():
    sampler = TokenMaskSampler(num_targets=1, context_scale=(1.0, 1.0))
    for step in range(30):
        (height, width), context = sampler.block_sizes(step)
        assert context == (14, 14)
        masks = sampler.sample(4)
        rows, columns = masks.target // 14, masks.target % 14
        assert masks.target.shape == (4, height * width)
        assert ((rows.amax(1) - rows.amin(1)) == height - 1).all()
        assert ((columns.amax(1) - columns.amin(1)) == width - 1).all()
        assert masks.context.shape == (4, 196 - height * width)


def test_block_positions_are_uniform():
    sampler = TokenMaskSampler(num_targets=1, target_scale=(0.16, 0.16), target_aspect=(1.0, 1.0))  # always 6 x 6
    corners = torch.cat([sampler.sample(128).target[:, 0] for _ in range(60)])
    counts = torch.bincount(corners, minlength=196).reshape(14, 14)
    assert counts[9:].sum() == counts[:, 9:].sum() == 0
    expected = len(corners) / 81
    assert counts[:9, :9].min() > expected * 0.6
    assert counts[:9, :9].max() < expected * 1.45


def test_untruncated_counts():
    sampler = TokenMaskSampler()
    masks = [sampler.sample(1) for _ in range(2500)]
    assert sum(m.context.shape[1] for m in masks) / 2500 == pytest.approx(83.4, abs=1.7)
    assert sum(m.target.shape[1] for m in masks) / 2500 == pytest.approx(92.4, abs=1.7)


def test_counts_of_a_batch_of_128():
    sampler = TokenMaskSampler()
    masks = [sampler.sample(128) for _ in range(80)]
    assert sum(m.context.shape[1] for m in masks) / 80 == pytest.approx(53, abs=4)
    assert sum(m.target.shape[1] for m in masks) / 80 == pytest.approx(57, abs=3)


def test_first_truncation_starves_the_lower_rows():
    context, target = frequency(TokenMaskSampler(truncation="first"), 80, 128)
    known = [0.17, 0.30, 0.42, 0.52, 0.60, 0.61, 0.54, 0.42, 0.27, 0.14, 0.06, 0.02, 0.01, 0.00]
    torch.testing.assert_close(target.mean(1), torch.tensor(known), atol=0.03, rtol=0)
    assert target[:7].mean().item() == pytest.approx(0.451, abs=0.015)
    assert target[7:].mean().item() == pytest.approx(0.130, abs=0.015)
    neither = 1 - (context + target).mean(1)[10:]
    torch.testing.assert_close(neither, torch.tensor([0.75, 0.85, 0.94, 0.99]), atol=0.03, rtol=0)


def test_random_truncation_treats_all_rows_and_columns_alike():
    context, target = frequency(TokenMaskSampler(), 80, 128)
    assert target[:7].mean().item() == pytest.approx(0.288, abs=0.015)
    assert target[7:].mean().item() == pytest.approx(0.289, abs=0.015)
    for table in (context, target):
        torch.testing.assert_close(table.mean(1), table.mean(1).flip(0), atol=0.02, rtol=0)
        torch.testing.assert_close(table.mean(0), table.mean(0).flip(0), atol=0.02, rtol=0)
        assert table.mean(1).min() > 0.08


def test_truncation_keeps_a_part_of_the_blocks():
    """The same seed gives the same blocks: what "first" keeps are the lowest indices of a sample's set."""
    full = [TokenMaskSampler(seed=3, truncation=mode) for mode in ("first", "random")]
    first, random = (sampler.sample(64) for sampler in full)
    assert first.target.shape == random.target.shape
    assert (first.target[:, -1] <= random.target[:, -1]).all()
    assert (first.target[:, 0] <= random.target[:, 0]).all()
    assert not torch.equal(first.target, random.target)


def test_small_context_is_drawn_again_and_overlap_goes_to_the_context():
    """More context is asked for than four separate blocks leave, so that blocks have to be given up."""
    sampler = TokenMaskSampler((8, 8), min_keep=30, context_scale=(0.75, 0.75), truncation="first")
    for step in range(40):
        (height, width), context_size = sampler.block_sizes(step)
        assert context_size == (7, 7)
        masks = sampler.sample(32)
        context, target = tables(masks, 64)
        assert masks.context.shape[1] > 30
        assert masks.target.shape[1] >= height * width // 2
        assert not (context & target).any()


def test_random_strategy_is_uniform():
    sampler = TokenMaskSampler((6, 8), strategy="random", mask_ratio=0.25)
    context, target = frequency(sampler, 60, 128)
    masks = sampler.sample(3)
    assert masks.target.shape == (3, 12)
    assert masks.context.shape == (3, 36)
    torch.testing.assert_close(target, torch.full((6, 8), 0.25), atol=0.025, rtol=0)
    torch.testing.assert_close(context + target, torch.ones(6, 8))


def test_block_strategy_has_one_block_and_its_complement():
    sampler = TokenMaskSampler(strategy="block")
    for step in range(20):
        (height, width), _ = sampler.block_sizes(step)
        assert height * width == pytest.approx(117, abs=14)
        masks = sampler.sample(8)
        context, target = tables(masks, 196)
        assert (context ^ target).all()
        grid = target.reshape(8, 14, 14)
        assert (grid.any(2).sum(1) == height).all()
        assert (grid.any(1).sum(1) == width).all()
        assert (grid.sum((1, 2)) == height * width).all()


def test_samples_of_a_batch_differ_and_permutations_too():
    sampler = TokenMaskSampler()
    masks = [sampler.sample(64) for _ in range(4)]
    assert len({tuple(row) for row in masks[0].target.tolist()}) > 60
    assert len({tuple(m.permutation.tolist()) for m in masks}) == 4


@pytest.mark.parametrize("settings", STRATEGIES, ids=str)
def test_same_seed_same_masks_without_the_global_generator(settings):
    before = torch.get_rng_state()
    ours, theirs = TokenMaskSampler(**settings, seed=9), TokenMaskSampler(**settings, seed=9)
    other = TokenMaskSampler(**settings, seed=10)
    for _ in range(3):
        a, b, c = ours.sample(8), theirs.sample(8), other.sample(8)
        for field in ("context", "target", "permutation"):
            assert torch.equal(getattr(a, field), getattr(b, field))
        assert a.target.shape != c.target.shape or not torch.equal(a.target, c.target)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("settings", STRATEGIES, ids=str)
def test_restored_sampler_goes_on_with_the_same_numbers(settings, tmp_path):
    sampler = TokenMaskSampler(**settings)
    for _ in range(3):
        sampler.sample(16)
    torch.save(sampler.state_dict(), tmp_path / "sampler.pt")
    expected = [sampler.sample(16) for _ in range(3)]
    restored = TokenMaskSampler(**settings, seed=77)
    restored.load_state_dict(torch.load(tmp_path / "sampler.pt", weights_only=True))
    assert restored.step == 3
    for masks in expected:
        again = restored.sample(16)
        for field in ("context", "target", "permutation"):
            assert torch.equal(getattr(masks, field), getattr(again, field))


def test_saved_state_does_not_move_with_the_sampler():
    sampler = TokenMaskSampler()
    state = sampler.state_dict()
    expected = sampler.sample(4)
    sampler.load_state_dict(state)
    assert torch.equal(sampler.sample(4).target, expected.target)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"step": 1}, "state must have the keys"),
        ({"step": 1, "generator": torch.Generator().get_state(), "more": 0}, "state must have the keys"),
        ({"step": -1, "generator": torch.Generator().get_state()}, "step must be an int"),
        ({"step": 1.5, "generator": torch.Generator().get_state()}, "step must be an int"),
    ],
)
def test_refuses_states(state, message):
    with pytest.raises(ValueError, match=message):
        TokenMaskSampler().load_state_dict(state)


@pytest.mark.parametrize(
    ("grid", "works"), [((4, 4), False), ((5, 5), False), ((6, 6), True), ((8, 8), True), ((10, 10), True)]
)
def test_default_settings_on_small_grids(grid, works):
    """5 x 5: a context of 4 x 4 minus a target of 2 x 3 leaves 10 tokens, not more than 10."""
    if works:
        sampler = TokenMaskSampler(grid)
        assert min(sampler.sample(256).context.shape[1] for _ in range(60)) > 10
    else:
        with pytest.raises(ValueError, match=r"can leave \d+ context tokens on grid .*min_keep=10.*larger grid"):
            TokenMaskSampler(grid)
        assert TokenMaskSampler(grid, min_keep=2).sample(8).context.shape[1] > 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"multiple": 0}, "multiple must be at least 1, got 0"),
        ({"strategy": "stripes"}, "strategy must be one of"),
        ({"grid": (0, 14)}, "grid must be two positive"),
        ({"grid": (14, 14, 14)}, "grid must be two positive"),
        ({"min_keep": -1}, "min_keep must be at least 0"),
        ({"num_targets": 0}, "num_targets must be at least 1"),
        ({"target_scale": (0.2, 0.15)}, "target_scale must be"),
        ({"target_scale": (0.0, 0.15)}, "target_scale must be"),
        ({"context_scale": (0.75, 1.2)}, "context_scale must be"),
        ({"target_aspect": (0.0, 1.0)}, "target_aspect must be"),
        ({"truncation": "last"}, "truncation must be one of"),
        ({"strategy": "random", "mask_ratio": 1.0}, "mask_ratio must lie strictly"),
        ({"mask_ratio": 0.5}, "mask_ratio has no use in strategy 'multiblock'"),
        ({"strategy": "random", "num_targets": 4}, "num_targets has no use in strategy 'random'"),
        ({"strategy": "random", "target_scale": (0.1, 0.2)}, "target_scale has no use"),
        ({"strategy": "random", "target_aspect": (1, 1)}, "target_aspect has no use"),
        ({"strategy": "random", "truncation": "first"}, "truncation has no use"),
        ({"strategy": "block", "context_scale": (0.8, 1.0)}, "context_scale has no use in strategy 'block'"),
        ({"strategy": "block", "num_targets": 1}, "num_targets has no use"),
        # int(196 * 0.95) = 186 tokens at an aspect of 0.75: 11.8 x 15.7; of 0.83: 12.4 x 15.0
        ({"target_scale": (0.95, 0.95)}, r"block of 12x15 tokens, which does not fit in grid \(14, 14\)"),
        ({"grid": (2, 40)}, r"block of 3x3 tokens, which does not fit in grid \(2, 40\)"),
        ({"grid": (2, 2)}, "block of 0x0 tokens"),
        ({"context_scale": (0.2, 0.3)}, "can leave 0 context tokens"),
        ({"min_keep": 120}, "can leave 102 context tokens"),
        ({"strategy": "block", "target_scale": (0.9, 0.98), "target_aspect": (1, 1)}, "can leave 0 context tokens"),
        ({"strategy": "random", "mask_ratio": 0.95}, "can leave 10 context tokens .*lower mask_ratio"),
        ({"strategy": "random", "grid": (5, 5), "mask_ratio": 0.01}, "masks no token"),
    ],
)
def test_refuses_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        TokenMaskSampler(**settings)


def test_no_step_can_break_what_the_constructor_has_accepted():
    """Every size drawn in many steps fits, on grids just large enough."""
    for grid in [(6, 6), (7, 7), (6, 9), (9, 6), (20, 7)]:
        sampler = TokenMaskSampler(grid)
        for step in range(1500):
            (height, width), (context_height, context_width) = sampler.block_sizes(step)
            assert 1 <= height <= grid[0] and 1 <= width <= grid[1]
            overlap = min(height, context_height) * min(width, context_width)
            assert context_height * context_width - overlap > 10


@pytest.mark.parametrize("batch_size", [0, -3])
def test_refuses_empty_batches(batch_size):
    with pytest.raises(ValueError, match=f"batch_size must be at least 1, got {batch_size}"):
        TokenMaskSampler().sample(batch_size)


def test_refuses_block_sizes_without_blocks_and_before_the_start():
    with pytest.raises(ValueError, match="'random' has no blocks"):
        TokenMaskSampler(strategy="random").block_sizes(0)
    with pytest.raises(ValueError, match="step must be at least 0, got -1"):
        TokenMaskSampler().block_sizes(-1)
