"""The segmentation weights that the bundle ships: what they are, and what they reach on films of people."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image
from pydicom.data import get_testdata_file

import cxw_monai
from benchmarks.segmentation.score import score_films, summary
from cxw_monai.io import read_radiograph
from cxw_monai.weights.segmenter import read_settings

BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "chexworld_segmentation"
MODEL = BUNDLE / "models" / "model.pt"
METADATA = json.loads((BUNDLE / "configs" / "metadata.json").read_text())


def test_the_file_is_small_and_is_what_the_metadata_say():
    assert MODEL.stat().st_size <= 25_000_000
    channels = METADATA["network_data_format"]["outputs"]["pred"]["channel_def"]
    assert list(read_settings(MODEL).structures) == [channels[str(n)] for n in range(len(channels))]


def test_what_they_learn_from_is_as_pale_as_the_palest_films():
    """Air at 0.03 and a chest wall at 0.3 is how films are rendered; real ones may be light grey all over."""
    film = torch.full((1, 64, 64), 0.03)
    film[:, 8:, 6:58] = 0.3
    film[:, 14:52, 14:50] = 0.15
    pale = {}
    for presets in (["film_appearance"], ["film_appearance", "mirrored"]):
        parser = ConfigParser()
        files = ["train.json", *(f"presets/{name}.yaml" for name in ("sim_to_real", *presets))]
        parser.read_config([str(BUNDLE / "configs" / name) for name in files])
        parser["image_size"] = 64
        transform = parser.get_parsed_content("train::preprocessing").set_random_state(0)
        sample = {"image": film, "label": torch.zeros(6, 64, 64), "known": torch.ones(6, dtype=torch.bool)}
        images = [transform(sample)["image"] for _ in range(150)]
        assert all(image.min() >= 0 and image.max() <= 1 for image in images)
        pale[presets[-1]] = np.mean([float(image.median()) > 0.6 for image in images])
    assert pale["film_appearance"] < 0.05 < pale["mirrored"], pale


@pytest.fixture(scope="module")
def segmented(tmp_path_factory):
    """The demo's film through the inference command."""
    film = get_testdata_file("RG1_UNCR.dcm", download=False)
    output = tmp_path_factory.mktemp("segmented")
    command = [sys.executable, "-m", "monai.bundle", "run", "inference", "--config_file", "configs/inference.json"]
    done = subprocess.run([*command, "--input", film, "--output", str(output)], cwd=BUNDLE, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return Path(film), output


def test_a_real_chest_film_has_its_organs_where_they_belong(segmented):
    """An upright PA film, shown as if facing the patient: the right lung is at the left of the picture."""
    film, output = segmented
    masks = {path.stem: np.asarray(Image.open(path)) > 0 for path in (output / "RG1_UNCR" / "masks").glob("*.png")}
    shape = read_radiograph(film).array.shape[1:]
    assert all(mask.shape == shape for mask in masks.values())
    centre = {name: np.argwhere(mask).mean(axis=0) / shape for name, mask in masks.items()}
    assert centre["lung_right"][1] < 0.45 < 0.55 < centre["lung_left"][1]
    assert centre["lung_right"][1] < centre["heart"][1] < centre["lung_left"][1]
    assert centre["clavicle_left"][0] < centre["lung_left"][0] < centre["heart"][0]
    share = {name: mask.mean() for name, mask in masks.items()}
    assert 0.08 < share["lung_right"] < 0.3 and 0.06 < share["lung_left"] < 0.3
    assert (masks["lung_right"] & masks["lung_left"]).mean() < 0.005


def test_its_results_open_as_dicom_seg_and_measurements(segmented):
    _, output = segmented
    seg = hd.imread(output / "RG1_UNCR" / "segmentation.dcm")
    assert len(seg.SegmentSequence) == seg.number_of_frames == len(read_settings(MODEL).structures)
    largest = max((seg.get_frame(number, apply_real_world_transform=False) > 0).sum() for number in range(1, 9))
    masks = (output / "RG1_UNCR" / "masks").glob("*.png")
    assert largest == max((np.asarray(Image.open(path)) > 0).sum() for path in masks) > 0
    with (output / "measurements.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert 0.3 < float(row["cardiothoracic_ratio"]) < 0.7


@pytest.mark.slow
def test_scores_on_films_of_people_are_what_the_metadata_say(shared_data, tmp_path):
    model = cxw_monai.load(MODEL)
    found = {}
    for source, folder, split in (
        ("wingspan", "wingspan_heart_lungs", "validation"),
        ("covid", "covid_ieee8023_cc", None),
    ):
        rows = score_films(model, source, shared_data / folder / "manifest.csv", tmp_path / f"{source}.csv", split)
        found |= {f"{source}_{name}": values[0] for name, values in summary(rows, draws=1).items()}
    expected = {name: value for name, value in METADATA["eval_metrics"].items() if not name.startswith("shenzhen")}
    assert len(expected) > 4
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=0.005), name
