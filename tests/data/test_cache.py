"""The memory-mapped cache: bytes, shapes, keys, kills, bad files."""

from __future__ import annotations

import csv
import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import textwrap
from multiprocessing import get_context

import numpy as np
import pytest
from PIL import Image

from cxw_monai.data import cache as cache_module
from cxw_monai.data.cache import RadiographCache, build_cache
from cxw_monai.data.manifest import find_images
from cxw_monai.io import RadiographError


def _build(folder, cache_dir, **options):
    return build_cache(find_images(folder), cache_dir, progress=False, **options)


def _finished(cache_dir):
    return [path for path in cache_dir.iterdir() if (path / "index.json").exists()]


@pytest.mark.parametrize("workers", [0, 2])
def test_unresized_images_come_back_bit_for_bit_in_path_order(radiograph_folder, tmp_path, workers):
    items = [{**item, "patient_id": str(n)} for n, item in enumerate(find_images(radiograph_folder))]
    cache = build_cache(items[::-1], tmp_path / "c", size=512, workers=workers, progress=False)
    assert len(cache) == 12 and cache.items == items
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
    stripes = np.tile(np.array([0, 0, 0, 255], np.uint8), (128, 32))  # 128x128, a quarter white
    (tmp_path / "in").mkdir()
    Image.fromarray(stripes).save(tmp_path / "in" / "a.png")
    cache = _build(tmp_path / "in", tmp_path / "c", size=16)
    inner = cache.image(0)[0, :, 2:-2]
    np.testing.assert_allclose(inner, 255 / 4, atol=1.5)  # picking samples would give 0 or 255


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
    with pytest.raises(ValueError, match="another version or damaged"):
        RadiographCache(folder)
    _build(radiograph_folder, tmp_path / "c")
    assert (folder / "pixels.bin").read_bytes() == pixels
    assert "rebuilding" in caplog.text


def test_an_exception_while_building_leaves_nothing(radiograph_folder, tmp_path, monkeypatch):
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
    assert [path.suffix for path in (tmp_path / "c").iterdir() if path.is_dir()] == []
    assert len(_build(radiograph_folder, tmp_path / "c")) == 12


def test_a_killed_build_leaves_no_cache_and_the_next_run_builds_it(radiograph_folder, tmp_path):
    script = textwrap.dedent(
        """
        import sys, time
        from cxw_monai.data import cache
        from cxw_monai.data.manifest import find_images
        read = cache.read_radiograph
        def slow(path, **options):
            if path.endswith("film_06.png"):
                print("half way", flush=True)
                time.sleep(60)
            return read(path, **options)
        cache.read_radiograph = slow
        cache.build_cache(find_images(sys.argv[1]), sys.argv[2], progress=False)
        """
    )
    command = [sys.executable, "-c", script, str(radiograph_folder), str(tmp_path / "c")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "half way\n"
        process.send_signal(signal.SIGKILL)
    left = [path for path in (tmp_path / "c").iterdir() if path.is_dir()]
    assert [path.suffix for path in left] == [".part"] and _finished(tmp_path / "c") == []
    cache = _build(radiograph_folder, tmp_path / "c")
    assert len(cache) == 12 and _finished(tmp_path / "c") == [cache.folder]
    assert not left[0].exists()


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
    command = [sys.executable, "-c", script, str(radiograph_folder), str(tmp_path / "c")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum(output.count("read") for output in outputs) == 12


@pytest.fixture
def with_bad_files(radiograph_folder):
    (radiograph_folder / "film_05_empty.png").write_bytes(b"")
    Image.fromarray(np.full((50, 50), 7, np.uint8)).save(radiograph_folder / "film_00_constant.png")
    return radiograph_folder


@pytest.mark.parametrize("workers", [0, 2])
def test_raise_stops_at_the_first_bad_file_by_name(with_bad_files, tmp_path, workers):
    with pytest.raises(RadiographError, match="film_00_constant.png: constant image"):
        _build(with_bad_files, tmp_path / "c", workers=workers)
    assert _finished(tmp_path / "c") == []


@pytest.mark.parametrize("workers", [0, 2])
def test_skip_reports_and_logs_each_bad_file(with_bad_files, tmp_path, workers, caplog):
    caplog.set_level(logging.WARNING)
    report = tmp_path / "out" / "bad.csv"
    for _ in range(2):  # built, then reused
        cache = _build(with_bad_files, tmp_path / "c", on_error="skip", report=report, workers=workers)
        assert len(cache) == 12 and all("_" not in item["image"][-6:] for item in cache.items)
        with report.open(newline="") as stream:
            assert list(csv.reader(stream)) == [
                ["path", "reason"],
                [str(with_bad_files / "film_00_constant.png"), "constant image (every pixel is 0.02745 of 1)"],
                [str(with_bad_files / "film_05_empty.png"), "the file is empty"],
            ]
        report.unlink()
    assert len([record for record in caplog.records if "skipped" in record.message]) == 2
    with pytest.raises(RadiographError, match="film_00_constant.png"):  # the reused cache doesn't hide them
        _build(with_bad_files, tmp_path / "c")


def test_a_file_left_out_for_a_missing_decoder_is_taken_up_later(radiograph_folder, tmp_path, monkeypatch):
    read = cache_module.read_radiograph

    def without_decoder(path, **options):
        if path.endswith("film_04.png"):
            raise RadiographError(path, "needs a decoder", "pip install it")
        return read(path, **options)

    with monkeypatch.context() as patched:
        patched.setattr(cache_module, "read_radiograph", without_decoder)
        assert len(_build(radiograph_folder, tmp_path / "c", on_error="skip")) == 11
    assert len(_build(radiograph_folder, tmp_path / "c", on_error="skip")) == 12


def test_nothing_left_is_an_error_with_its_report(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"none of the 1 images can be used; the first: .*a\.png: the file is empty"):
        _build(tmp_path / "in", tmp_path / "c", on_error="skip", report=tmp_path / "bad.csv")
    assert "the file is empty" in (tmp_path / "bad.csv").read_text()


def test_min_size_is_part_of_the_key(radiograph_folder, tmp_path):
    assert len(_build(radiograph_folder, tmp_path / "c")) == 12
    with pytest.raises(RadiographError, match="film_00.png: 96x80 pixels .*, smaller than 90"):
        _build(radiograph_folder, tmp_path / "c", min_size=90)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_error": "ignore"}, "on_error must be 'raise' or 'skip', got 'ignore'"),
        ({"size": 0}, "size must be 1 or more"),
        ({"workers": -1}, "workers 0 or more"),
    ],
)
def test_arguments_are_checked(radiograph_folder, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        _build(radiograph_folder, tmp_path / "c", **options)


def test_items_are_checked(radiograph_folder, tmp_path):
    items = find_images(radiograph_folder)
    with pytest.raises(ValueError, match=r"1 images are listed more than once \(.*film_02\.png"):
        build_cache([*items, items[2]], tmp_path / "c", progress=False)
    with pytest.raises(ValueError, match="the data set is empty"):
        build_cache([], tmp_path / "c", progress=False)
    with pytest.raises(ValueError, match="isn't a JSON value"):
        build_cache([{**items[0], "label": {1, 2}}], tmp_path / "c", progress=False)


def _sum(cache):
    return int(cache.image(2).sum())


def test_pickles_without_its_pixels_and_opens_in_other_processes(radiograph_folder, tmp_path):
    cache = _build(radiograph_folder, tmp_path / "c")
    expected = _sum(cache)
    small = pickle.dumps(cache)
    assert len(small) < (cache.folder / "pixels.bin").stat().st_size / 4
    assert _sum(pickle.loads(small)) == expected
    with get_context("fork").Pool(1) as pool:
        assert pool.apply(_sum, (cache,)) == expected


def test_the_folder_opens_alone(radiograph_folder, tmp_path):
    cache = _build(radiograph_folder, tmp_path / "c")
    alone = RadiographCache(cache.folder)
    assert alone.items == cache.items
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
