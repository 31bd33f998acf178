"""The verbs index, search and duplicates, as a user runs them."""

from __future__ import annotations

import csv

import pytest

from tests.helpers.made_index import save_film, textured


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    for number in range(5):
        save_film(folder / f"{number}.png", textured(number))
    with (folder / "films.csv").open("w", newline="") as stream:
        rows = [(f"{n}.png", f"p{n}", "PA" if n % 2 else "AP") for n in range(5)]
        csv.writer(stream).writerows([("image", "patient_id", "view"), *rows])
    return folder


@pytest.fixture
def index(films, run_verb, tmp_path):
    status, out, err = run_verb("index", films / "films.csv", "--output", tmp_path / "index", "--shard-films", 2)
    assert (status, out) == (0, "films: 5, failed: 0, shards: 3, made: 3\n"), err
    return tmp_path / "index"


def test_search_writes_a_table_and_a_page(films, index, run_verb, tmp_path):
    found = tmp_path / "found"
    status, out, err = run_verb("search", index, films / "1.png", "--output", found, "--where", "view=AP", "--count", 9)
    assert status == 0, err
    with (found / "neighbours.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["image"] for row in rows} == {"0.png", "2.png", "4.png"} and {row["query"] for row in rows} == {"1.png"}
    assert [row["rank"] for row in rows] == ["1", "2", "3"] and out.splitlines()[0].startswith("1.png\t1\t")
    page = (found / "search.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 4 and "http" not in page and "view: AP" in page


def test_search_by_a_box_gives_boxes(films, index, run_verb, tmp_path):
    arguments = ("search", index, films / "1.png", "--box", 16, 32, 48, 48, "--output", tmp_path / "found")
    status, _, err = run_verb(*arguments)
    assert status == 0, err
    with (tmp_path / "found" / "neighbours.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 4 and all(float(row["box_width"]) == 48 for row in rows)


def test_a_folder_is_searched_with_a_film_that_cannot_be_read(films, index, run_verb, tmp_path):
    queries = tmp_path / "queries"
    save_film(queries / "a.png", textured(50))
    (queries / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    status, out, err = run_verb("search", index, queries, "--output", tmp_path / "found")
    assert status == 1 and "not searched: " in err and "queries: 1; see" in out


def test_duplicates_tell_by_the_exit_status(films, index, run_verb, tmp_path):
    other = tmp_path / "other"
    save_film(other / "copy.jpg", textured(3), quality=60)
    save_film(other / "new.png", textured(60))
    assert run_verb("duplicates", index, "--output", tmp_path / "alone")[0] == 0
    status, out, _ = run_verb("duplicates", index, other, "--output", tmp_path / "leak")
    assert status == 1 and out.startswith("pairs: 1; films: 5 and 2")
    assert "3.png,copy.jpg" in (tmp_path / "leak" / "pairs.csv").read_text()
    assert (tmp_path / "leak" / "pairs.html").read_text().count("data:image/jpeg") == 2


def test_what_a_user_can_mend_is_one_line_and_status_2(films, index, run_verb, tmp_path):
    film, output = films / "1.png", ("--output", tmp_path / "out")
    wrong = {
        "give films to embed": ("index", *output),
        "no such file or folder": ("index", films / "none", *output),
        "expected I/N": ("index", films, "--shard", "3/2", *output),
        "no shard of an index": ("index", "--merge", films, *output),
        "give a query": ("search", index, *output),
        "no index; make one with cxw-monai index": ("search", films, film, *output),
        "made with another encoder": ("search", index, film, "--ckpt", tmp_path / "encoder.pt", *output),
        "no column 'colour'": ("search", index, film, "--where", "colour=red", *output),
        "lies outside of the film": ("search", index, film, "--box", 900, 900, 5, 5, *output),
        "a box is of one film": ("search", index, films, "--box", 0, 0, 5, 5, *output),
        "the patients of the queries are not known": (
            "search",
            index,
            tmp_path / "new.png",
            "--other-patients",
            *output,
        ),
        "least must lie in": ("duplicates", index, "--least", 2, *output),
    }
    save_film(tmp_path / "new.png", textured(70))
    _other_encoder(tmp_path / "encoder.pt")
    for reason, arguments in wrong.items():
        status, _, err = run_verb(*arguments)
        assert status == 2 and reason in err and "Traceback" not in err, (arguments, err)


def _other_encoder(path):
    import torch

    from cxw_monai.networks import radiograph_vit

    torch.save(radiograph_vit("tiny", image_size=32).state_dict(), path)
