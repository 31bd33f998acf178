"""Runs that are killed, or asked to go, and started again end with the bits of one that was left alone.

A whole run has two epochs of six steps.
"""

import os
import random
import signal
import time

import pytest

CASES = {
    "middle": {"save_steps": 5, "pause_before": 6},
    "end": {"pause_before": 7},
    "middle, 2 workers": {"save_steps": 5, "pause_before": 6, "workers": 2},
    "end, 2 workers": {"pause_before": 7, "workers": 2},
    "accumulation": {"save_steps": 3, "pause_before": 6, "accumulation": 2},  # due at 3, within a group: saved at 4
    "2 processes": {"save_steps": 5, "pause_before": 6, "world": 2, "batch_size": 2},
    "2 processes, accumulation, workers": {
        "save_steps": 3, "pause_before": 6, "accumulation": 2, "world": 2, "batch_size": 2, "workers": 1,
    },
    "2 processes, sharded": {"save_steps": 5, "pause_before": 6, "world": 2, "batch_size": 2, "sharded": True},
    "segmentation, middle": {"kind": "segmentation", "save_steps": 5, "pause_before": 6},
    "segmentation, end, 2 workers": {"kind": "segmentation", "pause_before": 7, "workers": 2},
}  # fmt: skip
LAST_SAVED = {"end": "checkpoint_epoch=1.pt", "accumulation": "checkpoint_epoch=0_step=4.pt"}


@pytest.mark.parametrize("case", CASES)
def test_a_killed_run_goes_on_to_the_bits_of_one_that_was_not(case, tiny_runs, whole, assert_same_end, tmp_path):
    settings, folder = CASES[case], tmp_path / "killed"
    pids = tiny_runs.start(folder, **settings)
    marks = tiny_runs.paused(folder, pids)
    tiny_runs.kill(pids)
    assert set(tiny_runs.wait(pids)) == {-signal.SIGKILL}
    for mark in marks:
        mark.unlink()
    middle = "checkpoint_epoch=0_step=5.pt"
    expected = LAST_SAVED["end"] if "end" in case else LAST_SAVED["accumulation"] if "accum" in case else middle
    assert sorted(path.name for path in folder.glob("checkpoint*")) == [expected]

    again = {name: value for name, value in settings.items() if name != "pause_before"}
    tiny_runs.finish(folder, resume=True, **again)
    assert f"Resumed {folder / expected}" in tiny_runs.log(folder)
    assert_same_end(whole(**settings), folder)


def test_a_run_that_is_killed_again_and_again_at_any_moment_loses_nothing(tiny_runs, whole, assert_same_end, tmp_path):
    """Kills come up to 40 ms after a checkpoint: in a step, in the next save, or between two files of an epoch."""
    folder, rng = tmp_path / "killed", random.Random(1)
    for _ in range(5):
        known = set(folder.glob("checkpoint*.pt"))
        pids = tiny_runs.start(folder, resume=True, save_steps=1)
        deadline = time.monotonic() + 300
        while set(folder.glob("checkpoint*.pt")) <= known:
            assert time.monotonic() < deadline, tiny_runs.log(folder)
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.04))
        tiny_runs.kill(pids)
        assert tiny_runs.wait(pids)[0] == -signal.SIGKILL
    tiny_runs.finish(folder, resume=True, save_steps=1)
    assert_same_end(whole(), folder)
    assert {path.name for path in folder.glob(".*")} == {".cxw_lock", ".cxw_results"}  # no file half written


@pytest.mark.parametrize("settings", [{"workers": 2}, {"world": 2, "batch_size": 2}], ids=["2 workers", "2 processes"])
def test_sigterm_finishes_the_step_saves_and_ends(settings, tiny_runs, whole, assert_same_end, tmp_path):
    """Sent to every process of the run, as Slurm and torchrun do; of two, to one alone, as Kubernetes may."""
    folder = tmp_path / "preempted"
    pids = tiny_runs.start(folder, pause_before=4, **settings)
    marks = tiny_runs.paused(folder, pids)
    if len(pids) > 1:
        os.kill(pids[1], signal.SIGTERM)
    else:
        os.killpg(pids[0], signal.SIGTERM)
    for mark in marks:
        mark.unlink()
    assert set(tiny_runs.wait(pids)) == {128 + signal.SIGTERM}, tiny_runs.log(folder)
    assert [path.name for path in folder.glob("checkpoint*")] == ["checkpoint_epoch=0_step=4.pt"]
    assert "Ended by SIGTERM after step 4: all is saved" in tiny_runs.log(folder)
    tiny_runs.finish(folder, resume=True, **settings)
    assert_same_end(whole(**settings), folder)


def test_sigterm_waits_for_the_end_of_accumulated_steps(tiny_runs, tmp_path):
    folder = tmp_path / "preempted"
    pids = tiny_runs.start(folder, pause_before=2, accumulation=3)
    (mark,) = tiny_runs.paused(folder, pids)
    tiny_runs.kill(pids, signal.SIGTERM)
    mark.unlink()
    assert tiny_runs.wait(pids) == [143]
    assert [path.name for path in folder.glob("checkpoint*")] == ["checkpoint_epoch=0_step=3.pt"]
