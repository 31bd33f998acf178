"""Tables and page of a classification's evaluation."""

import base64
import csv
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from cxw_monai.metrics.calibration import Temperature
from cxw_monai.metrics.classification import label_scores
from cxw_monai.metrics.operating_points import choose_points
from cxw_monai.tasks.classification.report import worst_films
from cxw_monai.tasks.classification.scored_films import ScoredFilms
from cxw_monai.tasks.classification.scores import write_scores

NAN = float("nan")
FILMS = 60


def picture(number):
    """A ramp of the film's own brightness; film 5 has none."""
    return None if number == 5 else np.full((50, 40), 4 * number, np.uint8)


def multi_label(seed=0):
    """Two labels; logits three times too large; unknown on some films; no film has the third label."""
    generator = np.random.default_rng(seed)
    label = (generator.random((FILMS, 3)) < [0.4, 0.5, 0]).astype(float)
    logits = 3 * (2 * label - 1 + generator.normal(size=(FILMS, 3)))
    label[:6, 1] = NAN
    temperature = Temperature.fit(logits, label)
    names = ["effusion", "lung_opacity", "hernia"]
    points = choose_points(temperature.probabilities(logits), label, names)
    return ScoredFilms(
        names,
        ["<b>odd</b>", *(f"film {n}" for n in range(1, FILMS))],
        [f"patient {n // 2}" if n else None for n in range(FILMS)],
        logits,
        label,
        temperature,
        points,
        {"view": ["AP" if n % 3 else "PA" for n in range(FILMS)], "sex": [None] * FILMS},
    )


def multi_class():
    label = np.arange(FILMS) % 3
    logits = 2.0 * (label[:, None] == np.arange(3)) + np.random.default_rng(0).normal(size=(FILMS, 3))
    label[:3] = -1
    return ScoredFilms(["normal", "bacterial", "viral"], [str(n) for n in range(FILMS)], [None] * FILMS, logits, label)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scores") / "test"
    write_scores(folder, multi_label(), draws=100, picture=picture, cases=7)
    return folder


def table(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_row_a_film(written):
    rows, films = table(written / "films.csv"), multi_label()
    assert [row["film"] for row in rows] == list(films.films)
    kinds = ("label", "probability")  # in this order, though the first film's second label is unknown
    assert list(rows[0]) == ["film", "patient", *(f"{kind}_{name}" for kind in kinds for name in films.names)]
    assert [row["label_lung_opacity"] for row in rows[:7]] == [""] * 6 + [str(int(films.label[6, 1]))]
    assert [row["patient"] for row in rows[:4]] == ["1", "2", "3", "3"]  # numbers, no ids; the first has none
    expected = 1 / (1 + np.exp(-films.logits / films.temperature.values))
    found = [[float(row[f"probability_{name}"]) for name in films.names] for row in rows]
    np.testing.assert_allclose(found, expected, rtol=1e-12)  # ties would change the AUROC


def test_summaries_are_the_scores(written):
    films = multi_label()
    expected = label_scores(films.probability, films.label, films.names, films.groups, draws=100)
    *rows, total = table(written / "summary.csv")
    assert [row["label"] for row in rows] == ["effusion", "lung_opacity", "hernia"] and total["label"] == "all"
    assert (rows[1]["unknown"], rows[2]["positives"], rows[2]["auroc"]) == ("6", "0", "")
    assert rows[2]["reason"] == "not defined: 0 films with it, 60 without"
    auroc = expected[0].scores["auroc"]
    for column, value in (("auroc", auroc.value), ("auroc_low", auroc.low), ("auroc_high", auroc.high)):
        assert float(rows[0][column]) == pytest.approx(value, abs=1e-5)
    found = json.loads((written / "summary.json").read_text())
    assert found["films"] == 60 and found["effusion/auroc"] == auroc.value and "hernia/auroc" not in found
    assert found["all/auroc"] == expected[3].scores["auroc"].value
    assert all(isinstance(value, (int, float)) for value in found.values())


def test_points_subgroups_and_controls(written):
    points = table(written / "operating_points.csv")
    assert [row["label"] for row in points] == ["effusion"] * 5 + ["lung_opacity"] * 5
    for row in points:
        assert float(row["sensitivity"]) == pytest.approx(
            int(row["sensitivity_count"]) / int(row["sensitivity_films"]), abs=1e-5
        )
    groups = table(written / "subgroups.csv")
    assert {(row["variable"], row["group"]) for row in groups} == {("view", "AP"), ("view", "PA")}
    assert sum(int(row["films"]) for row in groups if row["label"] == "effusion") == 60
    assert [row["label"] for row in table(written / "controls.csv")] == ["effusion", "lung_opacity"]


def test_columns_do_not_depend_on_what_is_defined(written, tmp_path):
    films = ScoredFilms(["a"], ["x", "y"], [None, None], np.zeros((2, 1)), np.zeros((2, 1)))
    write_scores(tmp_path, films, draws=0)
    assert list(table(tmp_path / "summary.csv")[0]) == list(table(written / "summary.csv")[0])


def test_no_patient_is_named_anywhere(written):
    assert len(list(written.iterdir())) == 7
    assert not any(re.search(r"patient \d", path.read_text()) for path in written.iterdir())


def test_the_page_needs_nothing_and_shows_the_worst_first(written):
    page, films = (written / "report.html").read_text(), multi_label()
    worst = worst_films(films, 7)
    far = np.nanmax(np.abs(films.probability - films.label), axis=1)
    assert list(far[worst]) == sorted(far, reverse=True)[:7]
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    assert captions == [films.films[n].replace("<", "&lt;").replace(">", "&gt;") for n in worst if n != 5]
    sources = re.findall(r'(?:src|href)="(.*?)"', page)
    assert all(source.startswith("data:image/") for source in sources) and "http" not in page and "url(" not in page
    pictures = [Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))) for source in sources]
    assert [shown.format for shown in pictures] == ["PNG"] * 3 + ["JPEG"] * len(captions)
    greys = [int(np.asarray(shown).mean().round()) for shown in pictures[3:]]
    assert greys == [4 * n for n in worst if n != 5]


def test_the_page_says_what_is_not_defined(written):
    page = (written / "report.html").read_text()
    assert "not defined: 0 films with it, 60 without" in page and "6 labels are unknown" in page
    assert "nan" not in re.sub(r'src=".*?"', "", page).lower()


def test_confusion_of_labels_by_hand(tmp_path):
    logits = np.array([[2.0], [1.0], [-1.0], [1.0], [-1.0], [-1.0], [5.0]])
    label = np.array([[1], [1], [1], [0], [0], [0], [NAN]])
    write_scores(tmp_path, ScoredFilms(["a"], list("tuvwxyz"), [None] * 7, logits, label), draws=0)
    page = (tmp_path / "report.html").read_text()
    assert "<tr><td>a</td><td>2</td><td>1</td><td>1</td><td>2</td></tr>" in page
    assert {path.name for path in tmp_path.iterdir()} == {"films.csv", "summary.csv", "summary.json", "report.html"}
    assert "Operating points" not in page and "Subgroups" not in page and "figcaption>" not in page


def test_classes(tmp_path):
    films = multi_class()
    found = write_scores(tmp_path, films, draws=20, picture=picture, cases=3)
    right = films.logits[3:].argmax(axis=1) == films.label[3:]
    assert found.labels[-1].scores["accuracy"].value == right.mean()
    page = (tmp_path / "report.html").read_text()
    counts = [int(count) for count in re.findall(r'<td class="right">(\d+)</td>', page)]
    assert sum(counts) == right.sum() and len(counts) == 3
    probability = np.exp(films.logits) / np.exp(films.logits).sum(axis=1, keepdims=True)
    true = probability[np.arange(3, FILMS), films.label[3:]]
    assert worst_films(films, 3) == list(3 + np.argsort(true)[:3])


def test_nothing_known(tmp_path):
    films = ScoredFilms(["a"], ["x", "y"], [None, None], np.zeros((2, 1)), np.full((2, 1), NAN))
    write_scores(tmp_path, films, picture=picture)
    row, _ = table(tmp_path / "summary.csv")
    assert row["reason"] == "not defined: 0 films with it, 0 without" and row["unknown"] == "2"
    assert worst_films(films, 5) == []


def test_sixteen_bits_are_shown_like_eight(tmp_path):
    pages = []
    for scale, kind in ((1, np.uint8), (257, np.uint16)):
        ramp = (np.arange(64).reshape(8, 8) * scale).astype(kind)
        write_scores(tmp_path, multi_class(), draws=0, picture=lambda number, ramp=ramp: ramp, cases=1)
        pages.append((tmp_path / "report.html").read_text())
    assert pages[0] == pages[1]


def test_lengths_that_differ_are_refused():
    with pytest.raises(ValueError, match="3 films have logits, but there are {'films': 2}"):
        ScoredFilms(["a"], ["x", "y"], [None] * 3, np.zeros((3, 1)), np.zeros((3, 1)))
