"""Temperatures of a segmenter: found again where they are known, and part of the weights that are written."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import expit

import cxw_monai
from benchmarks.segmentation.__main__ import main
from benchmarks.segmentation.calibrate import (
    calibration_error,
    calibration_table,
    fitted_temperature,
    scale_logits,
    validation_films,
)
from cxw_monai.weights.segmenter import load_segmenter, new_segmenter, save_segmenter, segmenter_settings


def films(temperature: float, count: int = 4, seed: int = 0):
    """Films whose annotations are drawn with the probabilities that logits over a temperature give."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 4, (count, 60, 60))
    return [(one, rng.random(one.shape) < expit(one / temperature)) for one in logits]


def test_the_temperature_that_films_were_drawn_with_is_found():
    assert fitted_temperature(films(2.0)) == pytest.approx(2.0, rel=0.08)
    assert fitted_temperature(films(0.5)) == pytest.approx(0.5, rel=0.08)


def test_the_calibration_error_by_hand():
    """Nine pixels of .9, of which six are inside, and one of .5 that is: (9 * .9 - 6) and (1 - .5), over ten."""
    logits = np.array([[np.log(9)] * 9 + [0.0]])
    mask = np.array([[True] * 6 + [False] * 3 + [True]])
    assert calibration_error([(logits, mask)]) == pytest.approx((8.1 - 6 + 0.5) / 10)


def test_each_half_is_measured_with_the_temperature_of_the_other():
    halves = [film for pair in zip(films(1.0, seed=1), films(4.0, seed=2), strict=True) for film in pair]
    mixed, same = calibration_table({"heart": halves, "lung": films(2.0)})
    assert mixed["loss_after"] > mixed["loss_before"]  # either half's temperature is wrong for the other one
    assert same["loss_after"] < same["loss_before"]
    assert same["error_after"] < 0.3 * same["error_before"]
    assert same["optimism_before"] > 0.05 > abs(same["optimism_after"])
    with pytest.raises(ValueError, match="heart: one validation film"):
        calibration_table({"heart": halves[:1]})


@pytest.mark.parametrize("decoder", ["hybrid", "linear"])
def test_logits_are_divided_by_structure(decoder):
    settings = segmenter_settings(["heart", "lung_left"], 32, "tiny", 16, decoder, 4)
    network, image = new_segmenter(settings).eval(), torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        before = network(image)
        scale_logits(network, settings.structures, {"lung_left": 2.0})
        after = network(image)
    torch.testing.assert_close(after[:, 0], before[:, 0])
    torch.testing.assert_close(after[:, 1], before[:, 1] / 2)


def test_calibrated_weights_draw_the_same_masks(tmp_path):
    settings = segmenter_settings(["heart"], 32, "tiny", 16, "hybrid", 4)
    network = new_segmenter(settings).eval()
    save_segmenter(network, settings, tmp_path / "run.pt")
    rng = np.random.default_rng(0)
    rows = []
    for number, split in enumerate(["training", "validation", "validation", "validation"]):
        for name in ("image", "mask"):
            grey = rng.integers(0, 256, (40, 60)) if name == "image" else (rng.random((40, 60)) < 0.5) * 255
            Image.fromarray(grey.astype(np.uint8)).save(tmp_path / f"{name}{number}.png")
        rows.append([f"image{number}.png", str(number), split, "wingspan", f"mask{number}.png"])
    with (tmp_path / "films.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["image", "id", "split", "source", "mask_heart"], *rows])
    arguments = ["--model", str(tmp_path / "run.pt"), "--films", str(tmp_path / "films.csv"), "--per-source", "2"]
    assert main(["calibrate", *arguments, "--output", str(tmp_path / "out")]) == 0
    row = next(csv.DictReader((tmp_path / "out" / "calibration.csv").open()))
    assert (row["structure"], row["films"]) == ("heart", "2")
    model = cxw_monai.load(tmp_path / "run.pt")
    assert len(validation_films(model, tmp_path / "films.csv", 9)["heart"]) == 3  # none of the training
    (tmp_path / "none.csv").write_text("image,id,split,source,mask_heart\nimage0.png,0,training,wingspan,mask0.png\n")
    with pytest.raises(ValueError, match="none.csv: no film of the split validation has a mask"):
        validation_films(model, tmp_path / "none.csv", 9)
    image = torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        scaled = load_segmenter(tmp_path / "out" / "model.pt")(image) * float(row["temperature"])
        torch.testing.assert_close(scaled, network(image), rtol=1e-3, atol=1e-4)
