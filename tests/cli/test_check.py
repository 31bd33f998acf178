"""`cxw-monai check`: files, exit status, wrong usage."""

from __future__ import annotations

import shutil
import sys
from functools import partial

import numpy as np
import pytest
from PIL import Image

from cxw_monai.io.files.csv_files import read_rows
from cxw_monai.io.results import folders
from cxw_monai.io.results.film_names import film_path

CLEAN = ("00000061_012.jpg", "00000061_015.jpg", "00000193_019.jpg")


@pytest.fixture
def command(run_verb):
    """Exit status, standard output and standard error of `cxw-monai check`."""
    return partial(run_verb, "check")


def test_a_flagged_film_exits_with_1(command, tmp_path):
    films = tmp_path / "films"
    films.mkdir()
    Image.fromarray(np.diag(np.arange(64) + 137).astype(np.uint8)).save(films / "pattern.png")
    (films / "text.png").write_text("no picture")
    status, out, err = command(films, "--output", tmp_path / "out", "--workers", 2)
    assert status == 1 and "2 of 2 files flagged" in out
    assert "unreadable              1" in out and "too_small               1" in out
    assert "films" in err  # the progress bar
    lines = (tmp_path / "out" / "radiographs.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 3 and lines[1].startswith("pattern.png,") and lines[2].startswith("text.png,unreadable,")
    assert (tmp_path / "out" / "radiographs.html").is_file()


def test_clean_films_exit_with_0(command, tmp_path, shared_data):
    films = tmp_path / "films"
    films.mkdir()
    for name in CLEAN:
        shutil.copy(shared_data / "nih_cxr14_subset" / "images" / name, films)
    status, out, _ = command(films, "--output", tmp_path / "out")
    assert status == 0 and f"0 of {len(CLEAN)} files flagged" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "error: nowhere: not a folder"),
        ([".", "--workers", 0], "error: workers must be at least 1, got 0"),
        ([".", "--min-contrast", 2], "error: min_contrast must lie in [0, 1], got 2"),
        ([".", "--per-check", -1], "error: --per-check must be at least 0, got -1"),
        ([".", "--min-side", "big"], "invalid int value: 'big'"),
        ([], "the following arguments are required: folder"),
    ],
)
def test_wrong_usage_exits_with_2(command, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    status, out, err = command(*arguments)
    assert (status, out) == (2, "") and message in err
    assert not list(tmp_path.iterdir())  # nothing is written by a run that is refused


def test_a_second_run_into_the_same_output_exits_with_2(command, tmp_path, monkeypatch):
    (tmp_path / "films").mkdir()
    Image.fromarray(np.diag(np.arange(64) + 137).astype(np.uint8)).save(tmp_path / "films" / "a.png")
    monkeypatch.setattr(folders, "_PATIENCE", 0.0)
    with folders.output_lock(tmp_path / "out"):
        status, out, err = command(tmp_path / "films", "--output", tmp_path / "out")
    assert (status, out) == (2, "") and not (tmp_path / "out" / "radiographs.csv").exists()
    assert err == (
        f"error: {tmp_path}/out: another run is writing there; wait for its end, or give another output folder\n"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems refuse such names")
def test_names_of_any_bytes_keep_their_row_and_picture(command, tmp_path):
    films = tmp_path / "films"
    films.mkdir()
    names = ["f\udcff.png", "a\nb.png", "=1+1.png", "50%.png"]
    for number, name in enumerate(names):
        Image.fromarray(np.diag(np.arange(64 + number) + 133).astype(np.uint8)).save(films / name)
    assert command(films, "--output", tmp_path / "out")[0] == 1
    with (tmp_path / "out" / "radiographs.csv").open(newline="", encoding="utf-8") as stream:
        rows = read_rows(stream)
    assert {film_path(row["image"]): row["rows"] for row in rows} == {n: str(64 + i) for i, n in enumerate(names)}
    page = (tmp_path / "out" / "radiographs.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg") == len(names) and "f%FF.png" in page
