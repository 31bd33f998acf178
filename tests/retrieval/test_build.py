"""An index is the same whoever made it, continues after a kill, and names what is damaged."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest

import cxw_monai
from cxw_monai.retrieval import DamagedIndexError, FilmIndex, build, build_index, merge_index
from tests.helpers.made_index import save_film, textured

FILMS = 7


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Seven films and one that can't be read, in a manifest with a column that a spreadsheet might run."""
    folder = tmp_path_factory.mktemp("films")
    rows = []
    for number in range(FILMS):
        save_film(folder / f"{number}.png", textured(number))
        rows.append((f"{number}.png", f"p{number // 2}", "PA" if number % 2 else "AP", "=note"))
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    rows.insert(3, ("broken.png", "p9", "PA", ""))
    with (folder / "films.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("image", "patient_id", "view", "note"), *rows])
    return folder


@pytest.fixture(scope="module")
def index(films, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "index"
    done = build_index(films / "films.csv", folder, shard_films=2)
    assert done == {"films": FILMS, "failed": 1, "shards": 4, "made": 4}
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".cxw_lock"}


def test_rows_are_films_in_the_manifests_order_with_its_columns(films, index):
    found = FilmIndex(index)
    assert [found.film(place)["image"] for place in range(len(found))] == [f"{number}.png" for number in range(FILMS)]
    assert found.column("view") == ["PA" if number % 2 else "AP" for number in range(FILMS)]
    assert set(found.column("note")) == {"=note"} and found.path(4) == str(films / "4.png")
    with (index / "failures.csv").open() as stream:
        assert [row["path"] for row in csv.DictReader(stream)] == ["broken.png"]


def test_vectors_are_those_of_the_python_interface(films, index):
    model, found = cxw_monai.load("chexworld_pretraining"), FilmIndex(index)
    for place in (0, 6):
        np.testing.assert_allclose(found.vectors_of([place])[0], model.embed(films / f"{place}.png"), atol=1e-4)
    shard = np.concatenate([np.asarray(part, np.float64) for part in found.vectors])
    about = json.loads((index / "index.json").read_text())
    np.testing.assert_allclose(about["mean"], shard.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(about["deviation"], shard.std(axis=0), rtol=1e-9)


def test_shares_of_three_machines_merge_to_the_same_bytes(films, index, tmp_path):
    parts = [tmp_path / f"share{number}" for number in (1, 2, 3)]
    for number, part in enumerate(parts, start=1):
        build_index(films / "films.csv", part, shard_films=2, share=(number, 3))
    with pytest.raises(ValueError, match="an index that isn't complete; run the same .* --merge"):
        FilmIndex(parts[0])
    with pytest.raises(ValueError, match=r"1 of 4 shards are missing or damaged \(1, counted from 0\)"):
        merge_index([parts[0], parts[2]], tmp_path / "merged")
    assert merge_index(parts, tmp_path / "merged") == {"films": FILMS, "failed": 1, "shards": 4}
    assert contents(tmp_path / "merged") == contents(index)


@pytest.mark.slow
def test_processes_make_the_same_bytes(films, index, tmp_path):
    assert build_index(films / "films.csv", tmp_path / "index", shard_films=2, workers=2)["made"] == 4
    assert contents(tmp_path / "index") == contents(index)


def test_a_killed_run_continues_to_the_same_bytes(films, index, tmp_path, monkeypatch):
    target, whole, made = tmp_path / "index", build.write_shard, []

    def killed(folder, shard, *rest):
        if len(made) == 2:
            (folder / ".shard-00002.npy.xyz.part").write_bytes(b"half")
            raise KeyboardInterrupt
        made.append(shard.number)
        whole(folder, shard, *rest)

    monkeypatch.setattr(build, "write_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        build_index(films / "films.csv", target, shard_films=2)
    monkeypatch.undo()
    kept = (target / "shard-00000.npy").stat().st_mtime_ns
    assert build_index(films / "films.csv", target, shard_films=2)["made"] == 2
    assert (target / "shard-00000.npy").stat().st_mtime_ns == kept
    assert contents(target) == contents(index)


@pytest.mark.parametrize("name", ["shard-00001.npy", "shard-00001.csv", "shard-00002-fine.npy"])
def test_a_damaged_shard_is_named_and_made_anew(films, index, tmp_path, name):
    target = shutil.copytree(index, tmp_path / "index")
    content = bytearray((target / name).read_bytes())
    content[-3] ^= 1
    (target / name).write_bytes(content)
    with pytest.raises(DamagedIndexError, match=f"{name}: damaged: .*; run the cxw-monai index command") as found:
        FilmIndex(target)
    assert found.value.path == target / name
    assert build_index(films / "films.csv", target, shard_films=2)["made"] == 1
    assert contents(target) == contents(index)


def test_a_film_that_changed_is_embedded_anew(films, tmp_path):
    own = tmp_path / "films"
    shutil.copytree(films, own)
    build_index(own, tmp_path / "index", shard_films=3)
    save_film(own / "1.png", textured(99))
    assert build_index(own, tmp_path / "index", shard_films=3)["made"] == 1
    assert build_index(own, tmp_path / "fresh", shard_films=3)["made"] == 3
    assert contents(tmp_path / "index") == contents(tmp_path / "fresh")


def test_another_way_of_making_it_is_refused(films, index):
    with pytest.raises(ValueError, match="whose dtype is 'float32', not 'float16'; give the same again, or another"):
        build_index(films / "films.csv", index, shard_films=2, dtype="float16")
    with pytest.raises(ValueError, match="the share must be I/N"):
        build_index(films / "films.csv", index, share=(3, 2))
    with pytest.raises(ValueError, match="a segmentation model; give an encoder"):
        build_index(films / "films.csv", index, "chexworld_segmentation")


def test_shares_of_other_films_are_not_mixed(films, tmp_path):
    (tmp_path / "other").mkdir()
    for number in range(3):
        shutil.copy(films / f"{number}.png", tmp_path / "other")
    build_index(tmp_path / "other", tmp_path / "a", shard_films=2, share=(1, 2))
    shutil.copy(films / "5.png", tmp_path / "other" / "0a.png")
    build_index(tmp_path / "other", tmp_path / "b", shard_films=2, share=(2, 2))
    with pytest.raises(ValueError, match="of other films or settings than the first"):
        merge_index([tmp_path / "a", tmp_path / "b"], tmp_path / "merged")
