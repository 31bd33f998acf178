"""Disks that fail, data that vanish, workers and files that come to harm: said clearly, and nothing lost."""

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import torch

from cxw_monai.io.results.folders import LOCK, MARKER


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 2 MB: its folder, and a function that mounts it with other options."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a disk of its own can be mounted only by root, and not in every container")
    yield folder, lambda options: subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder):
    """Write until no block is left; the file that takes them."""
    with (folder / "filler").open("wb", buffering=0) as stream:
        try:
            while True:
                stream.write(bytes(4096))
        except OSError:
            return folder / "filler"


def checkpoints(folder):
    return sorted(path.name for path in folder.glob("checkpoint*"))


def run_until(tiny_runs, folder, **settings):
    """Start a run, and let `pause_before` bring it to a halt: its process and the file that holds it."""
    pids = tiny_runs.start(folder, **settings)
    return pids, tiny_runs.paused(folder, pids)[0]


def kill_at(tiny_runs, folder, **settings):
    pids, mark = run_until(tiny_runs, folder, **settings)
    tiny_runs.kill(pids)
    tiny_runs.wait(pids)
    mark.unlink()


@pytest.mark.parametrize("trouble", ["full", "read-only"])
def test_a_disk_that_fails_during_a_run(trouble, small_disk, tiny_runs, whole, assert_same_end):
    folder, remount = small_disk
    pids, mark = run_until(tiny_runs, folder, save_steps=3, pause_before=8, unlocked=trouble == "read-only")
    mark.unlink()
    filler = fill(folder) if trouble == "full" else None
    if trouble == "read-only":
        remount("ro")
    assert tiny_runs.wait(pids) == [1]
    reason = {"full": "No space left on device", "read-only": "Read-only file system"}[trouble]
    assert tiny_runs.last_line(folder) == (
        f"error: {folder / 'checkpoint_epoch=1_step=9.pt'}: cannot be written ({reason}) and is left out; checkpoints "
        "before it are whole; free or repair the disk, then continue with --resume true"
    )
    assert "Traceback" not in tiny_runs.log(folder)
    assert checkpoints(folder) == ["checkpoint_epoch=0_step=3.pt", "checkpoint_epoch=1.pt"]
    assert {path.name for path in folder.glob(".*")} == ({LOCK, MARKER} if trouble == "full" else {MARKER})
    filler.unlink() if trouble == "full" else remount("rw")
    tiny_runs.finish(folder, resume=True)
    assert_same_end(whole(), folder)


def test_a_file_that_may_not_grow_so_large(tiny_runs, whole, assert_same_end, tmp_path):
    """A quota, where no disk can be mounted: the limit lets `model.pt` pass, but no checkpoint."""
    folder = tmp_path / "run"
    kill_at(tiny_runs, folder, save_steps=3, pause_before=4)
    assert tiny_runs.wait(tiny_runs.start(folder, resume=True, largest_file=200_000)) == [1]
    assert re.fullmatch(
        r"error: .*/checkpoint_epoch=1\.pt: cannot be written \(File too large\).*", tiny_runs.last_line(folder)
    )
    assert checkpoints(folder) == ["checkpoint_epoch=0_step=3.pt"]
    tiny_runs.finish(folder, resume=True)
    assert_same_end(whole(), folder)


@pytest.mark.parametrize("trouble", ["a file in its place", "read-only"])
def test_an_output_that_cannot_be_written_is_told_before_the_first_step(trouble, tiny_runs, tmp_path, request):
    folder = tmp_path / "run"
    if trouble == "read-only":
        folder, remount = request.getfixturevalue("small_disk")
        remount("ro")
    else:
        folder.touch()
    assert tiny_runs.wait(tiny_runs.start(folder)) == [2]
    said = "Read-only file system; choose a folder" if trouble == "read-only" else "File exists; move the file"
    assert tiny_runs.last_line(folder).startswith(f"error: {folder}: {said}")
    assert "Engine run" not in tiny_runs.log(folder)


@pytest.mark.parametrize(("workers", "persistent"), [(0, True), (2, True), (1, False)])
def test_data_deleted_during_a_run_are_not_missed(workers, persistent, tiny_runs, whole, assert_same_end, tmp_path):
    """The cache is mapped into memory, of workers that later epochs begin with too: it stays until it is let go."""
    films, folder = tmp_path / "films", tmp_path / "run"
    tiny_runs.make_films(films)
    settings = {"films": films, "workers": workers, "persistent": persistent}
    pids, mark = run_until(tiny_runs, folder, pause_before=5, **settings)
    shutil.rmtree(films)
    mark.unlink()
    assert tiny_runs.wait(pids) == [0], tiny_runs.log(folder)
    assert_same_end(whole(), folder)


def test_a_killed_worker_is_told_and_the_run_goes_on_from_its_checkpoint(tiny_runs, whole, assert_same_end, tmp_path):
    """As the system does when memory runs out."""
    folder = tmp_path / "run"
    pids, mark = run_until(tiny_runs, folder, workers=2, pause_before=9)
    workers = Path(f"/proc/{pids[0]}/task/{pids[0]}/children").read_text().split()
    assert len(workers) == 2
    os.kill(int(workers[1]), signal.SIGKILL)
    mark.unlink(missing_ok=True)
    assert tiny_runs.wait(pids) == [1]
    line = tiny_runs.last_line(folder)
    assert line.startswith("error: DataLoader worker") and "killed, often for lack of memory. Lower num_workers" in line
    assert "checkpoint_epoch=1.pt is whole: continue from there with --resume true" in tiny_runs.log(folder)
    tiny_runs.finish(folder, resume=True)
    assert_same_end(whole(), folder)


def test_a_damaged_last_checkpoint_is_told_and_the_one_before_taken(tiny_runs, whole, assert_same_end, tmp_path):
    source = tmp_path / "run"
    kill_at(tiny_runs, source, save_steps=5, every=9, pause_before=11)
    first, last = "checkpoint_epoch=0_step=5.pt", "checkpoint_epoch=1_step=10.pt"
    assert checkpoints(source) == [first, last]
    for harm in ("cut", "flip"):
        folder = tmp_path / harm
        shutil.copytree(source, folder)
        content = bytearray((folder / last).read_bytes())
        content[len(content) // 2] ^= 4
        (folder / last).write_bytes(content if harm == "flip" else content[:-1000])
        tiny_runs.finish(folder, resume=True)
        said = r"cut off or damaged \(BadZipFile" if harm == "cut" else r"damaged: \S+ has another checksum"
        log = tiny_runs.log(folder)
        assert re.search(rf"{re.escape(str(folder / last))}: {said}.*Going back to the checkpoint before it", log)
        assert f"Resumed {folder / first}" in log
        assert_same_end(whole(), folder)
    for name in (first, last):
        (source / name).write_bytes(b"PK")
    assert tiny_runs.wait(tiny_runs.start(source, resume=True)) == [1]
    assert re.search(rf"error: {source / first}: cut off.*and no other is whole", tiny_runs.last_line(source))


@pytest.mark.parametrize("kind", ["pretraining", "segmentation"])
def test_a_step_that_is_not_finite_is_skipped_and_counted(kind, tiny_runs, tmp_path):
    folder = tmp_path / "run"
    tiny_runs.finish(folder, kind=kind, poison=[3, 8], on_non_finite="skip", save_steps=1, keep=None)
    contents = [
        torch.load(folder / f"checkpoint_epoch={epoch}{f'_step={step}' if step % 6 else ''}.pt", weights_only=True)
        for step, epoch in ((2, 0), (3, 0), (4, 0), (12, 2))
    ]
    before, at, after, end = (content["model"] for content in contents)
    assert all(torch.equal(before[name], at[name]) for name in before)
    assert not all(torch.equal(at[name], after[name]) for name in at)
    assert all(tensor.isfinite().all() for tensor in end.values())
    assert [content["processes"][0]["non_finite"]["skipped"] for content in contents] == [0, 1, 1, 2]
    log = tiny_runs.log(folder)
    assert "The loss is nan at step 3. That step is skipped: 1 so far, 1 in a row" in log
    assert "The loss is nan at step 8. That step is skipped: 2 so far, 1 in a row" in log
    header, *rows = (line.split(",") for line in (folder / "metrics.csv").read_text().splitlines())
    assert [row[header.index("skipped_steps")] for row in rows] == ["1", "2"]
    assert "nan" not in (folder / "metrics.csv").read_text()


def test_too_many_steps_in_a_row_stop_the_run(tiny_runs, tmp_path):
    folder = tmp_path / "run"
    assert tiny_runs.wait(tiny_runs.start(folder, poison=[2, 4, 5, 6], on_non_finite="skip", limit=3)) == [1]
    assert re.search(
        r"error: The loss is nan at step 6\. 3 steps in a row were not finite.*before_failure",
        tiny_runs.last_line(folder),
    )


@pytest.mark.parametrize(("kind", "on_non_finite"), [("pretraining", "skip"), ("segmentation", "stop")])
def test_processes_agree_about_a_step_that_one_of_them_cannot_do(kind, on_non_finite, tiny_runs, tmp_path):
    """Step 3 is the first of two that are accumulated, and only the second process has a bad film."""
    folder = tmp_path / "run"
    settings = {"kind": kind, "world": 2, "batch_size": 2, "accumulation": 2}
    bad = {"poison": [3], "poison_rank": 1, "on_non_finite": on_non_finite}
    status = tiny_runs.wait(tiny_runs.start(folder, **bad, **settings))
    if on_non_finite == "skip":
        assert status == [0, 0]
        states = torch.load(folder / "checkpoint_epoch=2.pt", weights_only=True)["processes"]
        assert [state["non_finite"]["skipped"] for state in states] == [1, 1]
    else:
        assert status == [1, 1]
        saved = torch.load(folder / "checkpoint_before_failure.pt", weights_only=True)
        assert saved["iteration"] == 2 and len(saved["processes"]) == 2
        tiny_runs.finish(folder, resume=str(folder / "checkpoint_before_failure.pt"), **settings)
