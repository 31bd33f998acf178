"""Scores by group, and whether the group alone tells the label."""

from dataclasses import replace

import numpy as np
import pytest

from cxw_monai.metrics.classification import Score, label_scores
from cxw_monai.metrics.subgroups import GroupControl, age_band, group_controls, subgroups

NAN = float("nan")


def made(films=400, seed=0):
    """A label that three of four AP films have and one of four PA films, and a classifier that only sees the view."""
    generator = np.random.default_rng(seed)
    view = np.array(["AP", "PA"])[generator.integers(0, 2, films)]
    label = (generator.random(films) < np.where(view == "AP", 0.75, 0.25)).astype(float)[:, None]
    probability = np.clip(np.where(view == "AP", 0.7, 0.3) + generator.normal(scale=0.05, size=films), 0, 1)[:, None]
    return probability, label, ["effusion"], [f"p{film}" for film in range(films)], list(view)


def test_a_classifier_that_sees_only_the_view_is_found_out():
    probability, label, names, patients, view = made()
    (found,) = group_controls(probability, label, names, patients, {"view": view}, draws=200)
    assert found.overall.value > 0.7 and found.overall.value < found.variable_alone.value + 0.02
    assert found.within.low < 0.5 < found.within.high


def test_a_classifier_that_sees_the_label_keeps_its_worth_within_the_view():
    _, label, names, patients, view = made()
    (found,) = group_controls(0.2 + 0.6 * label, label, names, patients, {"view": view}, draws=0)
    assert found.within.value == found.overall.value == 1 and found.within.low is None


def test_controls_by_hand():
    """AP: a positive at .9 above a negative at .8; PA: a positive at .2 below a negative at .3; one view unknown."""
    probability, label = np.array([[0.9], [0.8], [0.2], [0.3], [0.3], [0.5]]), np.array([[1], [0], [1], [0], [0], [1]])
    view = ["AP", "AP", "PA", "PA", "PA", None]
    (found,) = group_controls(probability, label, ["a"], "uvwxyz", {"view": view}, draws=0)
    assert found.films == 5
    assert found.overall.value == 3 / 6  # .9 above three, .2 above none
    assert found.within.value == 1 / 3  # one pair of AP, two of PA
    assert found.variable_alone.value == (1 + 1 / 2 * 1 + 1 + 1 / 2 * 2) / 6  # shares 1/2 and 1/3


def test_groups_have_the_scores_of_their_films():
    probability, label, names, patients, view = made()
    sex = ["F" if film % 3 else "M" for film in range(400)]
    sex[0] = None
    found = subgroups(probability, label, names, patients, {"view": view, "sex": sex}, draws=20, seed=2)
    assert [(group.variable, group.group) for group in found] == [
        ("view", "AP"), ("view", "PA"), ("sex", "F"), ("sex", "M")
    ]  # fmt: skip
    men = np.array([value == "M" for value in sex])
    ids = [patient for patient, chosen in zip(patients, men, strict=True) if chosen]
    assert found[3].scores == label_scores(probability[men], label[men], names, ids, draws=20, seed=2)
    assert sum(group.scores[0].films for group in found[2:]) == 399


def test_a_group_with_one_value_is_counted():
    probability, label, names, patients, view = made()
    label[np.array(view) == "PA"] = 0
    pa = subgroups(probability, label, names, patients, {"view": view}, draws=0)[1].scores[0]
    assert "auroc" not in pa.scores and pa.negatives == view.count("PA") and "0 films with it" in pa.reason


def test_classes():
    probability = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.4, 0.6]])
    how = np.array([0, 1, 0, 0]), ["a", "b"], "wxyz", {"view": ["AP", "AP", "PA", "PA"]}
    ap, pa = subgroups(probability, *how, draws=0)
    assert (ap.scores[-1].scores["accuracy"].value, pa.scores[-1].scores["accuracy"].value) == (1, 0.5)
    assert {control.label for control in group_controls(probability, *how, draws=0)} == {"a", "b"}


def test_a_label_that_is_the_view_cannot_be_told_from_it():
    probability, _, names, patients, _ = made()
    label = (np.arange(400) < 200).astype(float)[:, None]
    halves = ["AP" if film < 200 else "PA" for film in range(400)]
    (found,) = group_controls(probability, label, names, patients, {"view": halves}, draws=20)
    assert found.within is None and found.variable_alone.value == 1
    assert found.verdict.startswith("view alone tells the label (AUROC 1.00)")
    assert group_controls(probability, label, names, patients, {"view": ["AP"] * 400}, draws=0) == []


@pytest.mark.parametrize(
    ("within", "alone", "verdict"),
    [
        (
            (0.8, 0.7, 0.9),
            (0.6, 0.4, 0.7),
            "view alone does not tell the label; the classifier finds it within a group",
        ),
        ((0.5, 0.4, 0.6), (0.9, 0.8, 1.0), "view alone tells the label (AUROC 0.90); within a group the classifier is"),
    ],
)
def test_the_control_in_words(within, alone, verdict):
    control = GroupControl("view", "edema", 9, Score(0.9, 0.8, 1.0), Score(*within), Score(*alone))
    assert control.verdict.startswith(verdict)
    chance = replace(control, overall=Score(0.6, 0.4, 0.8))
    assert chance.verdict.endswith("the classifier is no better than chance")


def test_a_variable_of_another_length_is_refused():
    probability, label, names, patients, view = made()
    for function in (subgroups, group_controls):
        with pytest.raises(ValueError, match="view has 3 values for 400 films"):
            function(probability, label, names, patients, {"view": view[:3]})


@pytest.mark.parametrize(
    ("age", "band"),
    [(0, "0 to 5"), (5.9, "0 to 5"), (6, "6 to 17"), (39, "18 to 39"), (79.5, "60 to 79"), (80, "80 or more"),
     (104, "80 or more"), (None, None), (NAN, None)],
)  # fmt: skip
def test_age_bands(age, band):
    assert age_band(age) == band
