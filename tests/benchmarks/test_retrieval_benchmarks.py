"""The benchmarks of search and localisation on a few small films."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from benchmarks.localisation.__main__ import main as localisation
from benchmarks.localisation.experiment import BoxedFilm, boxed_films, localise
from benchmarks.retrieval.planted import CHANGES, leak_check
from benchmarks.retrieval.speed import time_search
from cxw_monai.retrieval import FilmIndex, build_index
from tests.helpers.made_index import save_film, textured


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    for number in range(4):
        save_film(folder / f"{number}.png", textured(number))
    with (folder / "films.csv").open("w", newline="") as stream:
        boxes = json.dumps([["Nodule", 0, 0, 40, 80], ["Other", 0, 0, 9, 9]])
        rows = [(f"{n}.png", f"p{n}", boxes if n < 3 else "") for n in range(4)]
        csv.writer(stream).writerows([("image", "patient_id", "bbox_xywh"), *rows])
    return folder


def test_planted_copies_are_counted(films, tmp_path):
    build_index(films, tmp_path / "index")
    rows = leak_check(FilmIndex(tmp_path / "index"), tmp_path / "leak", 1)
    assert [row["change"] for row in rows] == list(CHANGES)
    assert all(row["planted"] == 1 and row["false pairs"] == 0 for row in rows)
    assert sum(int(str(row["found"])) for row in rows) >= len(rows) - 1


def test_speed_tells_what_it_measured():
    row = time_search(500, 8, "float16", with_faiss=False, queries=2)
    assert (row["films"], row["dtype"]) == (500, "float16") and "processor" in str(row["query, ms"])


def test_a_map_that_knows_the_box_hits_and_its_mirror_image_does_not(films):
    found = boxed_films(films / "films.csv", "all", ["Nodule"])
    assert found[0] == BoxedFilm(str(films / "0.png"), "p0", "Nodule", [(0.0, 0.0, 0.25, 0.5)])
    assert len(found) == 3 and len(boxed_films(films / "films.csv", "all", ["Nodule"], {"1"})) == 1
    values = np.zeros((4, 8))
    values[:2, :2] = 1
    rows = localise(found, {"right": lambda film, name: values, "wrong": lambda film, name: values[:, ::-1]})
    scores = {row.source: row.scores for row in rows}
    assert scores["right"].hits.value == 1 and scores["right"].overlap.value > 0.7
    assert scores["wrong"].hits.value == scores["wrong"].overlap.value == 0
    assert scores["right"].chance_hits.value == pytest.approx(0.125) and "centre of a lung" in scores
    with pytest.raises(ValueError, match="no film of 'all' has a box of Mass"):
        boxed_films(films / "films.csv", "all", ["Mass"])


def test_what_is_no_classifier_is_refused(films, capsys):
    status = localisation(["--model", "bundles/chexworld_pretraining", "--datalist", str(films / "films.csv")])
    assert status == 2 and "not a classifier" in capsys.readouterr().err
