"""Scores of an index: patients keep apart, splits keep apart, and what is chosen is chosen on validation films."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cxw_monai.retrieval.scores import format_scores, score_columns, write_scores
from tests.helpers.made_index import made_index

COUNT = 120


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """Vectors that hold the view and the patient; the label is noise. Two films of a patient have the same view."""
    rng = np.random.default_rng(0)
    patient, view = np.arange(COUNT) // 2, np.arange(COUNT) // 2 % 2
    vectors = rng.standard_normal((COUNT, 16)) * 0.3 + 3 * rng.standard_normal((COUNT // 2, 16))[patient]
    vectors[:, :6] += 8 * view[:, None]
    cells = {
        "patient_id": [f"p{one}" for one in patient],
        "view": ["PA" if one else "AP" for one in view],
        "label_noise": [str(one) for one in rng.permutation(COUNT // 2)[patient] % 2],
        "sex": ["F" if one % 4 < 2 else "M" for one in range(COUNT)],
        "split": ["training" if one < 30 else "validation" if one < 45 else "test" for one in patient],
    }
    return made_index(tmp_path_factory.mktemp("made") / "index", vectors, cells, size=50)


def test_what_the_vectors_hold_is_found_and_noise_is_not(index):
    view, noise = score_columns(index, ["view", "label_noise"], draws=50)
    assert view.precision[5].value > 0.8 and view.label.scores["auroc"].value > 0.95
    assert abs(noise.precision[5].value - noise.chance) < 0.2  # by its patient's other film it would be above
    assert (view.queries, view.films) == (30, 60) and view.positive == "PA"
    assert {one.point.name for one in view.points} >= {"youden", "sensitivity_90"}
    assert {(one.variable, one.group) for one in noise.groups} == {
        ("view", "AP"),
        ("view", "PA"),
        ("sex", "F"),
        ("sex", "M"),
    }
    assert view.chance == pytest.approx(0.5) and view.voters in (5, 10, 50)


def test_voters_are_training_films_and_of_other_patients(index):
    [view] = score_columns(index, ["view"], draws=0)
    assert view.places.min() >= 90 and 0 <= view.voting.min() <= view.voting.max() < 60


def test_the_report_is_complete_and_self_contained(index, tmp_path):
    found = score_columns(index, ["view"], draws=20)
    write_scores(tmp_path, index, found)
    [plain] = json.loads((tmp_path / "scores.json").read_text())
    assert plain["precision"]["5"]["low"] <= plain["precision"]["5"]["value"] <= plain["precision"]["5"]["high"]
    page = (tmp_path / "evidence.html").read_text()
    assert "view, vote of" in page and "http" not in page
    assert format_scores(found).splitlines()[1].startswith("view    30       60     0.500")


def test_a_column_that_nobody_shares_is_refused(index):
    with pytest.raises(ValueError, match="image: no two films of different patients share a value"):
        score_columns(index, ["image"])
