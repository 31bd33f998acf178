import pytest

from cxw_monai.io.atomic import atomic_file


def test_the_file_and_its_folder_are_made(tmp_path):
    path = tmp_path / "new" / "report.txt"
    with atomic_file(path, "w") as stream:
        stream.write("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_failed_writer_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "report.bin"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="stop"), atomic_file(path) as stream:
        stream.write(b"half")
        raise RuntimeError("stop")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["report.bin"]
