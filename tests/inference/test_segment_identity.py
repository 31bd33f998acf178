"""Whose results they are: names, content, links, and runs that meet in one output."""

from __future__ import annotations

import csv
import os
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from cxw_monai.inference import reading
from cxw_monai.inference.settings import find_films
from cxw_monai.io.files.csv_files import read_rows
from cxw_monai.io.results import folders
from cxw_monai.io.results.film_names import film_path
from cxw_monai.io.results.folders import is_result_folder
from tests.helpers import dicom_files as _files
from tests.helpers.film_segmenter import film_segmenter


class Bright(nn.Module):
    """One structure: what is bright."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return 8 * (image - 0.5)


def segmented(source, output, **settings):
    """Segment a source as the bundle does; the summary."""
    films, settings = find_films(source, output), {"num_workers": 1, **settings}
    return film_segmenter(films, source, output, Bright(), ["bright"], 32, **settings).run()


def film(path: Path, bright: int) -> Path:
    """A film whose first rows are bright: so many, of 32; its file has the same size whatever they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    grey = np.full((32, 32), 30, np.uint8)
    grey[:bright] = 220
    Image.fromarray(grey).save(path, format="TIFF")
    return path


def table(output: Path) -> dict[str, dict[str, str]]:
    with (output / "measurements.csv").open(newline="", encoding="utf-8") as stream:
        rows = read_rows(stream)
    assert len({row["image"] for row in rows}) == len(rows)
    return {row["image"]: row for row in rows}


def failures(output: Path) -> list[dict[str, str]]:
    with (output / "failures.csv").open(newline="", encoding="utf-8") as stream:
        return read_rows(stream)


def bright_rows(output: Path, row: dict[str, str]) -> int:
    """Rows that the written mask calls bright; the table says the same."""
    mask = np.asarray(Image.open(output / row["folder"] / "masks" / "bright.png")) > 0
    assert mask.sum() == int(row["area_px_bright"])
    return int(mask.any(axis=1).sum())


def found(output: Path) -> dict[str, int]:
    return {name: bright_rows(output, row) for name, row in table(output).items()}


def test_added_films_do_not_take_the_name_of_those_that_are_done(tmp_path):
    films, output = tmp_path / "films", tmp_path / "out"
    film(films / "p1" / "x.png", 5)
    segmented(films, output)
    film(films / "p2" / "x.png", 20)
    assert segmented(films, output, resume=True)["films"] == 1
    assert found(output) == {"p1/x.png": 5, "p2/x.png": 20}
    segmented(films, tmp_path / "at once")
    assert (tmp_path / "at once" / "measurements.csv").read_bytes() == (output / "measurements.csv").read_bytes()


def test_a_film_in_the_place_of_another_is_done_again(tmp_path, caplog):
    """Of the same name, size and time of change: content tells them apart."""
    films, output = tmp_path / "films", tmp_path / "out"
    before = film(films / "x.png", 5).stat()
    segmented(films, output)
    after = film(films / "x.png", 20)
    os.utime(after, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (after.stat().st_size, after.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    with caplog.at_level("INFO"):
        assert segmented(films, output, resume=True)["films"] == 1
    assert found(output) == {"x.png": 20} and "done again" in caplog.text
    os.utime(after)  # touched or copied again, it is the same film
    assert segmented(films, output, resume=True)["films"] == 0
    shutil.move(films, tmp_path / "moved")
    summary = segmented(tmp_path / "moved", output, resume=True)
    assert (summary["films"], summary["failed"], summary["total"]) == (0, 0, 1)


def test_another_input_with_the_same_names_takes_no_results(tmp_path):
    output = tmp_path / "out"
    film(tmp_path / "a" / "x.png", 5)
    film(tmp_path / "b" / "x.png", 20)
    film(tmp_path / "b" / "y.png", 8)
    segmented(tmp_path / "a", output)
    summary = segmented(tmp_path / "b", output, resume=True)
    assert (summary["films"], summary["failed"]) == (1, 1)
    assert found(output) == {"x.png": 5, "y.png": 8}
    (row,) = failures(output)
    assert row["path"] == "x.png" and f"another film of this name, {tmp_path}/a/x.png" in row["reason"]
    assert table(output)["x.png"]["file"] == f"{tmp_path}/a/x.png"


def test_nothing_of_the_earlier_film_stays_in_the_folder(tmp_path):
    """A DICOM SEG of the film before must not lie beside masks of one that can't have a SEG."""
    films, output = tmp_path / "films", tmp_path / "out"
    films.mkdir()
    uids = {"StudyInstanceUID": "1.2.3.4", "SeriesInstanceUID": "1.2.3.4.5"}
    _files.write_dicom(films / "x.dcm", np.arange(1024, dtype=np.uint16).reshape(32, 32), bits=12, **uids)
    segmented(films, output, formats=["png", "seg", "csv"])
    assert (output / "x" / "segmentation.dcm").is_file()
    film(films / "x.dcm", 20)
    segmented(films, output, formats=["png", "seg", "csv"], resume=True)
    assert not (output / "x" / "segmentation.dcm").exists() and found(output) == {"x.dcm": 20}
    (output / "x" / "notes.txt").write_text("mine")
    segmented(films, output, formats=["csv"])
    assert sorted(path.name for path in (output / "x").rglob("*") if path.is_file()) == [".cxw_results", "notes.txt"]


def test_a_film_in_the_place_of_another_that_cannot_be_read_leaves_nothing(tmp_path):
    films, output = tmp_path / "films", tmp_path / "out"
    film(films / "x.png", 5)
    film(films / "y.png", 6)
    segmented(films, output)
    (films / "x.png").write_bytes(b"no film")
    assert segmented(films, output, resume=True)["failed"] == 1
    assert found(output) == {"y.png": 6} and not list((output / "x").rglob("*.png"))


def test_a_file_that_changes_while_it_is_read_is_no_film(tmp_path, monkeypatch):
    films, output = tmp_path / "films", tmp_path / "out"
    film(films / "x.png", 5)
    read = reading.read_radiograph

    def changing(path, **options):
        radiograph = read(path, **options)
        film(films / "x.png", 20)
        os.utime(path, ns=(0, 0))
        return radiograph

    monkeypatch.setattr(reading, "read_radiograph", changing)
    assert segmented(films, output)["failed"] == 1
    assert failures(output)[0]["reason"] == "it changed while it was read" and table(output) == {}


def test_films_of_any_name_have_one_row_and_their_own_masks_each(tmp_path):
    films, output = tmp_path / "films", tmp_path / "out"
    names = ["a\nb.png", "a_b.png", "a%0Ab.png", "=1+1.png", "\ra.png", "\x1b[2J.png", "50%.png", "masks.png"]
    names += ["settings.json.png", "failures.csv.png", "measurements.csv.png", "x" * 251 + ".png", "A.png", "a.png"]
    names += ["f\udcff.png"] if os.fsencode("\udcff") == b"\xff" and _holds_any_bytes(tmp_path) else []
    for number, name in enumerate(names):
        film(films / name, 2 * number + 2)
    assert segmented(films, output)["failed"] == 0
    expected = {name: 2 * number + 2 for number, name in enumerate(names)}
    assert {film_path(name): rows for name, rows in found(output).items()} == expected
    before = (output / "measurements.csv").read_bytes()
    assert segmented(films, output, resume=True)["films"] == 0
    assert (output / "measurements.csv").read_bytes() == before
    text = before.decode()
    assert text.count("\n") == len(names) + 1 and text.replace("\n", "").isprintable()
    with (output / "measurements.csv").open(newline="") as stream:
        assert not [cell for row in csv.reader(stream) for cell in row if cell[:1] in tuple("=+-@\t\r")]


def _holds_any_bytes(folder: Path) -> bool:
    try:
        (folder / "f\udcff").write_bytes(b"")
    except OSError:  # macOS
        return False
    return True


def test_a_film_whose_place_is_taken_fails_alone(tmp_path):
    films, output = tmp_path / "films", tmp_path / "out"
    for name in "abc":
        film(films / f"{name}.png", 5)
    output.mkdir()
    (output / "b").write_text("a file in the way")
    summary = segmented(films, output)
    assert (summary["films"], summary["failed"]) == (2, 1) and set(found(output)) == {"a.png", "c.png"}
    assert [row["path"] for row in failures(output)] == ["b.png"]
    assert (output / "b").read_text() == "a file in the way"


@pytest.mark.parametrize("how", ["inside", "through a link", "as a link inside"])
def test_results_inside_the_input_are_not_read_as_films(tmp_path, how):
    films = tmp_path / "films"
    film(films / "x.png", 5)
    source, output = films, films / "out"
    if how == "through a link":
        (tmp_path / "link").symlink_to(films)
        source, output = tmp_path / "link", films / "out"
    elif how == "as a link inside":
        output = tmp_path / "elsewhere"
        (films / "link").symlink_to(output)
    for _ in range(3):
        assert segmented(source, output, formats=["png", "overlay", "csv"])["total"] == 1
    assert found(output) == {"x.png": 5} and is_result_folder(output / "x")


def test_a_link_back_to_the_films_is_no_more_films(tmp_path):
    films = tmp_path / "films"
    film(films / "sub" / "x.png", 5)
    (films / "sub" / "loop").symlink_to(films)
    (films / "sub" / "x2.png").symlink_to(tmp_path / "out" / "sub" / "x" / "overlay.png")
    for _ in range(2):
        summary = segmented(films, tmp_path / "out", formats=["png", "overlay", "csv"])
    assert summary["total"] == 1 and set(table(tmp_path / "out")) == {"sub/x.png"}


def test_films_of_a_manifest_are_named_below_its_folder(tmp_path):
    film(tmp_path / "set" / "p1" / "x.png", 5)
    film(tmp_path / "far" / "x.png", 20)
    manifest = tmp_path / "set" / "list.csv"
    manifest.write_text("image\np1/x.png\n")
    segmented(manifest, tmp_path / "out")
    manifest.write_text("image\np1/x.png\n../far/x.png\n")
    assert segmented(manifest, tmp_path / "out", resume=True)["films"] == 1
    assert found(tmp_path / "out") == {"p1/x.png": 5, f"{tmp_path}/far/x.png": 20}


def test_two_runs_do_not_mix(tmp_path, monkeypatch):
    film(tmp_path / "films" / "x.png", 5)
    monkeypatch.setattr(folders, "_PATIENCE", 0.0)
    with (
        folders.output_lock(tmp_path / "out"),
        pytest.raises(ValueError, match="out: another run is writing there"),
    ):
        segmented(tmp_path / "films", tmp_path / "out")
    assert os.listdir(tmp_path / "out") == [folders.LOCK]
    assert segmented(tmp_path / "films", tmp_path / "out")["films"] == 1


@pytest.mark.parametrize("content", ["{", "[]", "[" * 20_000])
def test_a_record_that_is_none_is_told(tmp_path, content):
    film(tmp_path / "films" / "x.png", 5)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "settings.json").write_text(content)
    with pytest.raises(ValueError, match=r"settings\.json: not what a run wrote there; give another --output"):
        segmented(tmp_path / "films", tmp_path / "out", resume=True)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root writes everywhere")
def test_an_output_that_cannot_be_written_stops_the_run(tmp_path):
    film(tmp_path / "films" / "x.png", 5)
    (tmp_path / "out").mkdir(mode=stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(ValueError, match="out: Permission denied; correct that"):
        segmented(tmp_path / "films", tmp_path / "out")
