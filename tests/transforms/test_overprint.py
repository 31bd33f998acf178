"""Printed letters, arrows, curves and shutters: what they change, and that they are the same again."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cxw_monai.transforms.overprint import RandOverprintd, RandShutterd


def _film() -> np.ndarray:
    return np.full((1, 80, 64), 128, dtype=np.uint8)


@pytest.mark.parametrize("make", [RandOverprintd, RandShutterd])
def test_the_same_seed_draws_the_same_film_and_no_mask_changes(make):
    label = torch.ones(2, 80, 64)
    drawn = [make(prob=1.0).set_random_state(seed)({"image": _film(), "label": label}) for seed in (3, 3, 4)]
    assert torch.equal(drawn[0]["image"], drawn[1]["image"])
    assert not torch.equal(drawn[0]["image"], drawn[2]["image"])
    assert all(torch.equal(sample["label"], label) for sample in drawn)
    assert drawn[0]["image"].dtype == torch.float32
    assert 0 <= drawn[0]["image"].min() < drawn[0]["image"].max() <= 1


@pytest.mark.parametrize("make", [RandOverprintd, RandShutterd])
def test_without_the_draw_the_film_stays(make):
    found = make(prob=0.0).set_random_state(0)({"image": _film()})["image"]
    assert torch.equal(found, torch.full((1, 80, 64), 128 / 255))


@pytest.mark.parametrize("shape", ["texts", "arrows", "curves"])
def test_a_shape_covers_a_small_part_and_is_mostly_bright(shape):
    counts = {name: (0, 0) for name in ("texts", "arrows", "curves")} | {shape: (2, 2)}
    changes = []
    for seed in range(20):
        image = RandOverprintd(prob=1.0, **counts).set_random_state(seed)({"image": _film()})["image"]
        changes.append(image[0] - 128 / 255)
    changed = torch.stack(changes).abs() > 0.02
    assert 0 < changed.float().mean() < 0.2
    assert (torch.stack(changes)[changed] > 0).float().mean() > 0.6


def test_a_straight_shutter_covers_whole_rows_and_columns_of_the_rim():
    transform = RandShutterd(depth=(0.25, 0.25), slant=0.0, prob=1.0)
    seen = set()
    for seed in range(40):
        image = transform.set_random_state(seed)({"image": _film()})["image"][0]
        covered = (image - 128 / 255).abs() > 0.01
        top, left = covered[20:60, 16:48], covered  # the middle is never covered
        assert not top.any()
        sides = (covered[0, 32], covered[79, 32], covered[40, 0], covered[40, 63])
        expected = torch.zeros_like(left)
        for there, part in zip(sides, (np.s_[:20, :], np.s_[60:, :], np.s_[:, :16], np.s_[:, 48:]), strict=True):
            expected[part] |= there
        assert torch.equal(covered, expected)
        seen.add(tuple(bool(side) for side in sides))
    assert len(seen) > 8


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandOverprintd(texts=(3, 1)), "texts must be a range"),
        (lambda: RandOverprintd(curves=(-1, 1)), "curves must be a range"),
        (lambda: RandShutterd(depth=(0.1, 0.5)), "depth must be a range"),
    ],
)
def test_ranges_that_are_none_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
