"""Neighbours are those of all pairs, whatever the shards, filters and backend."""

from __future__ import annotations

import numpy as np
import pytest

from cxw_monai.retrieval import ExactSearch
from cxw_monai.retrieval.faiss_search import FaissSearch
from cxw_monai.retrieval.search import same_films
from tests.helpers.made_index import made_index

COUNT, WIDTH = 60, 12


def vectors(count=COUNT, seed=0):
    """With a mean and deviations that a cosine of the vectors as they are would be ruled by."""
    rng = np.random.default_rng(seed)
    return (5 + rng.standard_normal((count, WIDTH)) * np.geomspace(0.1, 10, WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    cells = {
        "view": ["PA" if n % 3 else "AP" for n in range(COUNT)],
        "patient_id": [f"p{n // 4}" for n in range(COUNT)],
        "sex": ["F" if n % 2 else "" for n in range(COUNT)],
    }
    return made_index(tmp_path_factory.mktemp("made") / "index", vectors(), cells)


def all_pairs(values):
    standard = (values - values.mean(axis=0)) / values.std(axis=0)
    standard /= np.linalg.norm(standard, axis=1, keepdims=True)
    return standard @ standard.T


def test_neighbours_are_those_of_all_pairs(index):
    expected = all_pairs(vectors().astype(np.float64))
    found = ExactSearch(index).search(vectors(), 5)
    assert found.place.tolist() == np.argsort(-expected, axis=1)[:, :5].tolist()
    np.testing.assert_allclose(found.similarity, -np.sort(-expected, axis=1)[:, :5], atol=2e-5)


def test_filters_and_films_left_out(index):
    allowed = index.where([("view", "AP"), ("view", "LAT"), ("sex", "F")])
    assert np.flatnonzero(allowed).tolist() == list(range(3, COUNT, 6))
    found = ExactSearch(index).search(vectors()[[3, 9]], 12, allowed, [np.array([3]), np.array([], int)])
    assert 3 not in found.place[0] and found.place[1, 0] == 9
    assert set(found.place[1].tolist()) == {*range(3, COUNT, 6), -1}
    assert np.isneginf(found.similarity[1, 10:]).all()
    with pytest.raises(ValueError, match=r"no film with view 'oblique'; it has 'AP', 'PA'"):
        index.where([("view", "oblique")])
    with pytest.raises(ValueError, match="no column 'colour'; it has image, file_sha256, view"):
        index.where([("colour", "red")])


def test_films_of_the_query_and_of_its_patient(index):
    own, other = same_films(index, ["digest5", "unknown"], ["p0", None])
    assert own.tolist() == [0, 1, 2, 3, 5] and other.tolist() == []
    assert [place.tolist() for place in same_films(index, ["digest5"])] == [[5]]


def test_queries_must_be_numbers_of_the_indexs_width(index):
    for wrong in (np.zeros((1, 3)), np.full((1, WIDTH), np.nan), np.zeros(WIDTH)):
        with pytest.raises(ValueError, match=r"queries must be finite, of the shape \[Q, 12\]"):
            ExactSearch(index).search(wrong, 1)


def test_few_films_are_compared_as_they_are(tmp_path):
    """Of two films the standardised ones are each other's negatives, however alike they are."""
    found = ExactSearch(made_index(tmp_path / "index", vectors(2))).search(vectors(2), 2)
    first, second = vectors(2).astype(np.float64)
    cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    np.testing.assert_allclose(found.similarity, [[1, cosine], [1, cosine]], atol=1e-5)


def test_half_precision_moves_similarities_by_little(index, tmp_path):
    half = ExactSearch(made_index(tmp_path / "index", vectors(), dtype="float16"))
    whole = ExactSearch(index).similarities(vectors()).numpy()
    assert 0 < np.abs(half.similarities(vectors()).numpy() - whole).max() < 0.05


def test_faiss_with_all_cells_finds_what_the_exact_search_finds(index):
    pytest.importorskip("faiss")
    allowed, left_out = index.where([("view", "PA")]), [np.array([1, 2]), np.array([], int)]
    exact = ExactSearch(index).search(vectors()[[1, 4]], 8, allowed, left_out)
    search = FaissSearch(index, cells=1, probes=1)
    found = search.search(vectors()[[1, 4]], 8, allowed, left_out)
    assert found.place.tolist() == exact.place.tolist()
    np.testing.assert_allclose(found.similarity, exact.similarity, atol=2e-3)
    assert (search.search(vectors()[:1], COUNT + 3).place[0, COUNT:] == -1).all()
