"""The marker of result folders."""

from __future__ import annotations

from cxw_monai.io.results.output_lock import LOCK, mark_own
from cxw_monai.io.results.result_folders import MARKER, is_result_folder, mark


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
