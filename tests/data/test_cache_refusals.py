"""What the memory-mapped cache refuses: bad files, bad arguments, bad lists."""

from __future__ import annotations

import csv
import logging

import numpy as np
import pytest
from PIL import Image

from cxw_monai.data import cache as cache_module
from cxw_monai.data.cache import build_cache
from cxw_monai.data.manifest import find_images
from cxw_monai.io import RadiographError


def _build(folder, cache_dir, **options):
    return build_cache(find_images(folder), cache_dir, progress=False, **options)


@pytest.fixture
def with_bad_files(radiograph_folder):
    (radiograph_folder / "film_05_empty.png").write_bytes(b"")
    Image.fromarray(np.full((50, 50), 7, np.uint8)).save(radiograph_folder / "film_00_constant.png")
    return radiograph_folder


@pytest.mark.parametrize("workers", [0, 2])
def test_raise_stops_at_the_first_bad_file_by_name(with_bad_files, tmp_path, workers):
    with pytest.raises(RadiographError, match="film_00_constant.png: constant image"):
        _build(with_bad_files, tmp_path / "c", workers=workers)
    assert list((tmp_path / "c").glob("*/index.json")) == []


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
