"""The masking test: films by hand, and classifiers of which it is known what they read."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import cxw_monai
from benchmarks.shortcut.__main__ import main
from benchmarks.shortcut.experiment import listed_region, show
from benchmarks.shortcut.masking import FILLS, VARIANTS, variant
from benchmarks.shortcut.matrix import label_matrices

FILM = np.arange(30.0).reshape(5, 6) / 30
REGION = np.zeros((5, 6), bool)
REGION[1, 2] = REGION[3, 3] = True


@pytest.mark.parametrize(
    ("name", "kept"),
    [("full", 30), ("no_region", 28), ("only_region", 2), ("no_box", 24), ("only_box", 6)],  # a box of 3 x 2 px
)
def test_variants_by_hand(name, kept):
    shown = variant(FILM + 0.01, REGION, name, "zero")
    assert (shown > 0).sum() == kept
    assert (shown[1, 2] > 0) == (name in ("full", "only_region", "only_box"))
    assert (shown[3, 2] > 0) == (name not in ("no_box", "only_region"))  # in the box, not in the region
    np.testing.assert_allclose(shown[shown > 0], (FILM + 0.01)[shown > 0], rtol=1e-6)


def test_fills():
    assert variant(FILM, REGION, "no_region", "mean")[1, 2] == pytest.approx(FILM.mean())
    edge = np.zeros((64, 64))
    edge[:, 32:] = 1
    where = np.zeros((64, 64), bool)
    where[20:40, 10:54] = True
    shown = variant(edge, where, "no_region", "blur")
    assert 0.3 < shown[30, 31] < shown[30, 33] < 0.7 and shown[30, 12] < 0.01 and shown[10, 31] == 0


@pytest.mark.parametrize(
    ("how", "message"),
    [(("none", "mean"), "expected one of"), (("full", "none"), "expected one of")],
)
def test_what_is_refused(how, message):
    with pytest.raises(ValueError, match=message):
        variant(FILM, REGION, *how)
    with pytest.raises(ValueError, match="of one size"):
        variant(FILM, REGION[1:], "full", "mean")
    with pytest.raises(ValueError, match="empty"):
        variant(FILM, ~REGION & REGION, "full", "mean")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Sixty films: a finding makes a square inside of the region brighter, and a marker in the corner."""
    folder = tmp_path_factory.mktemp("films")
    generator, rows = np.random.default_rng(0), []
    mask = np.zeros((32, 32), np.uint8)
    mask[8:24, 8:24] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    for number in range(60):
        finding = number % 2
        film = generator.integers(60, 120, (32, 32))
        film[12:20, 12:20] += 20 * finding
        film[:4, :4] = 200 if finding else 60
        Image.fromarray(film.astype(np.uint8)).save(folder / f"{number}.png")
        known = "" if number < 2 else finding
        rows.append([f"{number}.png", f"p{number}", "test", known, finding, "" if number == 5 else "mask.png"])
    with (folder / "manifest.csv").open("w", newline="") as stream:
        columns = ["image", "patient_id", "split", "label_opacity", "label_other", "mask_lung"]
        csv.writer(stream).writerows([columns, *rows])
    return folder / "manifest.csv"


def reads_region(film, on_implausible="keep"):
    return {"opacity": float(film[12:20, 12:20].mean()), "not in the manifest": 0.5}


def reads_marker(film, on_implausible="keep"):
    return {"opacity": float(film[:4, :4].mean())}


def reads_nothing(film):
    return {"opacity": float(film[28, 28])}


def matrix_of(classify, manifest):
    shown = show(manifest, "test", classify, listed_region(["mask_lung"]))
    return label_matrices(shown.probability, shown.label, shown.names, shown.patients, draws=100), shown


def test_a_classifier_that_reads_the_region_keeps_nothing_without_it(manifest):
    (matrix,), shown = matrix_of(reads_region, manifest)
    assert (matrix.label, matrix.films, matrix.positives) == ("opacity", 57, 28)  # two unknown, one without a region
    assert shown.names == ["opacity"] and shown.label.shape == (57, 1)
    for fill in FILLS:
        assert matrix.auroc["full", fill].value > 0.95 and matrix.auroc["only_region", fill].value > 0.95
    assert matrix.auroc["no_region", "zero"].value == 0.5 and matrix.left["no_region", "zero"].value == 0
    assert matrix.verdict == "0% is left without the region, 0% without its box"


def test_a_classifier_that_reads_a_marker_is_suspect(manifest):
    (matrix,), _ = matrix_of(reads_marker, manifest)
    assert all(score.value == 1 for score in matrix.left.values())
    assert matrix.auroc["only_region", "zero"].value == matrix.auroc["only_box", "zero"].value == 0.5
    assert matrix.verdict.endswith("100% without its box: suspect, it reads something else")


def test_a_region_whose_outline_tells():
    """Without the region its outline is to be seen, without its box it isn't."""
    label = np.repeat([0.0, 1.0], 20)[:, None]
    said = {(name, fill): label if name != "no_box" else 0 * label for name in VARIANTS for fill in FILLS}
    (matrix,) = label_matrices(said, label, ["a"], [str(n) for n in range(40)], draws=20)
    assert matrix.verdict == "100% is left without the region, 0% without its box: it may read the outline"


def test_nothing_is_said_of_a_classifier_that_is_no_better_than_chance(manifest):
    (matrix,), _ = matrix_of(reads_nothing, manifest)
    assert matrix.left == {} and "no better than chance" in matrix.verdict


def test_what_is_left_is_drawn_with_the_same_patients():
    """Half of the positives are found without the region: .75 and 1 are half above chance, in every resampling."""
    label = np.repeat([0.0, 1.0], 40)[:, None]
    full = label.copy()
    half = np.where(np.arange(80)[:, None] % 2, full, 0.0)
    said = {(name, fill): half if name == "no_region" else full for name in VARIANTS for fill in FILLS}
    (matrix,) = label_matrices(said, label, ["a"], [f"p{n // 2}" for n in range(80)], draws=200)
    left = matrix.left["no_region", "mean"]
    assert (left.value, left.low, left.high) == pytest.approx((0.5, 0.5, 0.5))  # a patient has one film of each kind
    assert not matrix.verdict.endswith("else")


def test_the_command(manifest, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        cxw_monai, "load", lambda name: SimpleNamespace(classify=lambda film, on_implausible: reads_marker(film))
    )
    how = ["--model", "m", "--datalist", str(manifest), "--masks", "mask_lung", "--output", str(tmp_path / "out")]
    assert main([*how, "--draws", "50", "--limit", "40"]) == 0
    assert "opacity (40 films): 100% is left" in capsys.readouterr().out
    with (tmp_path / "out" / "matrix.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(VARIANTS) * len(FILLS)
    assert [row["left"] for row in rows if row["variant"] == "no_box"] == ["1.00000"] * 3
    assert Image.open(tmp_path / "out" / "shortcut.png").size[0] == 1210


def test_a_function_of_another_package_and_a_column_of_another_name(manifest, tmp_path, capsys):
    how = ["--datalist", str(manifest), "--masks", "mask_lung", "--output", str(tmp_path), "--draws", "20"]
    how += [
        "--label-map",
        '{"opacity": {"label_other": "1"}}',
        "--model",
        "tests.benchmarks.test_shortcut:reads_region",
    ]
    assert main(how) == 0
    assert "opacity (59 films): 0% is left" in capsys.readouterr().out  # known on all films there


def test_the_segmenter_finds_the_region(manifest, tmp_path, monkeypatch, capsys):
    def segment(film, on_implausible):
        mask = np.zeros(film.shape, bool)
        mask[8:24, 8:24] = True
        return {"heart": mask}

    models = {"m": SimpleNamespace(classify=reads_region), "s": SimpleNamespace(structures=("heart",), segment=segment)}
    monkeypatch.setattr(cxw_monai, "load", models.__getitem__)
    how = ["--model", "m", "--datalist", str(manifest), "--segmenter", "s", "--output", str(tmp_path), "--draws", "20"]
    assert main([*how, "--structures", "heart"]) == 0
    assert "opacity (58 films): 0% is left" in capsys.readouterr().out
    assert main(how) == 2
    assert "s has no lung_field_left, lung_field_right; it has heart" in capsys.readouterr().err


def test_no_film_with_a_region(manifest):
    with pytest.raises(ValueError, match="no film of 'test' has a region"):
        show(manifest, "test", reads_region, listed_region(["mask_heart"]))
