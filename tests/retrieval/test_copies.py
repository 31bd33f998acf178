"""Copies are found however they were made, and films that are only alike are not."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxw_monai.io import read_radiograph
from cxw_monai.retrieval import FilmIndex, build_index
from cxw_monai.retrieval.copies import AGREEMENT, compare, fine_structure
from cxw_monai.retrieval.duplicates import find_copies, write_pairs
from tests.helpers.made_index import save_film, textured

SHARED = Path(os.environ.get("CXW_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
CHANGES = ("smaller", "cropped", "corner", "brighter", "all")


def changed(film: np.ndarray, how: str) -> np.ndarray:
    """A copy of a film in [0, 1] that was resized, cropped by 5 % on all or two sides, or made brighter."""
    height, width = film.shape
    down, right = round(0.05 * height), round(0.05 * width)
    if how == "cropped":
        film = film[down : height - down, right : width - right]
    if how in ("corner", "all"):
        film = film[: height - down, right:]
    if how in ("smaller", "all"):
        film = np.asarray(Image.fromarray(film).resize((width // 2, height // 2), Image.Resampling.BICUBIC))
    if how in ("brighter", "all"):
        film = film**0.7
    return np.clip(film, 0, 1)


@pytest.mark.parametrize("how", CHANGES)
def test_a_changed_copy_agrees_and_says_how_it_was_cropped(how):
    film = textured(0, 256)
    found = compare(fine_structure(changed(film, how)), fine_structure(film))
    assert found.agreement > 0.85
    shown = {"cropped": 0.9, "corner": 0.95, "all": 0.95}.get(how, 1.0)
    assert found.scale == pytest.approx((shown, shown), abs=0.01)
    middle = 0.025 if how in ("corner", "all") else 0.0
    assert found.shift == pytest.approx((-middle, middle), abs=0.01)


def test_other_films_do_not_agree_even_when_they_are_alike_in_the_large():
    films = [textured(seed, 256) for seed in range(4)]
    alike = [films[0] / 4 + 0.5 * (np.hypot(*np.mgrid[-1:1:256j, -1:1:256j]) < 0.8) + film / 8 for film in films[1:]]
    structures = [fine_structure(np.clip(film, 0, 1).astype(np.float32)) for film in [*films, *alike]]
    found = [compare(one, two).agreement for n, one in enumerate(structures) for two in structures[:n]]
    apart = [compare(structures[a], structures[b]).agreement for a in range(4) for b in range(a)]
    assert max(apart) < 0.5 and max(found) < 1


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A training set of eight films, and a test set with five copies among other films."""
    folder = tmp_path_factory.mktemp("sets")
    for number in range(8):
        save_film(folder / "train" / f"{number}.png", textured(number))
    for number, how in enumerate(CHANGES[:4]):
        save_film(folder / "test" / f"{how}.jpg", changed(textured(number), how), quality=50)
    save_film(folder / "test" / "same.png", textured(5))
    for number in range(20, 23):
        save_film(folder / "test" / f"{number}.png", textured(number))
    return [FilmIndex(build_index(folder / name, folder / f"{name}_index") and folder / f"{name}_index")
            for name in ("train", "test")]  # fmt: skip


def test_a_leak_between_two_sets_is_named_and_nothing_else(sets, tmp_path):
    train, test = sets
    pairs = find_copies(train, test)
    named = {(train.film(one.first)["image"], test.film(one.second)["image"]) for one in pairs}
    assert named == {*((f"{n}.png", f"{how}.jpg") for n, how in enumerate(CHANGES[:4])), ("5.png", "same.png")}
    assert [one.same_file for one in pairs] == [True, False, False, False, False]
    assert find_copies(train) == []
    write_pairs(tmp_path / "pairs.csv", pairs, train, test)
    with (tmp_path / "pairs.csv").open() as stream:
        first = next(csv.DictReader(stream))
    assert (first["first"], first["second"], first["agreement"], first["same_file"]) == (
        "5.png",
        "same.png",
        "1.000",
        "1",
    )


def test_pairs_of_one_set_are_named_once(sets, tmp_path):
    train, _ = sets
    films = tmp_path / "films"
    for number in (0, 1):
        save_film(films / f"{number}.png", textured(number))
    save_film(films / "copy.png", changed(textured(1), "cropped"))
    build_index(films, tmp_path / "index")
    index = FilmIndex(tmp_path / "index")
    [pair] = find_copies(index)
    assert {index.film(pair.first)["image"], index.film(pair.second)["image"]} == {"1.png", "copy.png"}
    with pytest.raises(ValueError, match=r"least must lie in \(0, 1\]"):
        find_copies(train, least=0)


@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared films (../shared/data, or CXW_SHARED_DATA)")
def test_real_films_agree_with_their_copies_only():
    films = [read_radiograph(p).array[0] for p in sorted((SHARED / "nih_cxr14_subset" / "images").glob("*.jpg"))[:24]]
    structures = [fine_structure(film) for film in films]
    copies = [fine_structure(changed(film, "cropped")) for film in films[::2]]
    own = [compare(copy, structures[2 * n]).agreement for n, copy in enumerate(copies)]
    others = [compare(copy, structures[2 * n + 1]).agreement for n, copy in enumerate(copies)]
    assert min(own) > AGREEMENT > max(others)
