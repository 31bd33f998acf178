"""What tells one file from another."""

from __future__ import annotations

import hashlib
import os

import pytest

from cxw_monai.io.files.identity import file_identity, file_state


def test_content_size_and_time(tmp_path):
    path = tmp_path / "film"
    path.write_bytes(b"abc" * 700_000)
    os.utime(path, ns=(1, 1_234_567_890_123_456_789))
    found = file_identity(path)
    assert found.sha256 == hashlib.sha256(b"abc" * 700_000).hexdigest()
    assert (found.size, found.modified_ns) == file_state(path) == (2_100_000, 1_234_567_890_123_456_789)


def test_what_is_no_file_is_said_and_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="Not a regular file.*pipe"):
        file_identity(tmp_path / "pipe")
    with pytest.raises(FileNotFoundError, match="none"):
        file_identity(tmp_path / "none")
    assert file_state(tmp_path / "none") is None
