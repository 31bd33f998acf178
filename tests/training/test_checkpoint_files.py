import os
import random

import pytest
import torch

from cxw_monai.training.checkpoint_files import CheckpointFiles, read_checkpoint, write_checkpoint
from cxw_monai.weights.encoder import CheckpointError


def content(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {"model": {"weight": torch.randn(64, generator=generator)}, "iteration": seed}


def test_no_flipped_bit_and_no_lost_byte_passes_for_the_truth(tmp_path):
    """Wherever it is: a file either gives what was written (a flip in a date or in padding), or is refused."""
    path, harmed = tmp_path / "whole.pt", tmp_path / "harmed.pt"
    write_checkpoint(content(), path)
    whole, rng, refused = path.read_bytes(), random.Random(0), 0
    copies = [whole[:length] for length in (0, 1, len(whole) // 2, len(whole) - 1)]
    for _ in range(300):
        copy = bytearray(whole)
        copy[rng.randrange(len(copy))] ^= 1 << rng.randrange(8)
        copies.append(bytes(copy))
    for copy in copies:
        harmed.write_bytes(copy)
        try:
            found = read_checkpoint(harmed)
        except CheckpointError:
            refused += 1
        else:
            assert len(copy) == len(whole)
            assert torch.equal(found["model"]["weight"], content()["model"]["weight"]) and found["iteration"] == 0
    assert refused > 100


def test_the_order_is_that_of_the_steps_and_the_last_few_stay(tmp_path):
    files = CheckpointFiles(tmp_path, keep=3)
    for step in (6, 8, 12, 17, 54, 60, 65):  # six an epoch
        files.write(content(step), files.path(step, 6))
    names = ["checkpoint_epoch=9.pt", "checkpoint_epoch=10.pt", "checkpoint_epoch=10_step=65.pt"]
    assert [path.name for path in files.all()] == names
    path, found = files.newest()
    assert path.name == names[-1] and found["iteration"] == 65


def test_going_on_from_an_older_one_sets_the_newer_aside(tmp_path):
    files = CheckpointFiles(tmp_path, keep=None)
    for step in (6, 12, 18):
        files.write(content(step), files.path(step, 6))
    files.set_aside_after(tmp_path / "checkpoint_epoch=1.pt")
    assert [path.name for path in files.all()] == ["checkpoint_epoch=1.pt"]
    assert {path.name for path in tmp_path.glob("*.aside")} == {
        "checkpoint_epoch=2.pt.aside",
        "checkpoint_epoch=3.pt.aside",
    }
    files.set_aside_after(tmp_path / "elsewhere.pt")
    assert len(files.all()) == 1


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path):
    for name in (".checkpoint_epoch=1.pt.ab12.part", ".model.pt.x.part", "notes.part", ".hidden"):
        (tmp_path / name).touch()
    CheckpointFiles(tmp_path).remove_leftovers()
    assert sorted(os.listdir(tmp_path)) == [".hidden", "notes.part"]


def test_a_missing_checkpoint_is_named(tmp_path):
    assert CheckpointFiles(tmp_path / "nowhere").newest() is None
    with pytest.raises(CheckpointError, match=r"gone\.pt: no such file"):
        read_checkpoint(tmp_path / "gone.pt")
    with pytest.raises(ValueError, match="keep must be at least 1"):
        CheckpointFiles(tmp_path, keep=0)
