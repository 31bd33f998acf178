"""The same images a step give the same losses, whoever computes them."""

import json

import numpy as np
import pytest
import torch

SAME = {"same_masks": True, "noise_prob": 0.0, "drop_path": 0.0, "constant": True, "epochs": 3}
"""Nothing that a process draws for itself, and schedules that do not change with the number of micro-batches."""


def losses(folder, world):
    """Losses by micro-batch, averaged over the processes."""
    found = [json.loads((folder / f"losses_{rank}.json").read_text()) for rank in range(world)]
    return np.array(found)[:, :, 1].mean(axis=0)


def test_the_same_images_a_step_give_the_same_loss_curve(tiny_runs, tmp_path):
    """24 films, 8 a step: by one process, by one that accumulates two halves, by two with a half each."""
    one = losses(tiny_runs.finish(tmp_path / "one", batch_size=8, **SAME), 1)
    halves = losses(tiny_runs.finish(tmp_path / "halves", batch_size=4, accumulation=2, **SAME), 1)
    two = losses(tiny_runs.finish(tmp_path / "two", batch_size=4, world=2, **SAME), 2)
    assert len(one) == len(two) == 9 and one[0] - one[-1] > 0.05
    assert two == pytest.approx(one, rel=1e-4)
    steps = [pair for epoch in np.split(halves, 3) for pair in np.split(epoch, 3)]
    assert np.mean(steps, axis=1) == pytest.approx(one, rel=1e-4)


def test_a_sharded_network_learns_as_a_whole_one_and_leaves_the_same_files(tiny_runs, tmp_path):
    """Two processes with half of each parameter, or all of them; what one run saves the other goes on from."""
    whole = tiny_runs.finish(tmp_path / "whole", batch_size=4, world=2, **SAME)
    sharded = tiny_runs.finish(tmp_path / "sharded", batch_size=4, world=2, sharded=True, **SAME)
    assert losses(sharded, 2) == pytest.approx(losses(whole, 2), rel=1e-4)
    for name in ("model.pt", "encoder.pt"):
        first, second = (torch.load(folder / name, weights_only=True) for folder in (whole, sharded))
        assert first.keys() == second.keys()
        assert all(torch.allclose(first[key], second[key], atol=1e-3) for key in first)
    longer = {**SAME, "epochs": 4, "resume": True, "batch_size": 4, "world": 2}
    for folder, kind in ((whole, True), (sharded, False)):
        tiny_runs.finish(folder, sharded=kind, **longer)
        assert "Resumed" in tiny_runs.log(folder)
    assert losses(whole, 2) == pytest.approx(losses(sharded, 2), rel=1e-4)


def test_processes_have_masks_noise_and_films_of_their_own(tiny_runs, tmp_path):
    """Two processes with the same films of 2 a step: neither their losses nor their generators are alike."""
    folder = tiny_runs.finish(tmp_path / "two", batch_size=2, world=2, epochs=1)
    first, second = (json.loads((folder / f"losses_{rank}.json").read_text()) for rank in (0, 1))
    assert all(a[1] != b[1] for a, b in zip(first, second, strict=True))
