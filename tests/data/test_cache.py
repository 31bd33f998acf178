"""The memory-mapped cache: bytes, shapes, keys, kills."""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from cxw_monai.data import cache as cache_module
from cxw_monai.data.cache import CacheError, RadiographCache, build_cache, estimate_cache
from cxw_monai.data.manifest import find_images
from cxw_monai.data.store import ROW
from cxw_monai.io import Radiograph
from cxw_monai.io.pixel_map import PixelMap
from tests.helpers.forks import run_python


def _build(folder, cache_dir, **options):
    return build_cache(find_images(folder), cache_dir, progress=False, **options)


@contextmanager
def _counted_reads(monkeypatch):
    """Names of the files that are decoded in this process meanwhile."""
    read, names = cache_module.read_radiograph, []

    def counting(path, **options):
        names.append(Path(path).name)
        return read(path, **options)

    with monkeypatch.context() as patched:
        patched.setattr(cache_module, "read_radiograph", counting)
        yield names


def _flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    path.write_bytes(content)


def _cut(path, count):
    os.truncate(path, path.stat().st_size - count)


def _finished(cache_dir):
    return [path for path in cache_dir.iterdir() if (path / "index.json").exists()]


@pytest.mark.parametrize("workers", [0, 2])
def test_unresized_images_come_back_bit_for_bit_in_path_order(radiograph_folder, tmp_path, workers):
    items = [{**item, "patient_id": str(n)} for n, item in enumerate(find_images(radiograph_folder))]
    cache = build_cache(items[::-1], tmp_path / "c", size=512, workers=workers, progress=False)
    assert len(cache) == 12 and list(cache.items) == items
    for index, item in enumerate(items):
        stored = cache.image(index)
        assert stored.dtype == np.uint8 and not stored.flags.writeable
        np.testing.assert_array_equal(stored[0], np.asarray(Image.open(item["image"])))


def test_16_bit_sources_stay_16_bit_beside_8_bit_ones(radiograph_folder, tmp_path):
    values = np.random.default_rng(0).integers(0, 65536, (31, 33)).astype(np.uint16)
    Image.fromarray(values).save(radiograph_folder / "a16.png")
    cache = _build(radiograph_folder, tmp_path / "c")
    np.testing.assert_array_equal(cache.image(0)[0], values)
    assert cache.image(0).dtype == np.uint16 and cache.image(1).dtype == np.uint8
    assert cache.meta[0]["bits"] == 16 and cache.meta[0]["original_shape"] == [31, 33]


def test_the_shorter_side_is_resized_and_never_enlarged(radiograph_folder, tmp_path):
    cache = _build(radiograph_folder, tmp_path / "c", size=40)
    # (96, 80), (80, 96), (88, 88), (100, 72) scaled by 40 / shorter side; 100 * 40 / 72 = 55.6
    assert [cache.image(n).shape for n in range(4)] == [(1, 48, 40), (1, 40, 48), (1, 40, 40), (1, 56, 40)]
    assert cache.meta[3]["steps"] == ["resize 100x72 to 56x40"]
    larger = _build(radiograph_folder, tmp_path / "c", size=80)
    assert [larger.image(n).shape for n in range(4)] == [(1, 96, 80), (1, 80, 96), (1, 80, 80), (1, 100, 72)]


def test_the_resize_is_antialiased(tmp_path):
    stripes = np.tile(np.array([0, 0, 0, 254], np.uint8), (128, 32))  # 128x128, a quarter bright
    stripes[0, :12:4] = 1, 2, 3  # two levels would be a mask
    (tmp_path / "in").mkdir()
    Image.fromarray(stripes).save(tmp_path / "in" / "a.png")
    cache = _build(tmp_path / "in", tmp_path / "c", size=16)
    inner = cache.image(0)[0, 2:, 2:-2]
    np.testing.assert_allclose(inner, 254 / 4, atol=1.5)  # picking samples would give 0 or 254


def test_a_finished_cache_is_reused_until_something_changes(radiograph_folder, tmp_path, monkeypatch):
    first = _build(radiograph_folder, tmp_path / "c", size=40)
    pixels = first.image(3).copy()

    def refuse(*args, **kwargs):
        raise AssertionError("decoded again")

    with monkeypatch.context() as patched:
        patched.setattr(cache_module, "read_radiograph", refuse)
        labelled = [{**item, "label": 1} for item in find_images(radiograph_folder)][::-1]
        again = build_cache(labelled, tmp_path / "c", size=40, progress=False)
        assert again.folder == first.folder and again.items[0]["label"] == 1
        np.testing.assert_array_equal(again.image(3), pixels)
        with pytest.raises(AssertionError, match="decoded again"):
            _build(radiograph_folder, tmp_path / "c", size=41)
    file = radiograph_folder / "film_03.png"
    Image.fromarray(np.asarray(Image.open(file))[::-1]).save(file)
    os.utime(file, ns=(1, 1))
    changed = _build(radiograph_folder, tmp_path / "c", size=40)
    assert changed.folder != first.folder and not np.array_equal(changed.image(3), pixels)


def test_a_damaged_cache_is_rebuilt(radiograph_folder, tmp_path, caplog):
    folder = _build(radiograph_folder, tmp_path / "c").folder
    pixels = (folder / "pixels.bin").read_bytes()
    (folder / "pixels.bin").write_bytes(pixels[:-64])
    with pytest.raises(CacheError, match="the cache is damaged"):
        RadiographCache(folder)
    _build(radiograph_folder, tmp_path / "c")
    assert (folder / "pixels.bin").read_bytes() == pixels
    assert "decoding again what is damaged" in caplog.text


def test_an_exception_while_building_leaves_no_cache_and_the_build_resumes(radiograph_folder, tmp_path, monkeypatch):
    read, calls = cache_module.read_radiograph, []

    def fail_at_fifth(path, **options):
        calls.append(path)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return read(path, **options)

    with monkeypatch.context() as patched:
        patched.setattr(cache_module, "read_radiograph", fail_at_fifth)
        with pytest.raises(KeyboardInterrupt):
            _build(radiograph_folder, tmp_path / "c")
    assert _finished(tmp_path / "c") == []
    with _counted_reads(monkeypatch) as names:
        assert len(_build(radiograph_folder, tmp_path / "c")) == 12
    assert names == [f"film_{number:02d}.png" for number in range(4, 12)]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_build_resumes_and_what_is_whole_is_kept(radiograph_folder, tmp_path, monkeypatch, workers):
    whole = _build(radiograph_folder, tmp_path / "whole")
    script = textwrap.dedent(
        """
        import sys, time
        from cxw_monai.data import cache
        from cxw_monai.data.manifest import find_images
        read = cache.read_radiograph
        def slow(path, **options):
            if path.endswith("film_06.png"):
                time.sleep(300)
            return read(path, **options)
        cache.read_radiograph = slow
        cache.build_cache(find_images(sys.argv[1]), sys.argv[2], progress=False, workers=int(sys.argv[3]))
        """
    )
    command = [sys.executable, "-c", script, str(radiograph_folder), str(tmp_path / "c"), str(workers)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        while not (rows := list((tmp_path / "c").glob("*/images.bin"))) or rows[0].stat().st_size < 6 * ROW.itemsize:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=300)  # the pipe ends when the last of its workers has ended too
    assert _finished(tmp_path / "c") == []
    _flip(rows[0].with_name("pixels.bin"), int(whole._places[2]["offset"]) + 99)
    _cut(rows[0], 5)  # the kill came while the sixth row was written
    with _counted_reads(monkeypatch) as names:
        cache = _build(radiograph_folder, tmp_path / "c")
    assert names == [f"film_{number:02d}.png" for number in (2, 5, 6, 7, 8, 9, 10, 11)]
    assert len(cache) == 12 and list(cache.items) == list(whole.items) and list(cache.meta) == list(whole.meta)
    for number in range(12):
        np.testing.assert_array_equal(cache.image(number), whole.image(number))
    cache.verify()


@pytest.mark.parametrize("name", ["pixels.bin", "meta.jsonl"])
def test_a_flipped_byte_is_found_named_and_mended(radiograph_folder, tmp_path, monkeypatch, caplog, name):
    cache = _build(radiograph_folder, tmp_path / "c")
    whole = cache.image(3).copy()
    cache.verify()
    at = int(cache._places[3]["offset" if name == "pixels.bin" else "meta"])
    _flip(cache.folder / name, at + 7)
    RadiographCache(cache.folder)  # sizes and index tell nothing
    with pytest.raises(
        CacheError, match=r"1 of 12 stored .* damaged \(.*film_03\.png\); .*--verify_cache true .*verify=True"
    ):
        cache.verify()
    with _counted_reads(monkeypatch) as names:
        mended = _build(radiograph_folder, tmp_path / "c", verify=True)
    assert names == ["film_03.png"] and "film_03.png" in caplog.text
    mended.verify()
    np.testing.assert_array_equal(mended.image(3), whole)


def test_damaged_labels_are_found_and_written_again(radiograph_folder, tmp_path, monkeypatch):
    cache = _build(radiograph_folder, tmp_path / "c")
    items = next(cache.folder.glob("items-*.jsonl"))
    _flip(items, 30)
    with pytest.raises(CacheError, match=r"items-\w+\.jsonl: damaged; build the cache again"):
        cache.verify()
    with _counted_reads(monkeypatch) as names:
        _build(radiograph_folder, tmp_path / "c").verify()
    assert names == []


def test_a_damaged_index_costs_only_the_images_that_it_lost(radiograph_folder, tmp_path, monkeypatch):
    cache = _build(radiograph_folder, tmp_path / "c")
    _flip(cache.folder / "images.bin", 4 * ROW.itemsize + 4)  # the fifth image's checksum
    with pytest.raises(CacheError, match="the cache is damaged; build it again"):
        RadiographCache(cache.folder)
    with _counted_reads(monkeypatch) as names:
        _build(radiograph_folder, tmp_path / "c").verify()
    assert names == ["film_04.png"]


def test_a_killed_worker_is_reported_with_its_film_and_costs_nothing_else(radiograph_folder, tmp_path, monkeypatch):
    read = cache_module.read_radiograph

    def out_of_memory(path, **options):
        if path.endswith("film_07.png"):
            os.kill(os.getpid(), signal.SIGKILL)
        return read(path, **options)

    with monkeypatch.context() as patched:
        patched.setattr(cache_module, "read_radiograph", out_of_memory)
        with pytest.raises(CacheError, match=r"killed, often for lack of memory, .*film_07\.png; use fewer workers"):
            _build(radiograph_folder, tmp_path / "c", workers=1)
    with _counted_reads(monkeypatch) as names:
        assert len(_build(radiograph_folder, tmp_path / "c")) == 12
    assert names == [f"film_{number:02d}.png" for number in range(7, 12)]


def test_a_disk_that_fills_up_is_reported_and_the_build_resumes(radiograph_folder, tmp_path, monkeypatch):
    script = textwrap.dedent(
        """
        import resource, signal, sys
        from cxw_monai.data.cache import CacheError, build_cache
        from cxw_monai.data.manifest import find_images
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))  # bytes of a file: five films of 7 kB fit
        try:
            build_cache(find_images(sys.argv[1]), sys.argv[2], progress=False)
        except CacheError as error:
            print(error)
        """
    )
    said = run_python(["-c", script, radiograph_folder, tmp_path / "c"]).stdout
    assert "cannot be written (File too large); free some disk" in said and "run the same again to resume" in said
    with _counted_reads(monkeypatch) as names:
        _build(radiograph_folder, tmp_path / "c").verify()
    assert names == [f"film_{number:02d}.png" for number in range(5, 12)]


def test_too_little_disk_is_refused_before_anything_is_decoded(radiograph_folder, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=50_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with (
        _counted_reads(monkeypatch) as names,
        pytest.raises(CacheError, match=r"too little disk .*12 films, about .* GB on disk, 5e-05 GB free.*cache_dir"),
    ):
        _build(radiograph_folder, tmp_path / "c")
    assert names == []


def test_the_size_is_announced_from_headers(radiograph_folder, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    Image.fromarray(np.arange(64 * 90, dtype=np.uint16).reshape(64, 90)).save(radiograph_folder / "b.png")
    content = Path(get_testdata_file("CT_small.dcm")).read_bytes()  # 128x128, 16 bits; here as a CR
    (radiograph_folder / "a.dcm").write_bytes(
        content.replace(b"1.2.840.10008.5.1.4.1.1.2\0", b"1.2.840.10008.5.1.4.1.1.1\0")
    )
    paths = [item["image"] for item in find_images(radiograph_folder)]
    estimate = estimate_cache(paths, tmp_path, size=40)
    cache = _build(radiograph_folder, tmp_path / "c", size=40)
    stored = sum(cache.image(number).nbytes for number in range(14))
    assert estimate.films == 14 and stored == estimate.bytes - 14 * 1000  # 1 kB of description each
    assert "caching 14 films, about" in caplog.text


def test_the_pixel_map_includes_the_resize(radiograph_folder, tmp_path, monkeypatch):
    read = cache_module.read_radiograph

    def cropped(path, **options):
        radiograph = read(path, **options)
        pixel_map = PixelMap((200, 300)).crop(5, 6, *radiograph.array.shape[1:])
        return Radiograph(radiograph.array, {**radiograph.meta, "pixel_map": pixel_map})

    monkeypatch.setattr(cache_module, "read_radiograph", cropped)
    cache = _build(radiograph_folder, tmp_path / "c", size=40)
    found = PixelMap.from_dict(cache.meta[0]["pixel_map"])
    assert found == PixelMap((200, 300)).crop(5, 6, 96, 80).resize(48, 40)
    unresized = _build(radiograph_folder, tmp_path / "c", size=400)
    assert PixelMap.from_dict(unresized.meta[0]["pixel_map"]) == PixelMap((200, 300)).crop(5, 6, 96, 80)


def test_caches_of_two_labellings_live_side_by_side(radiograph_folder, tmp_path):
    first, second = (
        build_cache(
            [{**item, "label": f"{label}{n}"} for n, item in enumerate(find_images(radiograph_folder))],
            tmp_path / "c",
            progress=False,
        )
        for label in "ab"
    )
    assert first.folder == second.folder
    assert [item["label"] for item in first.items[10:]] == ["a10", "a11"]
    again = pickle.loads(pickle.dumps(second))
    assert again.items[-1]["label"] == "b11" and len(again.items) == 12
    assert [item["label"] for item in pickle.loads(pickle.dumps(first.items))][:2] == ["a0", "a1"]


def test_two_builders_of_one_cache_do_the_work_once(radiograph_folder, tmp_path):
    script = textwrap.dedent(
        """
        import sys, time
        from cxw_monai.data import cache
        from cxw_monai.data.manifest import find_images
        read = cache.read_radiograph
        def counting(path, **options):
            print("read", flush=True)
            time.sleep(0.02)
            return read(path, **options)
        cache.read_radiograph = counting
        cache.build_cache(find_images(sys.argv[1]), sys.argv[2], progress=False)
        """
    )
    done = run_python(["-c", script, radiograph_folder, tmp_path / "c"], processes=2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("read") == 12


def _sum(cache):
    return int(cache.image(2).sum())


def test_pickles_without_its_pixels_and_opens_in_other_processes(radiograph_folder, tmp_path):
    cache = _build(radiograph_folder, tmp_path / "c")
    expected = _sum(cache)
    small = pickle.dumps(cache)
    assert len(small) < 1000
    assert _sum(pickle.loads(small)) == expected
    with get_context("fork").Pool(1) as pool:
        assert pool.apply(_sum, (cache,)) == expected


def test_the_folder_opens_alone(radiograph_folder, tmp_path):
    cache = _build(radiograph_folder, tmp_path / "c")
    alone = RadiographCache(cache.folder)
    assert list(alone.items) == list(cache.items)
    np.testing.assert_array_equal(alone.image(11), cache.image(11))
    index = json.loads((cache.folder / "index.json").read_text())
    index["version"] = 0
    (cache.folder / "index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="another version"):
        RadiographCache(cache.folder)
    with pytest.raises(ValueError, match="no finished cache"):
        RadiographCache(tmp_path)


def test_progress_goes_to_stderr_only_when_asked(radiograph_folder, tmp_path, capsys):
    build_cache(find_images(radiograph_folder), tmp_path / "c1", progress=False)
    assert capsys.readouterr().err == ""
    build_cache(find_images(radiograph_folder), tmp_path / "c2", progress=True)
    assert "caching: 100%" in capsys.readouterr().err
