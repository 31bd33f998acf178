"""A cache in a folder that others can reach: what was planted is refused, what was altered is told.

Each test works in its own folder only. Where a test needs a file of another user and can't make one, this process
claims to be someone else.
"""

from __future__ import annotations

import json
import os
import stat
import zlib
from multiprocessing import get_context

import numpy as np
import pytest

from benchmarks.learning.benchmark import append_row
from cxw_monai.data import cache as cache_module
from cxw_monai.data import store
from cxw_monai.data.cache import CacheError, RadiographCache, build_cache
from cxw_monai.data.manifest import find_images
from cxw_monai.data.store import FORMAT_VERSION, ROW
from cxw_monai.io.files import own_files
from tests.helpers.caches import FILES, file_of


def build(folder, cache_dir, **options):
    return build_cache(find_images(folder), cache_dir, progress=False, **options)


@pytest.fixture
def made(radiograph_folder, tmp_path):
    return build(radiograph_folder, tmp_path / "c")


def be_another_user(path, monkeypatch):
    """Let ``path`` belong to somebody else than this process."""
    if os.geteuid() == 0:
        os.chown(path, 12345, -1, follow_symlinks=False)
    else:
        monkeypatch.setattr(own_files.os, "geteuid", lambda: os.stat(path).st_uid + 1)


@pytest.mark.parametrize("name", FILES)
def test_a_link_planted_before_the_build_is_not_written_through(radiograph_folder, tmp_path, made, victim, name):
    place = tmp_path / "shared" / made.folder.name / file_of(made, name).name
    place.parent.mkdir(parents=True)
    place.symlink_to(victim)
    if name == "index.json":  # an unfinished store has none: it is deleted, the link and not what it points to
        assert len(build(radiograph_folder, tmp_path / "shared")) == 12
        assert not place.is_symlink()
        return
    with pytest.raises(CacheError, match=rf"{place.name}: is a link, or no regular file; delete it .*cache_dir"):
        build(radiograph_folder, tmp_path / "shared")
    place.unlink()  # the remedy
    assert len(build(radiograph_folder, tmp_path / "shared")) == 12


@pytest.mark.parametrize("name", FILES)
def test_a_link_planted_in_a_finished_cache_is_not_read_through(radiograph_folder, tmp_path, made, name):
    path = file_of(made, name)
    copy = path.rename(tmp_path / "elsewhere")
    path.symlink_to(copy)
    with pytest.raises(CacheError, match=rf"{path.name}: is a link"):
        RadiographCache(made.folder)
    assert copy.is_file()


@pytest.mark.parametrize("kind", ["folder", "lock"])
def test_a_link_in_the_place_of_the_folder_or_its_lock_is_refused(radiograph_folder, tmp_path, made, victim, kind):
    name = made.folder.name + ("" if kind == "folder" else ".lock")
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / name).symlink_to(victim.parent if kind == "folder" else victim)
    with pytest.raises(CacheError, match=rf"shared/{name}: is a link.*delete it \(not what it points to\)"):
        build(radiograph_folder, tmp_path / "shared")


def test_links_on_the_way_to_cache_dir_are_the_users_own(radiograph_folder, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    assert len(build(radiograph_folder, tmp_path / "link" / "c")) == 12
    assert (tmp_path / "disk" / "c").is_dir()


def test_nothing_is_appended_to_a_second_name_of_a_file(radiograph_folder, tmp_path, made, victim):
    folder = tmp_path / "shared" / made.folder.name
    folder.mkdir(parents=True)
    os.link(victim, folder / "pixels.bin")
    with pytest.raises(CacheError, match=r"pixels\.bin: has a second name \(a hard link\)"):
        build(radiograph_folder, tmp_path / "shared")


@pytest.mark.parametrize("name", ["pixels.bin", "index.json", "lock"])
def test_a_fifo_is_refused_and_not_waited_for(radiograph_folder, tmp_path, made, name):
    folder = tmp_path / "shared" / made.folder.name
    folder.mkdir(parents=True)
    os.mkfifo(f"{folder}.lock" if name == "lock" else folder / name)
    if name == "index.json":
        assert len(build(radiograph_folder, tmp_path / "shared")) == 12
        return
    with pytest.raises(CacheError, match="no regular file"):
        build(radiograph_folder, tmp_path / "shared")


@pytest.mark.parametrize("name", ["", *FILES])
def test_what_belongs_to_another_user_is_refused(made, monkeypatch, name):
    be_another_user(file_of(made, name) if name else made.folder, monkeypatch)
    with pytest.raises(CacheError, match=r"belongs to another user \(number \d+\); .* set cache_dir to a folder of"):
        RadiographCache(made.folder)


def test_what_belongs_to_root_is_taken(made, monkeypatch):
    mine = os.geteuid()
    monkeypatch.setattr(own_files.os, "geteuid", lambda: mine + 1)
    real = os.fstat
    monkeypatch.setattr(own_files.os, "fstat", lambda handle: os.stat_result([*real(handle)[:4], 0, *real(handle)[5:]]))
    assert len(RadiographCache(made.folder)) == 12


def test_what_others_may_write_is_refused_and_a_folder_closed_to_them(radiograph_folder, tmp_path, made, caplog):
    made.folder.chmod(0o777)
    assert len(RadiographCache(made.folder)) == 12
    assert stat.S_IMODE(made.folder.stat().st_mode) == 0o755 and "is closed to them now" in caplog.text
    (made.folder / "pixels.bin").chmod(0o664)
    with pytest.raises(CacheError, match=r"pixels\.bin: may have been written by other users; delete it"):
        RadiographCache(made.folder)


def test_a_disk_that_keeps_no_permissions_is_used_with_a_warning(made, monkeypatch, caplog):
    made.folder.chmod(0o777)
    (made.folder / "pixels.bin").chmod(0o666)

    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(own_files.os, "fchmod", refuse)
    assert len(RadiographCache(made.folder)) == 12
    assert "this disk doesn't say who may write a file" in caplog.text


def test_nothing_is_made_that_others_may_write_whatever_the_umask(radiograph_folder, tmp_path):
    before = os.umask(0)
    try:
        cache = build(radiograph_folder, tmp_path / "c")
    finally:
        os.umask(before)
    paths = [cache.folder, *cache.folder.iterdir(), tmp_path / "c" / f"{cache.folder.name}.lock"]
    assert len(paths) == 7 and not [path for path in paths if path.stat().st_mode & 0o022]


def altered(cache, index=3, at=7, name="pixels.bin"):
    """One bit of an image, or of its description, turned over."""
    path, column = cache.folder / name, "offset" if name == "pixels.bin" else "meta"
    content = bytearray(path.read_bytes())
    content[int(cache._places[index][column]) + at] ^= 4
    path.write_bytes(content)
    return RadiographCache(cache.folder)


@pytest.mark.parametrize("name", ["pixels.bin", "meta.jsonl"])
@pytest.mark.parametrize("use", [lambda c: c.image(3), lambda c: c.meta[3], lambda c: c.meta[2:5]])
def test_an_altered_image_is_reported_when_it_is_first_used(made, name, use):
    cache = altered(made, name=name)
    assert cache.image(2).shape == (1, 88, 88)
    for _ in range(2):
        with pytest.raises(CacheError, match=r"the stored image of .*film_03\.png is damaged; build the cache again"):
            use(cache)


def test_the_remedy_for_an_altered_image_decodes_that_one(radiograph_folder, made, monkeypatch):
    whole = made.image(3).copy()
    with pytest.raises(CacheError, match=r"after deleting .*/index\.json: only what is damaged is decoded"):
        altered(made).image(3)
    (made.folder / "index.json").unlink()
    read, names = cache_module.read_radiograph, []
    monkeypatch.setattr(cache_module, "read_radiograph", lambda path, **how: names.append(path) or read(path, **how))
    again = build(radiograph_folder, made.folder.parent)
    assert [os.path.basename(name) for name in names] == ["film_03.png"]
    np.testing.assert_array_equal(again.image(3), whole)


def _use(cache):
    cache.image(1)


def test_an_image_is_compared_once_for_a_process_and_those_that_it_forks(made, monkeypatch):
    seen = []
    crc = zlib.crc32
    monkeypatch.setattr(store.zlib, "crc32", lambda *what: seen.append(1) or crc(*what))
    made.image(0)
    made.image(0)
    assert made.meta[0]["bits"] == 8 and len(seen) == 2  # of pixels and description
    with get_context("fork").Pool(1) as pool:
        pool.apply(_use, (made,))  # pickled: opened anew
    worker = get_context("fork").Process(target=_use, args=(made,))
    worker.start()
    worker.join()
    made.image(1)
    assert worker.exitcode == 0 and len(seen) == 2  # the forked process has compared it


def rewritten(cache, change):
    """An index that was altered by someone who mends its checksum."""
    path = cache.folder / "index.json"
    index = json.loads(path.read_text())
    del index["crc"]
    change(index)
    path.write_text(json.dumps({**index, "crc": zlib.crc32(json.dumps(index, sort_keys=True).encode())}))


INDICES = {
    "no JSON": "{",
    "empty": "",
    "binary": "\0\x01",
    "a list": "[]",
    "a number": "7",
    "no version": "{}",
    "no more than the version": f'{{"version": {FORMAT_VERSION}}}',
    "nested deep": "[" * 100_000 + "]" * 100_000,
    "nested deep inside": f'{{"version": {FORMAT_VERSION}, "skipped": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "a long number": '{"version": ' + "9" * 5000 + "}",
}


@pytest.mark.parametrize("content", INDICES.values(), ids=INDICES)
def test_an_altered_index_ends_in_the_caches_own_error_and_is_mended(radiograph_folder, made, content):
    (made.folder / "index.json").write_text(content)
    with pytest.raises(CacheError, match=rf"{made.folder.name}.*; build it again with the same settings"):
        RadiographCache(made.folder)
    assert len(build(radiograph_folder, made.folder.parent)) == 12


CHANGES = {
    "skipped without reason": lambda index: index.update(skipped=[{"path": "a"}]),
    "skipped is a number": lambda index: index.update(skipped=3),
    "skipped misses": lambda index: index.pop("skipped"),
    "items elsewhere": lambda index: index.update(items="../../items-0123456789abcdef.jsonl"),
    "items of another name": lambda index: index.update(items="items-0123456789abcdef.jsonl"),
    "items is a list": lambda index: index.update(items=[]),
    "other files": lambda index: index["bytes"].update({"../../../etc/passwd": 1}),
    "bytes is a list": lambda index: index.update(bytes=[]),
    "rows of another checksum": lambda index: index.update(rows_crc=0),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_an_index_with_a_mended_checksum_is_looked_at_too(made, change):
    rewritten(made, change)
    with pytest.raises(CacheError, match=made.folder.name):
        RadiographCache(made.folder)


def test_an_index_without_its_checksum_is_refused(made):
    path = made.folder / "index.json"
    path.write_text(
        path.read_text().replace('"skipped": []', '"skipped": [{"path": "a", "reason": "b", "remedy": "c"}]')
    )
    with pytest.raises(CacheError, match=r"index\.json: was altered"):
        RadiographCache(made.folder)


ROWS = {"offset": 2**60, "meta": 2**60, "height": 2**31, "width": 0, "itemsize": 3, "item": 12, "crc": 5}


@pytest.mark.parametrize("column", ROWS)
def test_an_altered_row_with_a_mended_index_is_reported(made, column):
    path = made.folder / "images.bin"
    rows = np.frombuffer(path.read_bytes(), ROW).copy()
    rows[column][5] = ROWS[column]
    path.write_bytes(rows.tobytes())
    rewritten(made, lambda index: index.update(rows_crc=zlib.crc32(rows)))
    with pytest.raises(CacheError, match=made.folder.name):
        RadiographCache(made.folder).image(5)


@pytest.mark.parametrize("line", ["{", "[]", "3", "{}", "[" * 100_000, '{"image": 1e999'])
def test_an_altered_line_with_every_checksum_mended_is_reported(made, line):
    """The items' file is named by its own hash, the description's checksum is in its row: both are set right."""
    content = b"".join(line.encode() + b"\n" for _ in range(12))
    name = store.items_name(content)
    (made.folder / name).write_bytes(content)
    with pytest.raises(CacheError, match=rf"{name}: line 1 was altered"):
        RadiographCache(made.folder, name).items[0]
    with pytest.raises(CacheError, match="was altered"):
        store.JsonRows(made.folder / name, np.zeros(1, int), ["bits"])[0]


def test_films_that_an_index_lost_are_decoded_and_others_that_it_names_are_not(radiograph_folder, made, tmp_path):
    path = made.folder / "images.bin"
    rows = path.read_bytes()[: 10 * ROW.itemsize]
    path.write_bytes(rows)

    def cut(index):
        index["bytes"]["images.bin"] = len(rows)
        index["rows_crc"] = zlib.crc32(rows)

    rewritten(made, cut)
    assert len(RadiographCache(made.folder)) == 10
    assert len(build(radiograph_folder, made.folder.parent)) == 12
    stranger = {"path": str(tmp_path / "stranger.png"), "reason": "r", "remedy": "r"}
    rewritten(made, lambda index: (cut(index), index.update(skipped=[stranger, stranger])))
    path.write_bytes(rows)
    again = build(radiograph_folder, made.folder.parent, on_error="skip")
    assert len(again) == 12 and again.skipped == []


def test_the_lock_of_a_result_file_is_no_way_out(tmp_path, victim):
    (tmp_path / "results.lock").symlink_to(victim)
    with pytest.raises(own_files.UnsafeFileError, match=r"results\.lock: is a link"):
        append_row(tmp_path / "results.csv", {"run": "a", "config": "b", "score": 0.5})
    (tmp_path / "results.lock").unlink()
    append_row(tmp_path / "results.csv", {"run": "a", "config": "b", "score": 0.5})


def test_a_finished_cache_of_root_can_be_used_by_who_may_only_read_it(radiograph_folder, made):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    made.folder.chmod(0o555)
    made.folder.parent.chmod(0o555)
    try:
        assert len(build(radiograph_folder, made.folder.parent)) == 12
        with pytest.raises(CacheError, match=r"cannot be written \(Permission denied\); .* or set cache_dir"):
            build_cache([{**item, "x": 1} for item in find_images(radiograph_folder)], made.folder.parent)
    finally:
        made.folder.parent.chmod(0o755)
        made.folder.chmod(0o755)
