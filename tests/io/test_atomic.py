import os
import textwrap

import pytest

from cxw_monai.io.files.atomic import atomic_file
from tests.helpers.forks import run_python


def test_the_file_and_its_folder_are_made(tmp_path):
    path = tmp_path / "new" / "report.txt"
    with atomic_file(path, "w") as stream:
        stream.write("whole")
        assert not path.exists()
    assert path.read_text() == "whole"


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_the_users_umask_decides_who_may_read(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        with atomic_file(tmp_path / "report.txt", "w") as stream:
            stream.write("whole")
    finally:
        os.umask(before)
    assert (tmp_path / "report.txt").stat().st_mode & 0o777 == mode


def test_a_failed_writer_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "report.bin"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="stop"), atomic_file(path) as stream:
        stream.write(b"half")
        raise RuntimeError("stop")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["report.bin"]


@pytest.mark.parametrize("name", ["x" * 251 + ".png", "\U0001fa7b" * 63 + ".x"])
def test_the_longest_names_can_be_written(tmp_path, name):
    with atomic_file(tmp_path / name) as stream:
        stream.write(b"whole")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_array_that_cannot_be_written_says_why(tmp_path):
    """NumPy's error has no number: "1000 requested and 0 written"."""
    script = textwrap.dedent(
        """
        import resource, signal, sys
        import numpy as np
        from cxw_monai.io.files.atomic import atomic_file
        from cxw_monai.io.files.disk_errors import disk_message
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
        try:
            with atomic_file(sys.argv[1]) as stream:
                np.save(stream, np.zeros(10_000))
        except OSError as error:
            print(disk_message(error))
        """
    )
    path = tmp_path / "array.npy"
    assert run_python(["-c", script, path]).stdout == f"{path}: File too large; raise the limit of a file's size\n"
    assert list(tmp_path.iterdir()) == []
