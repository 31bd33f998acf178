"""Frozen probes: what they must find, what they must not find, and what they must refuse."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cxw_monai.cli import main
from cxw_monai.metrics.descriptors import Descriptors, encoder_descriptors, load_descriptors, pixel_descriptors
from cxw_monai.metrics.probe_files import format_results, probe_files, read_films
from cxw_monai.metrics.probes import READINGS, ProbeSettings, binary_label, grouped_auroc, probe
from cxw_monai.metrics.readings import STRENGTHS, linear_scores
from cxw_monai.networks import radiograph_vit

FAST = ProbeSettings(bootstrap=100, strengths=(1e-2, 1.0))


def cohort(patients: int = 60, films: int = 2, seed: int = 0) -> tuple[np.ndarray, list[str], np.random.Generator]:
    """Labels of the films (0/1, one a patient, as many of each), patient ids, and a generator."""
    rng = np.random.default_rng(seed)
    of_patient = rng.permutation(np.arange(patients) % 2)
    return np.repeat(of_patient, films), [f"p{i // films}" for i in range(patients * films)], rng


def test_separable_label_gives_one():
    labels, patients, rng = cohort()
    values = rng.normal(size=(len(labels), 8))
    values[:, 3] += 20 * labels
    result = probe(values, labels.tolist(), patients, FAST)
    assert (result.auroc, result.low, result.high) == (1.0, 1.0, 1.0)
    assert result.counts == {"0": 60, "1": 60}
    assert (result.positive, result.patients, result.missing, result.reason) == ("1", 60, 0, None)
    assert len(result.strengths) == 5


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_random_embeddings_cover_one_half(seed):
    labels, patients, rng = cohort(patients=100, seed=seed)
    result = probe(rng.normal(size=(len(labels), 8)), labels.tolist(), patients, FAST)
    assert result.low < 0.5 < result.high
    assert result.low < result.auroc < result.high


def test_patient_identity_is_worth_nothing():
    """A leaky split would find every label by the patient's other films; a pooled AUROC would fall below 0.5."""
    labels, patients, _ = cohort(patients=40, films=4)
    identity = np.repeat(np.eye(40), 4, axis=0)
    assert probe(identity, labels.tolist(), patients, FAST).auroc == pytest.approx(0.5, abs=0.05)
    films = [f"film{i}" for i in range(len(labels))]  # each film a patient of its own: the leak
    assert probe(identity, labels.tolist(), films, FAST).auroc > 0.99


def test_weak_signal_lies_between_and_order_of_films_does_not_matter():
    labels, patients, rng = cohort(patients=80)
    values = rng.normal(size=(len(labels), 4))
    values[:, 0] += 1.5 * labels  # two normals 1.5 apart: AUROC = Phi(1.5 / sqrt 2) = 0.856
    result = probe(values, labels.tolist(), patients, FAST)
    assert result.auroc == pytest.approx(0.856, abs=0.06)
    assert result.low < result.auroc < result.high
    assert probe(values, labels.tolist(), patients, FAST) == result


def test_grouped_auroc_by_hand():
    scores = np.array([0.1, 0.4, 0.4, 0.8, 9.0, 7.0])
    positive = np.array([False, True, False, True, False, True])
    folds = np.array([0, 0, 0, 0, 1, 1])
    ones = np.ones((1, 6))
    # fold 0: pairs (.4, .1) right, (.4, .4) tie, (.8, .1), (.8, .4) right = 3.5 of 4; fold 1: 0 of 1
    assert grouped_auroc(scores, positive, folds, ones)[0] == pytest.approx(3.5 / 5)
    # the tied positive twice, fold 1's negative never: 2 * 1.5 + 2 = 5 of 6
    weighted = np.array([[1, 2, 1, 1, 0, 1]])
    assert grouped_auroc(scores, positive, folds, weighted)[0] == pytest.approx(5 / 6)
    assert np.isnan(grouped_auroc(scores, positive, folds, np.array([[1, 0, 1, 0, 1, 0]]))[0])


@pytest.mark.parametrize(
    ("values", "classes", "names"),
    [
        (["PA", "AP", None, ""], [1, 0, -1, -1], ["AP", "PA"]),
        ([1, 0.0, float("nan"), "1.0", True], [1, 0, -1, 1, 1], ["0", "1"]),
        (["nan", "M"], [-1, 0], ["M"]),
        (["a", "b", "c"], [0, 1, 2], ["a", "b", "c"]),
    ],
)
def test_binary_label(values, classes, names):
    found, found_names = binary_label(values)
    assert (found.tolist(), found_names) == (classes, names)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (["1"] * 40, "1 values (1), two are needed"),
        ([None] * 40, "no values"),
        (["a", "b", "c", "d"] * 10, "4 values (a, b, c, ...), two are needed"),
        (["1"] * 8 + ["0"] * 32, "4 patients with 1, 5 folds need at least 5"),  # two films a patient
    ],
)
def test_label_that_cannot_be_probed_says_why(labels, reason):
    values = np.random.default_rng(0).normal(size=(40, 3))
    result = probe(values, labels, [i // 2 for i in range(40)], FAST, "e", "x")
    assert result.reason == reason
    assert result.auroc is None and result.low is None
    table = format_results([asdict(result)])
    assert f"not computable: {reason}" in table


def test_missing_values_are_left_out_and_counted():
    labels, patients, rng = cohort()
    values = rng.normal(size=(len(labels), 4))
    values[:, 0] += 20 * labels
    gaps = [None if i % 6 == 0 else str(label) for i, label in enumerate(labels)]
    kept = [i for i, label in enumerate(gaps) if label is not None]
    values[::6] = 1e6  # must not matter
    result = probe(values, gaps, patients, FAST)
    assert result.missing == 20
    assert sum(result.counts.values()) == 100
    without = probe(values[kept], [gaps[i] for i in kept], [patients[i] for i in kept], FAST)
    assert result == replace(without, missing=20)
    assert result.auroc == 1.0


def test_wrong_settings_and_lengths_are_refused():
    with pytest.raises(ValueError, match="folds must be at least 2, got 1"):
        ProbeSettings(folds=1)
    with pytest.raises(ValueError, match="differ in length: 3, 2, 3"):
        probe(np.zeros((3, 1)), [0, 1], [0, 1, 2])


@pytest.fixture
def study(tmp_path: Path) -> tuple[Path, Path]:
    """Embeddings and manifest of 40 films of 20 patients; the films' left half is bright where `bright` is 1."""
    rng = np.random.default_rng(3)
    rows, vectors, images = [], [], []
    for number in range(40):
        bright = number // 2 % 2
        film = rng.integers(60, 120, (20, 24), dtype=np.uint8)
        film[:, :12] += np.uint8(100 * bright)
        path = tmp_path / f"film_{number:02d}.png"
        Image.fromarray(film).save(path)
        rows.append(
            {
                "image": path.name,
                "patient_id": f"p{number // 2}",
                "bright": bright,
                "view": "" if number == 0 else "AP",
                "coin": ["PA", "AP"][int(rng.integers(2))],
            }
        )
        images.append(str(path))
        vectors.append(rng.normal(size=6) + 20 * bright)
    manifest = tmp_path / "manifest.csv"
    with manifest.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    order = rng.permutation(40)
    values = np.array(vectors, dtype=np.float32)[order]
    patches = (
        rng.normal(size=(40, 6, 2, 2)) * (1 + 5 * np.array([r["bright"] for r in rows])[order])[:, None, None, None]
    )
    np.savez(
        tmp_path / "embeddings.npz",
        embeddings=values,
        image=np.array(images)[order],
        patches=patches.astype(np.float16),
    )
    return tmp_path / "embeddings.npz", manifest


def test_files_are_matched_by_path_whatever_their_order(study):
    report = probe_files([study[0]], read_films(study[1]), ["bright", "view"], FAST, pixels=4, tokens=True)
    found = {(r["descriptor"], r["label"]): r for r in report["results"]}
    names = [str(study[0]), f"{study[0]} tokens", "pixels 4x4"]
    assert list(found) == [(name, label) for name in names for label in ("bright", "view")]
    assert [found[name, "bright"]["auroc"] for name in names] == [1.0, 1.0, 1.0]
    assert found[names[0], "view"]["reason"] == "1 values (AP), two are needed"
    assert found[names[0], "view"]["missing"] == 1
    assert [d["dimensions"] for d in report["descriptors"]] == [6, 12, 16]
    assert report["descriptors"][0]["images_without_patient_id"] == 0
    assert report == json.loads(json.dumps(report))


def test_rows_without_patient_or_embedding_are_counted(study, tmp_path):
    with study[1].open() as file:
        rows = [{k: v for k, v in row.items() if k != "patient_id"} for row in csv.DictReader(file)]
    Image.fromarray(np.full((20, 20), 7, dtype=np.uint8)).save(tmp_path / "more.png")
    (tmp_path / "list.json").write_text(json.dumps({"training": [*rows, "more.png"]}))
    report = probe_files([study[0]], read_films(tmp_path / "list.json"), ["bright"], FAST)
    assert report["descriptors"][0]["images_without_patient_id"] == 40
    assert report["descriptors"][0]["manifest_rows_without_embedding"] == 1
    assert report["results"][0]["patients"] == 40


def test_token_descriptor_is_mean_and_deviation(study):
    with np.load(study[0]) as file:
        first = int(np.argmin(file["image"]))
        tokens = file["patches"][first].astype(np.float32).reshape(6, 4)  # [D, tokens]
    described = load_descriptors(study[0], tokens=True)
    assert described.values.shape == (40, 12)
    np.testing.assert_allclose(described.values[0], [*tokens.mean(1), *tokens.std(1)], rtol=1e-5, atol=1e-6)


def test_pixel_descriptor_is_the_mean_of_areas(tmp_path):
    film = np.zeros((16, 32), dtype=np.uint8)
    film[:8, :16], film[8:, 16:] = 255, 51
    Image.fromarray(film).save(tmp_path / "film.png")
    described = pixel_descriptors([str(tmp_path / "film.png")], 2)
    assert isinstance(described, Descriptors)
    np.testing.assert_allclose(described.values, [[1, 0, 0, 0.2]], atol=1e-6)


def test_unmatched_and_malformed_files_are_named(study, tmp_path):
    with np.load(study[0]) as file:
        arrays = dict(file)
    stranger = str(tmp_path / "elsewhere" / "x.png")
    bad = tmp_path / "bad.npz"

    def refused(message: str, tokens: bool = False, label: str = "bright", **changes: np.ndarray) -> None:
        np.savez(bad, **{name: value for name, value in {**arrays, **changes}.items() if value is not None})
        with pytest.raises(ValueError, match=message) as raised:
            probe_files([bad], read_films(study[1]), [label], FAST, tokens=tokens)
        assert str(bad) in str(raised.value) or str(study[1]) in str(raised.value)

    refused(r"1 of 40 images are not in .*elsewhere.*absolute path", image=np.array([*arrays["image"][1:], stranger]))
    refused("is there more than once", image=np.array([*arrays["image"][1:], arrays["image"][1]]))
    refused("does not fit 39 images", image=arrays["image"][1:])
    refused("no array 'patches'.*run the inference with patch embeddings", tokens=True, patches=None)
    refused("no array 'image'", image=None)
    refused("hold NaN or infinity", embeddings=np.full_like(arrays["embeddings"], np.nan))
    refused("no column 'nonsense' among", label="nonsense")
    bad.write_bytes(b"not a zip")
    with pytest.raises(ValueError, match="not an npz file"):
        load_descriptors(bad)
    with pytest.raises(FileNotFoundError, match=r"absent\.npz: no such file"):
        load_descriptors(tmp_path / "absent.npz")


def test_the_command_writes_what_the_functions_compute(study, tmp_path, capsys):
    output = tmp_path / "out" / "probe.json"
    arguments = ["--embeddings", str(study[0]), "--datalist", str(study[1]), "--labels", "bright", "coin"]
    assert main(["probe", *arguments, "--bootstrap", "50", "--output", str(output)]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 4 and "1.000 [1.000, 1.000]" in rows[1]
    report = json.loads(output.read_text())
    assert report == probe_files([study[0]], read_films(study[1]), ["bright", "coin"], ProbeSettings(bootstrap=50))


def test_the_command_names_an_error_in_one_line(study, tmp_path, capsys):
    arguments = ["--embeddings", str(study[0]), "--datalist", str(study[1]), "--labels", "bright", "--pixels", "0"]
    assert main(["probe", *arguments, "--output", str(tmp_path / "probe.json")]) == 2
    assert capsys.readouterr().err == "error: pixels must be at least 1 per side, got 0.\n"


def test_a_strength_is_chosen_where_few_patients_have_a_value():
    """One patient with the label can't be held out: the strongest penalty; two can, in as many folds."""
    labels, patients, rng = cohort(patients=20)
    values, train = rng.normal(size=(len(labels), 3)), np.arange(len(labels)) < 30
    groups, of_train = np.array(patients), np.flatnonzero(train)
    for count, expected in ((1, {1e-4}), (2, set(STRENGTHS))):
        positive = np.isin(groups, [f"p{i}" for i in range(count)])
        scores, strength = linear_scores(values, positive, groups, train)
        assert scores.shape == (len(labels) - len(of_train),) and strength in expected


def placed_signal(films: int = 120, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Tokens `[N, 25, 6]` whose mean hides the label (one place up, another down), labels, patients."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(films) % 2)
    tokens = rng.normal(size=(films, 25, 6)).astype(np.float32)
    tokens[:, 3, 0] += 4 * labels
    tokens[:, 20, 0] -= 4 * labels
    return tokens, labels, [f"p{i}" for i in range(films)]


def test_readings_by_place_find_what_the_mean_token_loses():
    tokens, labels, patients = placed_signal()
    train = np.arange(len(labels)) < 80
    found = {}
    for reading in READINGS:
        result = probe(
            tokens.mean(axis=1), labels.tolist(), patients, FAST, train=train, reading=reading, tokens=tokens
        )
        found[reading] = result.auroc
        assert (result.trained_on, sum(result.counts.values()), result.patients) == (80, 40, 40)
    assert found["mean"] < 0.7 and found["grid"] > 0.8
    assert found["average"] > found["mean"]
    with pytest.raises(ValueError, match="reading 'grid' needs tokens"):
        probe(tokens.mean(axis=1), labels.tolist(), patients, FAST, reading="grid")


def test_a_label_that_turns_round_on_the_test_films_is_read_the_wrong_way():
    """Nothing of the test part is fitted: there the sign of the signal is the other one, and the AUROC 0."""
    labels, patients, rng = cohort()
    train = np.arange(len(labels)) < 60
    values = rng.normal(size=(len(labels), 3))
    values[:, 0] = np.where(train, 1, -1) * (2 * labels - 1)
    assert probe(values, labels.tolist(), patients, FAST, train=train).auroc == 0.0
    assert probe(values[train], labels[train].tolist(), np.array(patients)[train], FAST).auroc == 1.0


def test_a_patient_on_both_sides_and_a_part_with_one_value_are_refused():
    labels, patients, rng = cohort()
    values, train = rng.normal(size=(len(labels), 3)), np.arange(len(labels)) < 61
    with pytest.raises(ValueError, match="1 patients have films in the training and in the test part"):
        probe(values, labels.tolist(), patients, FAST, train=train)
    result = probe(values, labels.tolist(), patients, FAST, train=labels == 1)
    assert result.reason == "1 values (1) in the training part, the same two are needed in both"


@pytest.fixture
def two_sites(study, tmp_path):
    """The study's manifest with splits, and a second site of ten films, two of them of a patient of the first."""
    with study[1].open() as file:
        rows = list(csv.DictReader(file))
    for number, row in enumerate(rows):
        row["split"] = "training" if number < 28 else "test"
        row["image"] = str((study[1].parent / row["image"]).resolve())
    for name, part in (("split.csv", rows), ("ours.csv", rows[:28]), ("theirs.csv", rows[28:])):
        with (tmp_path / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(part)
    with np.load(study[0]) as file:
        arrays = dict(file)
    ours = np.isin([Path(name).name for name in arrays["image"]], [Path(row["image"]).name for row in rows[:28]])
    for name, chosen in (("ours.npz", ours), ("theirs.npz", ~ours)):
        np.savez(tmp_path / name, **{key: value[chosen] for key, value in arrays.items()})
    return rows


def test_a_split_of_one_manifest_and_two_manifests_are_the_same_trial(study, two_sites, tmp_path):
    once = read_films(tmp_path / "split.csv", train_on=["training"], test_on=["test"])
    twice = read_films(tmp_path / "ours.csv", tmp_path / "theirs.csv")
    assert once.train == twice.train and once.left_out == twice.left_out
    tested = {row["patient_id"] for row in two_sites[28:]}
    assert once.left_out == sum(row["patient_id"] in tested for row in two_sites[:28])
    report = probe_files([study[0]], once, ["bright"], FAST, readings=["mean", "grid"], pixels=4)
    joined = f"{tmp_path / 'ours.npz'},{tmp_path / 'theirs.npz'}"
    other = probe_files([joined], twice, ["bright"], FAST, readings=["mean", "grid"], pixels=4)
    ours, theirs = ([r["auroc"] for r in each["results"]] for each in (report, other))
    assert len(ours) == 4 and ours == pytest.approx(theirs)  # the order of the films differs
    assert all(r["trained_on"] + sum(r["counts"].values()) == 40 - once.left_out for r in report["results"])
    with pytest.raises(ValueError, match=r"no film to test on with split nowhere; there are \['test', 'training'\]"):
        read_films(tmp_path / "split.csv", train_on=["training"], test_on=["nowhere"])
    with pytest.raises(ValueError, match="give splits to train on and splits to test on"):
        read_films(tmp_path / "split.csv", train_on=["training"])
    with pytest.raises(ValueError, match="are to be trained and tested on"):
        read_films(tmp_path / "split.csv", tmp_path / "theirs.csv")


def test_an_encoder_its_network_with_random_weights_and_pixels_in_one_call(study, tmp_path):
    encoder = radiograph_vit("tiny", image_size=32, in_channels=1, patch_size=16)
    save_weights = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
    torch.save(save_weights, tmp_path / "encoder.pt")
    report = probe_files(
        [],
        read_films(study[1]),
        ["bright"],
        replace(FAST, folds=2, bootstrap=0),
        encoders=[tmp_path / "encoder.pt"],
        random=2,
        pixels=4,
        readings=["mean", "grid"],
    )
    rows = [(r["descriptor"], r["reading"]) for r in report["results"]]
    names = [str(tmp_path / "encoder.pt"), "random weights, seed 0", "random weights, seed 1", "pixels 4x4"]
    assert rows == [(name, reading) for name in names for reading in ("mean", "grid")]
    found = {r["descriptor"]: r["auroc"] for r in report["results"] if r["reading"] == "mean"}
    assert found[names[3]] == 1.0  # bright and dark halves: pixels tell them apart
    films = report["descriptors"]
    assert [each["images"] for each in films] == [40] * 4
    paths = [row["image"] for row in read_films(study[1]).rows.values()]
    own, first, again, second = (
        encoder_descriptors(tmp_path / "encoder.pt", paths, seed).values for seed in (None, 0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not (np.allclose(own, first) or np.allclose(first, second) or np.allclose(own, second))
    with pytest.raises(ValueError, match="random weights need an encoder"):
        probe_files([study[0]], read_films(study[1]), ["bright"], FAST, random=1)
