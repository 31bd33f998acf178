"""Names of films: reversible, one each, and folders that every file system keeps apart."""

from __future__ import annotations

import os
import string
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from cxw_monai.io.results.film_names import film_name, film_path, result_folders

RESERVED = ("masks", "nifti", "overlay.png", "segmentation.dcm", "measurements.csv", "settings.json", "failures.csv")
NASTY = [
    "a\nb.png",
    "a_b.png",
    "a%0Ab.png",
    "a\\nb.png",
    "50%.png",
    "f\udcff.png",
    "\x1b[31mred.png",
    "\u202egnp.exe",
    "=1+1.png",
    " a.png",
    "a.png ",
    "a..png",
    "...png",
    ".png",
    ".hidden.png",
    "con.png",
    "NUL",
    "settings.json.png",
    "FAILURES.CSV.dcm",
    "masks.png",
    "x" * 251 + ".png",
    "é" * 125 + ".png",
    "\n" * 251 + ".png",
    "a:b?.png",
]


def _folders(folder: Path, *names: str, **how) -> list[str]:
    found = result_folders([folder / name for name in names], **how)
    return [str(found[str(folder / name)]) for name in names]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/d/p1/x.png", "p1/x.png"),
        ("/d/a\nb.png", "a%0Ab.png"),
        ("/d/50%.png", "50%25.png"),
        ("/d/f\udcff.png", "f%FF.png"),
        ("/d/a\u202eb.png", "a%E2%80%AEb.png"),
        ("/d/späte Aufnahme.png", "späte Aufnahme.png"),
        ("/dd/x.png", "/dd/x.png"),
        ("/d/../e/x.png", "/e/x.png"),
    ],
)
def test_a_name_is_the_path_below_the_root_as_one_line(path, name):
    assert film_name(path, "/d") == film_name(path, "/d/") == name
    assert film_path(name, "/d") == os.path.abspath(path)


def test_names_lead_back_and_are_never_shared():
    """Over names of hard characters, all parts of which could be taken for another's escape."""
    rng = np.random.default_rng(0)
    hard = list("%0aAnF/\\\n\r\t '=.") + ["\udcff", "\udcc3", "\x80", "é", "e\u0301", "\u2028"]
    paths = {os.path.abspath("/d/" + "".join(rng.choice(hard, rng.integers(1, 9)))) for _ in range(5000)}
    paths |= {f"/d/{name}" for name in NASTY}
    names = {film_name(path, "/d") for path in paths}
    assert len(names) == len(paths)
    for path in paths:
        name = film_name(path, "/d")
        assert name.isprintable() and name.encode() and film_path(name, "/d") == path


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["x/a.png", "x/b.nii.gz"], ["a", "b"]),
        (["x/a.png", "y/a.png"], ["x/a", "y/a"]),
        (["a.png", "a.dcm", "b.dcm"], ["a.png", "a.dcm", "b"]),
        (["a.png", "a/masks.png"], ["a", "a/%6Dasks"]),
        (["a:b.png", "c..png", "50%.png"], ["a%3Ab", "c%2E", "50%25"]),
        (["noending", "1.2.3"], ["noending", "1.2"]),
        (["con.png", "masks/x.png", "Overlay.PNG"], ["%63on", "%6Dasks/x", "Overlay"]),
        (["settings.json.png", "Failures.csv.png"], ["%73ettings.json", "%46ailures.csv"]),
        (["overlay.png.dcm", "overlay.png"], ["%6Fverlay.png", "overlay"]),
    ],
)
def test_folders_are_the_names_without_their_ending(tmp_path, names, expected):
    for order in permutations(range(len(names))):
        found = _folders(tmp_path, *(names[i] for i in order), reserved=RESERVED)
        assert found == [expected[i] for i in order]  # whatever the order


def test_films_that_some_file_systems_take_for_one_are_kept_apart(tmp_path):
    names = ["a.png", "A.dcm", "A.png", "x/é.png", "x/e\u0301.png", "X/É.png"]
    folders = _folders(tmp_path, *names)
    assert len({folder.casefold() for folder in folders}) == 6
    assert folders[1] == "A.dcm" and folders[0].startswith("a.png~") and folders[2].startswith("A.png~")


def test_every_folder_can_be_made_and_none_holds_another(tmp_path):
    root, out = tmp_path / "films", tmp_path / "out"
    folders = _folders(root, *NASTY, root=root, reserved=RESERVED)
    assert len({folder.casefold() for folder in folders}) == len(NASTY)
    for folder in folders:
        assert set(folder) <= {*string.printable, "é"} and not set(folder) & set('\n<>:"|?*\\')
        assert folder[0] not in ". " and folder[-1] not in ". " and folder.casefold() not in RESERVED
        (out / folder).mkdir(parents=True)
        assert (out / folder).resolve().parent == out.resolve()
    assert max(len(folder.encode()) for folder in folders) <= 143


def test_a_film_elsewhere_has_its_whole_path(tmp_path):
    inside, outside = tmp_path / "in" / "data" / "x.png", tmp_path / "other" / "x.png"
    folders = result_folders([inside, outside], tmp_path / "in")
    assert str(folders[str(inside)]) == "data/x"
    assert str(folders[str(outside)]) == f"%2F{str(tmp_path)[1:]}/other/x"
    assert film_path(film_name(outside, tmp_path / "in"), tmp_path / "in") == str(outside)


def test_added_films_move_no_folder(tmp_path):
    first = result_folders([tmp_path / "p1" / "x.png"], tmp_path)
    more = [tmp_path / "p1" / "x.png", tmp_path / "p2" / "x.png", tmp_path / "p1" / "x.dcm"]
    kept = {"p1/x.png": "p1/x"}
    found = result_folders(more, tmp_path, kept=kept)
    assert first[str(more[0])] == found[str(more[0])]
    assert [str(found[str(film)]) for film in more] == ["p1/x", "p2/x", "p1/x.dcm"]
    # of a film that isn't in this run no folder is taken either
    assert str(result_folders(more[2:], tmp_path, kept=kept)[str(more[2])]) == "p1/x.dcm"


def test_a_table_cannot_send_results_elsewhere(tmp_path):
    film = tmp_path / "x.png"
    for bad in ("../../x", "/etc/x", "y", ""):
        assert str(result_folders([film], tmp_path, kept={"x.png": bad})[str(film)]) == "x"
    assert result_folders([]) == {}
