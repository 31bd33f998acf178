import math

import pytest

from cxw_monai.training import CosineSchedule, PretrainingSchedules
from cxw_monai.training.schedules import warmup_cosine


def test_warm_up_starts_at_start_and_the_last_step_has_the_end_value():
    schedule = CosineSchedule(peak=1.0, end=0.1, total=101, start=0.0, warmup=11)
    assert schedule(0) == 0.0
    assert schedule(5) == pytest.approx(0.5)
    assert schedule(10) == pytest.approx(1.0)
    assert schedule(11) == pytest.approx(1.0)
    assert schedule(11 + 89 // 2) == pytest.approx(0.1 + 0.45 * (1 + math.cos(math.pi * 44 / 89)))
    assert schedule(100) == pytest.approx(0.1)
    assert schedule(1000) == pytest.approx(0.1)


def test_a_warm_up_may_start_above_0():
    schedule = CosineSchedule(peak=1.0, end=0.0, total=10, start=0.2, warmup=5)
    assert [schedule(step) for step in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])


def test_without_warm_up_the_first_value_is_the_peak():
    assert CosineSchedule(peak=3.0, end=1.0, total=10)(0) == 3.0


@pytest.mark.parametrize(("total", "warmup"), [(0, 0), (5, 6), (5, -1)])
def test_lengths_that_do_not_fit_are_refused(total, warmup):
    with pytest.raises(ValueError, match="total must be positive"):
        CosineSchedule(1.0, 0.0, total, warmup=warmup)


def test_released_stretch_reproduces_the_released_schedule():
    """The specification's measured numbers for 488 micro-batches an epoch, 300 epochs and a stretch of 1.25."""
    schedules = PretrainingSchedules(488, 300, lr=2e-4, warmup_epochs=40, stretch=1.25)
    steps = 488 * 300
    assert schedules.lr(0) == 0.0
    assert schedules.lr(1) == pytest.approx(2e-4 / (40 * 610 - 1))
    assert max(range(0, steps, 61), key=schedules.lr) / 488 == pytest.approx(50.0, abs=0.2)
    assert schedules.lr(steps - 1) == pytest.approx(2.602e-5, abs=5e-9)
    assert schedules.ema(steps - 1) == pytest.approx(0.999618, abs=5e-7)
    assert schedules.ema(steps // 2) == pytest.approx(0.99738, abs=1e-5)


def test_by_default_schedules_end_where_they_say():
    schedules = PretrainingSchedules(10, 5, lr=1e-3, lr_end=1e-6, warmup_epochs=1, weight_decay_end=0.4)
    assert schedules.lr(49) == pytest.approx(1e-6)
    assert schedules.ema(49) == 1.0
    assert schedules.weight_decay(0) == pytest.approx(0.05)
    assert schedules.weight_decay(49) == pytest.approx(0.4)


def test_a_run_shorter_than_its_warm_up_is_all_warm_up():
    assert PretrainingSchedules(10, 1, lr=1.0, warmup_epochs=5).lr(9) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("total", "warmup", "values"),
    [(1, 0, [1]), (2, 0, [1, 0]), (2, 1, [0, 1]), (3, 1, [0, 1, 0]), (2, 2, [0, 1]), (3, 2, [0, 1, 1])],
)
def test_runs_of_a_few_steps(total, warmup, values):
    schedule = CosineSchedule(peak=1.0, end=0.0, total=total, warmup=warmup)
    assert [schedule(step) for step in range(total)] == pytest.approx(values)


def test_a_run_needs_a_step_in_an_epoch_and_an_epoch():
    one = PretrainingSchedules(1, 1, lr=0.5)
    assert (one.lr(0), one.ema(0), one.ema.end) == (0.5, 0.996, 1.0)
    assert one.weight_decay(0) == one.weight_decay.end == 0.05
    for steps, epochs in ((0, 5), (5, 0)):
        with pytest.raises(ValueError, match="steps_per_epoch and epochs must be positive"):
            PretrainingSchedules(steps, epochs, lr=0.5)


def test_the_rate_is_held_before_a_decay_of_the_last_epochs():
    rate = warmup_cosine(1.0, 0.0, steps_per_epoch=2, epochs=6, warmup_epochs=1, decay_epochs=1.5)
    assert [rate(step) for step in range(12)] == pytest.approx([0, 1, *[1] * 8, 0.5, 0], abs=1e-9)


def test_a_decay_longer_than_the_run_starts_after_the_warm_up():
    given = {"lr": 1.0, "lr_end": 0.0, "steps_per_epoch": 3, "epochs": 4, "warmup_epochs": 1}
    whole, long = warmup_cosine(**given), warmup_cosine(**given, decay_epochs=9)
    assert [long(step) for step in range(12)] == [whole(step) for step in range(12)]


def test_a_hold_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="hold"):
        CosineSchedule(1.0, 0.0, total=5, warmup=2, hold=4)
