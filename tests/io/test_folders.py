"""Folders of results: one run at a time, nothing that a killed one leaves in the way, and the marker."""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cxw_monai.io.results import folders as module
from cxw_monai.io.results.folders import (
    LOCK,
    MARKER,
    OutputBusyError,
    hold_output,
    is_result_folder,
    mark,
    mark_own,
    output_lock,
    release_output,
)
from cxw_monai.training import errors

HOLD = """
import multiprocessing, sys, time
from cxw_monai.io.results.folders import hold_output
hold_output(sys.argv[1])
if len(sys.argv) > 2:  # as a loader's worker, which outlives its killed parent for a while
    multiprocessing.get_context(sys.argv[2]).Process(target=time.sleep, args=(0.5,)).start()
print("held", flush=True)
time.sleep(600)
"""


def _holder(folder: Path, *start: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, folder, *start], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_run_is_refused_until_the_first_is_killed(tmp_path):
    holder = _holder(tmp_path / "out", *(["fork"] if sys.platform == "linux" else []))
    try:
        with pytest.raises(OutputBusyError, match="out: another run is writing there"), output_lock(tmp_path / "out"):
            pass
        with output_lock(tmp_path / "other"):
            pass
    finally:
        holder.kill()
    assert holder.wait() == -signal.SIGKILL
    with output_lock(tmp_path / "out"):
        assert set(os.listdir(tmp_path / "out")) == {LOCK, MARKER}
    holder.stdout.close()


def test_the_lock_ends_with_its_block_and_with_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(KeyError), output_lock(tmp_path):
            raise KeyError
    with output_lock(tmp_path):
        pass


def test_a_process_that_holds_a_folder_goes_on_with_it(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "out")
    hold_output(tmp_path / "out")
    hold_output(tmp_path / "link")
    module._PATIENCE, patience = 0.0, module._PATIENCE
    try:
        with pytest.raises(OutputBusyError), output_lock(tmp_path / "out"):
            pass
    finally:
        module._PATIENCE = patience
    release_output(tmp_path / "out")
    release_output(tmp_path / "out")
    with output_lock(tmp_path / "out"):
        pass


def test_a_planted_link_is_not_followed(tmp_path):
    (tmp_path / "victim").write_text("keep")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / LOCK).symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match=LOCK), output_lock(tmp_path / "out"):
        pass
    assert (tmp_path / "victim").read_text() == "keep"


@pytest.mark.parametrize("error", [OSError(errno.ENOLCK, "No locks available"), NotImplementedError("no flock")])
def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch, caplog, error):
    def refuse(self, **_):
        raise error

    monkeypatch.setattr(module.FileLock, "acquire", refuse)
    with caplog.at_level(logging.WARNING), output_lock(tmp_path):
        pass
    assert "has no locks: see to it that no other run writes there" in caplog.text


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match=str(tmp_path)), output_lock(tmp_path):
        pass
    tmp_path.chmod(0o700)


def test_a_bundle_ends_with_2_and_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(errors, "runs_bundle_command", lambda: True)
    monkeypatch.setattr(module, "_PATIENCE", 0.0)
    monkeypatch.setattr(module, "_held", {})  # nothing of an earlier test's run
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    errors.install_error_hook()
    with output_lock(tmp_path), pytest.raises(SystemExit) as status:
        try:
            hold_output(tmp_path)
        except OutputBusyError as error:
            sys.excepthook(type(error), error, error.__traceback__)
    assert status.value.code == 2
    assert capsys.readouterr().err.splitlines() == [
        f"error: {tmp_path}: another run is writing there; wait for its end, or give another output folder"
    ]


def test_a_marked_folder_is_told_from_others(tmp_path):
    assert not is_result_folder(tmp_path) and not is_result_folder(tmp_path / "none")
    mark(tmp_path / "new")
    mark(tmp_path / "new")
    assert is_result_folder(tmp_path / "new") and not is_result_folder(tmp_path)
    assert "not films" in (tmp_path / "new" / MARKER).read_text()


def test_neither_a_link_nor_a_folder_marks(tmp_path):
    mark(tmp_path / "real")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / MARKER).symlink_to(tmp_path / "real" / MARKER)
    (tmp_path / "held" / MARKER).mkdir(parents=True)
    assert not is_result_folder(tmp_path / "linked") and not is_result_folder(tmp_path / "held")


def test_only_a_folder_without_other_files_is_marked_as_own(tmp_path):
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "a.png").write_bytes(b"x")
    assert not mark_own(tmp_path / "films") and not is_result_folder(tmp_path / "films")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / LOCK).write_bytes(b"")
    assert mark_own(tmp_path / "out") and mark_own(tmp_path / "new")
    (tmp_path / "out" / "b.png").write_bytes(b"x")
    assert mark_own(tmp_path / "out")
