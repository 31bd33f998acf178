"""Comparison of two files of scores."""

import csv
import json

import numpy as np
import pytest

from cxw_monai.cli import main
from cxw_monai.metrics.comparison import compare_files
from cxw_monai.metrics.delong import compare_aurocs

RNG = np.random.default_rng(0)
POSITIVE = np.arange(60) % 3 == 0
FIRST, SECOND = (RNG.normal(size=60) + gain * POSITIVE for gain in (2.0, 0.3))


def write(path, scores, order=range(60), **columns):
    """Two films a patient; `edema` is unknown on the first two films, and no film has `mass`."""
    rows = []
    for film in order:
        label = "" if film < 2 else int(POSITIVE[film])
        probability = repr(float(1 / (1 + np.exp(-scores[film]))))
        row = {"film": f"f{film}", "patient": film // 2, "label_edema": label, "probability_edema": probability}
        rows.append({**row, "label_mass": 0, "probability_mass": 0.5} | columns)
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_tables_that_cannot_be_compared_are_refused_by_name(tmp_path):
    good = write(tmp_path / "a.csv", FIRST)
    for name, make, said in (
        ("no_number.csv", lambda path: write(path, SECOND, probability_edema="nan"), "a probability is no number"),
        ("empty.csv", lambda path: write(path, SECOND, probability_edema=""), "a probability is no number"),
        ("twice.csv", lambda path: write(path, SECOND, order=[*range(60), 3]), "a film is listed twice"),
        ("missing.csv", lambda path: path, "No such file or directory"),
    ):
        with pytest.raises(ValueError, match=rf"{name}: .*{said}"):
            compare_files(good, make(tmp_path / name))
    with pytest.raises(ValueError, match="bootstrap and seed must be 0 or more, got -5 and 0"):
        compare_files(good, good, draws=-5)


def test_films_are_joined_by_name_and_patients_kept_together(tmp_path):
    first = write(tmp_path / "a.csv", FIRST)
    second = write(tmp_path / "b.csv", SECOND, order=RNG.permutation(60))
    (found,) = compare_files(first, second)
    patients = [str(film // 2) for film in range(2, 60)]
    expected = compare_aurocs(FIRST[2:], SECOND[2:], POSITIVE[2:], patients)
    assert (found.label, found.films, found.patients, found.positives) == ("edema", 58, 29, 19)
    assert (found.first, found.second) == pytest.approx((expected.first, expected.second))
    assert (found.delong.low, found.delong.p) == pytest.approx((expected.low, expected.p))
    assert found.difference.value == pytest.approx(expected.difference)
    assert found.difference.low == pytest.approx(expected.low, abs=0.08) and found.difference.low > 0


def test_a_classifier_does_not_differ_from_itself(tmp_path):
    """With the draws paired, the interval of no difference is of no width."""
    file = write(tmp_path / "a.csv", FIRST)
    (found,) = compare_files(file, file)
    assert (found.difference.value, found.difference.low, found.difference.high, found.delong.p) == (0, 0, 0, 1)


def test_the_command_prints_a_table_and_writes_json(tmp_path, capsys):
    files = [str(write(tmp_path / name, scores)) for name, scores in (("a.csv", FIRST), ("b.csv", SECOND))]
    assert main(["compare", *files, "--output", str(tmp_path / "out" / "found.json")]) == 0
    (told,) = json.loads((tmp_path / "out" / "found.json").read_text())
    head, line = capsys.readouterr().out.splitlines()
    assert "DeLong 95 %" in head
    assert f"{told['difference']['value']:+.4f}" in line and f"{told['delong']['p']:.4f}" in line


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"order": range(59)}, "differ in 1 films, such as 'f59'"),
        ({"label_edema": 1}, "have another label_edema of 'f0'"),
        ({"film": "x", "order": [0]}, "differ in 61 films"),
    ],
)
def test_other_films_or_labels_are_refused(tmp_path, capsys, other, said):
    files = [str(write(tmp_path / "a.csv", FIRST)), str(write(tmp_path / "b.csv", SECOND, **other))]
    assert main(["compare", *files]) == 2
    assert said in capsys.readouterr().err


def test_what_is_no_table_of_scores_is_refused(tmp_path):
    (tmp_path / "other.csv").write_text("image,label_edema\na.png,1\n")
    with pytest.raises(ValueError, match=r"other\.csv: no table of films"):
        compare_files(tmp_path / "other.csv", tmp_path / "other.csv")
