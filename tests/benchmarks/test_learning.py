"""The learning benchmark on made-up films whose labels are known to be in them, or not."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.learning import runs
from benchmarks.learning.__main__ import main
from benchmarks.learning.benchmark import Benchmark, append_row, config_hash, read_rows
from benchmarks.learning.data import LabelledFilms, OutlinedFilms, labelled_films, outlined_films, read_split
from benchmarks.learning.descriptors import encoder_tokens, gradient_histograms, pixels
from benchmarks.learning.experiment import BUNDLE
from benchmarks.learning.probes import few_shot_dice, nearest_scores, ridge_predictions
from benchmarks.learning.runs import train_supervised, write_training_manifest
from benchmarks.learning.table import draw_curves, draw_rows, markdown
from cxw_monai.metrics.readings import STRENGTHS, attentive_scores, averaged, grid_pooled, linear_scores
from cxw_monai.networks import radiograph_vit

COUNT, TRAIN = 120, 80


def auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    positive, negative = scores[labels], scores[~labels]
    return float((positive[:, None] > negative[None]).mean() + 0.5 * (positive[:, None] == negative[None]).mean())


@pytest.fixture(scope="module")
def films() -> LabelledFilms:
    """64 px films with bright corners: each label but the last is where (and only where) a corner is bright."""
    rng = np.random.default_rng(0)
    labels = rng.random((COUNT, 5)) < 0.5
    images = rng.random((COUNT, 1, 64, 64)) * 0.3
    for number, (row, column) in enumerate([(0, 0), (0, 48), (48, 0), (48, 48)]):
        images[labels[:, number], 0, row : row + 16, column : column + 16] += 0.4
    ages = 20 + 60 * images[:, 0, 24:40, 24:40].mean(axis=(1, 2)) / 0.3
    return LabelledFilms(
        images=torch.from_numpy(images).float(),
        files=[f"{i}.png" for i in range(COUNT)],
        patients=np.array([f"p{i // 2}" for i in range(COUNT)]),
        labels=labels,
        ages=ages,
        train=np.arange(COUNT) < TRAIN,
    )


@pytest.fixture(scope="module")
def outlined() -> OutlinedFilms:
    """A bright square for each of three structures, at another place in every film."""
    rng = np.random.default_rng(1)
    masks = np.zeros((40, 3, 64, 64), dtype=bool)
    for film in masks:
        for structure, (row, column) in enumerate(rng.integers(0, 2, (3, 2)) * 16):
            film[structure, row + 16 : row + 32, column + 16 : column + 32] = True
    images = (masks * np.array([1.0, 0.5, 0.25])[:, None, None]).sum(axis=1, keepdims=True) / 2
    return OutlinedFilms(torch.from_numpy(images).float(), masks, np.array([f"p{i}" for i in range(40)]))


class TestSplit:
    def test_is_499_and_251_films_without_a_patient_on_both_sides(self):
        split = read_split()
        parts = {part: {name for name, where in split.items() if where == part} for part in ("train", "test")}
        assert {part: len(names) for part, names in parts.items()} == {"train": 499, "test": 251}
        patients = {part: {name.split("_")[0] for name in names} for part, names in parts.items()}
        assert not patients["train"] & patients["test"]

    def test_a_manifest_without_its_films_is_refused(self, tmp_path: Path):
        Image.new("L", (8, 8)).save(tmp_path / "a.png")
        (tmp_path / "m.csv").write_text("image,patient_id\na.png,1\n")
        with pytest.raises(ValueError, match=r"m\.csv: lacks 750"):
            labelled_films(tmp_path / "m.csv", 32)


class TestOutlinedFilms:
    def test_needs_all_three_and_unites_names(self, tmp_path: Path):
        for name in ("a.png", "b.png"):
            Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / name)
        Image.new("L", (8, 8), 255).save(tmp_path / "m.png")
        rows = [("image", "patient_id", "mask_left_lung", "mask_right_lung", "mask_cardiomediastinum")]
        rows += [("a.png", "1", "m.png", "m.png", "m.png"), ("b.png", "2", "m.png", "m.png", "")]
        with (tmp_path / "m.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows(rows)
        found = outlined_films(tmp_path / "m.csv", 16)
        assert found.masks.shape == (1, 3, 16, 16) and found.masks.all() and found.patients.tolist() == ["1"]


class TestProbes:
    def test_linear_and_nearest_find_what_is_there_and_not_what_is_not(self, films):
        values = pixels(8)(films.images).vector
        test = films.labels[~films.train]
        for components in (None, 16):
            found = []
            for wanted, label in zip(test.T, films.labels.T, strict=True):
                scores, strength = linear_scores(values, label, films.patients, films.train, components=components)
                found.append(auroc(scores, wanted))
                assert strength in STRENGTHS
            assert min(found[:4]) > 0.95 and abs(found[4] - 0.5) < 0.3
        nearest = nearest_scores(values, films.labels, films.train)
        assert np.mean([auroc(nearest[:, i], test[:, i]) for i in range(4)]) > 0.8

    def test_attention_finds_what_the_mean_token_loses(self, films):
        tokens = np.random.default_rng(0).standard_normal((COUNT, 16, 8)).astype(np.float32)
        label = films.labels[:, :1]
        tokens[label[:, 0], 3, 0] += 6  # one token of sixteen
        tokens[label[:, 0], 5, 0] -= 6  # ... and its opposite, so that the mean is the same
        tokens[:, 3, 1] += 6
        scores = attentive_scores(tokens, label, films.train)
        assert auroc(scores[:, 0], label[~films.train, 0]) > 0.9
        mean, _ = linear_scores(tokens.mean(axis=1), label[:, 0], films.patients, films.train)
        assert auroc(mean, label[~films.train, 0]) < 0.75

    def test_ridge_finds_a_linear_quantity(self, films):
        rng = np.random.default_rng(0)
        values = rng.standard_normal((COUNT, 6))
        wanted = values @ np.arange(6.0) + 40
        found = ridge_predictions(values, wanted, films.train, components=6)
        assert np.abs(found - wanted[~films.train]).max() < 0.5

    def test_grid_pooling_averages_places(self):
        tokens = np.arange(16, dtype=np.float32).reshape(1, 16, 1)  # rows 0-3, 4-7, ...
        assert grid_pooled(tokens, 2).tolist() == [[2.5, 4.5, 10.5, 12.5]]

    def test_tokens_that_know_the_outline_give_it_back_and_noise_does_not(self, outlined):
        cells = outlined.masks.reshape(40, 3, 4, 16, 4, 16).mean(axis=(3, 5))  # [N, 3, 4, 4]
        tokens = cells.reshape(40, 3, 16).transpose(0, 2, 1).astype(np.float32)
        found = few_shot_dice(tokens, outlined.masks, outlined.patients, shots=8, repeats=2)
        assert found.shape == (2, 3) and found.min() > 0.85
        noise = np.random.default_rng(0).standard_normal(tokens.shape).astype(np.float32)
        assert few_shot_dice(noise, outlined.masks, outlined.patients, shots=8, repeats=2).max() < 0.5
        with pytest.raises(ValueError, match="40 shots"):
            few_shot_dice(tokens, outlined.masks, outlined.patients, shots=40)


class TestDescriptors:
    def test_pixels_are_block_means_and_tokens_hold_their_own_patch(self):
        image = torch.rand(2, 1, 64, 64)
        found = pixels(16)(image)
        assert found.vector[1, 17] == pytest.approx(image[1, 0, 4:8, 4:8].mean().item(), abs=1e-6)
        assert found.tokens[1, 5, 0] == pytest.approx(image[1, 0, 16:20, 16:20].mean().item(), abs=1e-6)

    def test_gradient_histograms_tell_the_orientation(self):
        ramp = torch.linspace(0, 1, 64).expand(1, 1, 64, 64)  # brighter to the right: gradient at 0 degrees
        across, down = gradient_histograms(ramp).tokens, gradient_histograms(ramp.transpose(2, 3)).tokens
        histograms = [tokens[0, 5, :36].reshape(4, 9).sum(axis=0) for tokens in (across, down)]
        assert [histogram.argmax() for histogram in histograms] == [0, 4]  # 90 of 180 degrees
        assert np.linalg.norm(across[0, 5, :36]) == pytest.approx(1, abs=1e-3)

    def test_an_encoders_vector_is_the_mean_of_its_tokens_and_their_deviation_where_wanted(self):
        encoder, films = radiograph_vit("tiny", image_size=32), torch.rand(3, 1, 32, 32)
        found = encoder_tokens(encoder, batch=2)(films)
        assert found.tokens.shape == (3, 4, 192) and found.learnt
        mean = found.tokens.mean(axis=1)
        np.testing.assert_allclose(found.vector, mean, atol=1e-6)
        spread = np.sqrt(np.square(found.tokens - mean[:, None]).mean(axis=1))
        both = encoder_tokens(encoder, deviation=True)(films).vector  # [3, 384]
        np.testing.assert_allclose(both, np.concatenate([mean, spread], axis=1), atol=1e-4)


class TestRows:
    def test_a_row_has_all_probes_and_intervals_hold_their_means(self, films, outlined):
        benchmark = Benchmark(films, {"drr": outlined})
        row, kept = benchmark.evaluate(pixels(8))
        for probe in ("mean", "grid", "attentive", "knn"):
            assert row[f"{probe}_low"] < row[probe] < row[f"{probe}_high"]
        assert row["dice_drr_8"] == pytest.approx(kept["dice_drr_8"].mean())
        assert benchmark.difference(kept["mean"], kept["mean"]) == (0.0, 0.0, 0.0)
        gain, low, high = benchmark.difference(kept["mean"], np.zeros_like(kept["mean"]))
        assert gain == pytest.approx(row["mean"] - 0.5) and 0 < low < gain < high

    def test_in_folds_every_film_is_scored_by_probes_that_never_saw_its_patient(self, films):
        benchmark = Benchmark(films, {})
        folds = benchmark.folds()
        assert sorted(set(folds)) == [0, 1, 2, 3, 4]
        assert all(len(set(folds[films.patients == who])) == 1 for who in set(films.patients))
        scores = benchmark.fold_scores(pixels(16))["mean"]
        assert scores.shape == films.labels.shape
        means = benchmark.fold_aurocs(scores)
        by_hand = []
        for label, score in zip(films.labels.T, scores.T, strict=True):
            pairs = [label[folds == k].sum() * (~label[folds == k]).sum() for k in range(5)]
            within = [auroc(score[folds == k], label[folds == k]) for k in range(5)]
            by_hand.append(np.average(within, weights=pairs))
        np.testing.assert_allclose(means[0], np.mean(by_hand), atol=1e-9)
        assert means.shape == (1001,) and means[1:].min() < means[0] < means[1:].max()
        # four labels can be read off the corners, the fifth is noise
        assert min(by_hand[:4]) > 0.9 and abs(by_hand[4] - 0.5) < 0.2

    def test_scores_are_averaged_by_rank(self):
        fine, coarse = np.array([[0.1], [0.2], [0.3]]), np.array([[900.0], [0.0], [700.0]])
        np.testing.assert_allclose(averaged([fine, coarse]), [[2.0], [1.5], [2.5]])

    def test_rows_are_replaced_by_run_and_config_and_others_kept(self, tmp_path: Path):
        path = tmp_path / "rows.csv"
        append_row(path, {"run": "a", "config": "1", "mean": 0.12345})
        append_row(path, {"run": "a", "config": "2", "mean": 0.5})
        append_row(path, {"run": "a", "config": "1", "mean": 0.75, "grid": 1})
        assert [(r["config"], r["mean"], r["grid"]) for r in read_rows(path)] == [
            ("2", "0.5000", ""),
            ("1", "0.7500", "1"),
        ]

    def test_the_hash_follows_values_and_not_their_order(self):
        assert config_hash({"a": 1, "b": 2}) == config_hash({"b": 2, "a": 1}) != config_hash({"a": 1, "b": 3})


class TestTraining:
    def test_the_manifest_holds_training_films_without_labels(self, films, tmp_path: Path):
        rows = list(csv.reader(write_training_manifest(tmp_path / "films.csv", films).open()))
        assert rows[0] == ["image", "patient_id"] and [r[0] for r in rows[1:]] == films.files[:TRAIN]

    def test_a_smaller_share_of_the_patients_is_part_of_a_larger_one(self, films, tmp_path: Path):
        taken = {}
        for share in (0.25, 0.5, 1.0):
            path = write_training_manifest(tmp_path / "films.csv", films, share=share)
            taken[share] = {(row["image"], row["patient_id"]) for row in csv.DictReader(path.open())}
        patients = {share: {who for _, who in rows} for share, rows in taken.items()}
        everyone = len(set(films.patients[films.train]))
        assert [len(patients[s]) for s in (0.25, 0.5, 1.0)] == [round(everyone / 4), round(everyone / 2), everyone]
        assert taken[0.25] < taken[0.5] < taken[1.0]
        assert all(taken[0.5] >= {row for row in taken[1.0] if row[1] == who} for who in patients[0.5])
        with pytest.raises(ValueError, match=r"share must lie in \(0, 1\]"):
            write_training_manifest(tmp_path / "films.csv", films, share=0)

    def test_a_share_of_none_leaves_other_manifests_alone(self, films, tmp_path: Path):
        other = tmp_path / "other.csv"
        other.write_text("image,patient_id\nrendered.png,7\n")
        (tmp_path / "rendered.png").touch()
        path = write_training_manifest(tmp_path / "films.csv", films, [other], share=0)
        rows = list(csv.DictReader(path.open()))
        assert [(Path(r["image"]).name, r["patient_id"]) for r in rows] == [("rendered.png", "7")]

    def test_supervision_changes_the_encoder_in_as_many_steps_as_fit(self, films, monkeypatch):
        monkeypatch.setattr(runs._StepTimer, "seconds", lambda timer: 0.1)
        encoder = radiograph_vit("tiny", image_size=64)
        before = encoder.blocks[0].attn.qkv.weight.clone()
        cost = train_supervised(encoder, films, seconds=1.1, batch=8)
        assert cost["images_seen"] == 11 * 8 and cost["epochs"] == 1.1 and cost["processor_seconds"] > 0
        assert not torch.equal(before, encoder.blocks[0].attn.qkv.weight)

    def test_a_step_is_timed_against_the_reference_and_the_first_one_is_left_out(self):
        timer = runs._StepTimer()
        timer.own, timer.reference = [90.0, 2.0, 4.0, 9.0], [7.0, 8.0, 2.0, 1.0]
        assert timer.seconds() == pytest.approx(4 / 2 * 0.36)


class TestTable:
    def test_rows_become_lines_and_a_picture(self, tmp_path: Path):
        probes = {f"{p}{end}": "0.8000" for p in ("mean", "grid", "attentive", "knn") for end in ("", "_low", "_high")}
        dice = {f"dice_{films}_{shots}": "0.7654" for films in ("drr", "real") for shots in (8, 24)}
        row = {"run": "a", "processor_seconds": "90", "images_seen": "640", "age_mae": "10.34", "rank_tokens": "30.25"}
        lines = markdown([{**row, **probes, **dice}]).splitlines()
        assert len(lines) == 3 and len({line.count("|") for line in lines}) == 1
        assert lines[2].startswith("| a | 1.5 | 640 | .800 [.800, .800] |") and lines[2].endswith("| .765 | 30.2 |")
        assert "| 10.3 |" in lines[2]
        draw_rows([{**row, **probes, **dice}], tmp_path / "rows.png")
        assert Image.open(tmp_path / "rows.png").width > 500

    def test_curves_become_a_picture_and_need_their_columns(self, tmp_path: Path):
        (tmp_path / "a.csv").write_text("iteration,loss_intra,prediction_rank\n30,0.9,5.0\n60,0.8,7.5\n")
        draw_curves({"a": tmp_path / "a.csv"}, tmp_path / "curves.png")
        assert Image.open(tmp_path / "curves.png").width > 500
        (tmp_path / "b.csv").write_text("iteration,loss\n30,0.9\n")
        with pytest.raises(KeyError, match="loss_intra"):
            draw_curves({"b": tmp_path / "b.csv"}, tmp_path / "b.png")


class TestCommand:
    def test_an_unknown_run_is_one_line_before_any_film_is_read(self, tmp_path: Path, capsys):
        manifests = [word for name in ("nih", "rendered", "real") for word in (f"--{name}", str(tmp_path / "none.csv"))]
        assert main([*manifests, "--output", str(tmp_path / "out"), "--runs", "random", "nonsense"]) == 2
        assert "no arm 'nonsense'" in capsys.readouterr().err and not (tmp_path / "out").exists()
        assert main([*manifests, "--output", str(tmp_path / "out"), "--runs", "random"]) == 2
        assert "none.csv" in capsys.readouterr().err

    def test_rows_are_shown(self, tmp_path: Path, capsys):
        manifests = [word for name in ("nih", "rendered", "real") for word in (f"--{name}", str(tmp_path / "none.csv"))]
        probes = {f"{p}{end}": "0.8000" for p in ("mean", "grid", "attentive", "knn") for end in ("", "_low", "_high")}
        dice = {f"dice_{films}_{shots}": 0.7654 for films in ("drr", "real") for shots in (8, 24)}
        row = {"run": "a", "config": "1", "processor_seconds": 90, "images_seen": 640, "age_mae": 10.34}
        append_row(tmp_path / "learning.csv", {**row, **probes, **dice})
        assert main([*manifests, "--output", str(tmp_path), "--show", str(tmp_path / "rows.png")]) == 0
        assert "| a | 1.5 | 640 | .800" in capsys.readouterr().out and (tmp_path / "rows.png").is_file()


@pytest.mark.slow
def test_pretraining_for_so_much_time_ends_with_an_encoder(tmp_path):
    """Its steps are timed in a run that is thrown away before its end, with no weights to judge."""
    generator = np.random.default_rng(0)
    (tmp_path / "films").mkdir()
    for number in range(8):
        pixels_ = generator.integers(0, 255, (40, 40), dtype=np.uint8)
        Image.fromarray(pixels_).save(tmp_path / "films" / f"{number}.png")
    settings = {
        "dataset_dir": str(tmp_path / "films"), "network_size": "tiny", "image_size": 64, "patch_size": 8,
        "predictor_dim": 96, "predictor_depth": 1, "cache_size": 64, "batch_size": 2, "num_workers": 0,
        "val_fraction": 0.25,
    }  # fmt: skip
    encoder, cost = runs.pretrain(BUNDLE, ["demo"], tmp_path / "run", settings, 0.1)
    assert encoder.is_file() and cost["epochs"] == 1 and cost["processor_seconds"] > 0
    assert not (tmp_path / "run" / "verdict.html").exists()
