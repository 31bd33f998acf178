"""The landmark bundle as a user runs it, on small films of blobs."""

import csv
import json

import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigParser
from PIL import Image

from cxw_monai.datasets.cephalometric import LANDMARKS
from cxw_monai.packaging import package_bundle
from cxw_monai.tasks.landmarks.settings import LandmarkSettings
from cxw_monai.weights.bundles import extract_bundle
from cxw_monai.weights.landmarker import read_settings
from tests.helpers.bundle_runs import BundleRuns, innermost, last_line

BUNDLE = BundleRuns(
    "chexworld_landmarks",
    network_size="tiny",
    image_size=32,
    cache_size=32,
    decoder="linear",
    anatomy="hand",
    batch_size=4,
    epochs=4,
    lr=1e-3,
    warmup_epochs=1,
    val_fraction=0.25,
    val_interval=2,
    save_interval=1,
    num_workers=0,
    encoder_ckpt="none",
)
CONFIGS = BUNDLE.configs
TESTED = {"test_fraction": 0.25}
PRESETS = sorted(path.stem for path in (CONFIGS / "presets").glob("*.yaml"))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """24 hands of 36 x 40 px with a bright tip and a bright base, of which some are unknown."""
    folder = tmp_path_factory.mktemp("films")
    rows = []
    for number in range(24):
        generator = np.random.default_rng(number)
        tip, base = generator.integers(6, 14, 2), generator.integers(22, 30, 2)
        pixels = generator.normal(60, 10, (40, 36))
        for x, y in (tip, base):
            pixels[y - 2 : y + 3, x - 2 : x + 3] += 150
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number:02}.png")
        points = {"landmark_tip": tip.tolist(), "landmark_base": "" if number < 3 else base.tolist()}
        about = {"image": f"{number:02}.png", "patient_id": f"p{number}", "anatomy": "hand", "pixel_spacing_mm": 0.5}
        rows.append({**about, **points})
    path = folder / "manifest.csv"
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def trained(manifest, cache, tmp_path_factory):
    """A finished small run with a test at its end."""
    output = tmp_path_factory.mktemp("trained")
    done = BUNDLE.run("training", ["train.json"], datalist=manifest, output_dir=output, cache_dir=cache, **TESTED)
    assert done.returncode == 0, done.stderr[-3000:]
    return output


def rows_of(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_training_leaves_a_model_curves_pictures_and_a_test(trained):
    names = {path.name for path in trained.iterdir()}
    assert {"checkpoint_epoch=4.pt", "model.pt", "metrics.csv", "curves.png", "training_samples.png"} <= names
    rows = rows_of(trained / "metrics.csv")
    assert [bool(row["val_score"]) for row in rows] == [False, True, False, True]
    for name in ("loss", "lr", "gradient_norm", "val_loss", "val_mean_radial_error_mm", "val_success_4mm"):
        assert np.isfinite(float(rows[-1][name])), name
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    settings = read_settings(trained / "model.pt")
    assert (settings.points, settings.anatomy) == (("tip", "base"), "hand")  # all of the manifest
    summary = json.loads((trained / "test" / "summary.json").read_text())
    assert summary["films"] == 6 and summary["tip/known"] == 6
    assert summary["mean_radial_error_mm"] == pytest.approx(0.5 * summary["mean_radial_error_px"])


def test_evaluation_needs_the_model_alone_and_repeats_the_test(trained, manifest, cache, tmp_path):
    places = {"datalist": manifest, "ckpt": trained / "model.pt", "cache_dir": cache, "output_dir": tmp_path}
    given = {name: str(value) for name, value in places.items()}
    flow = BUNDLE.workflow("train", ["train.json", "evaluate.json"], points=["tip", "base"], **given, **TESTED)
    flow.run()
    flow.finalize()
    for name in ("films.csv", "points.csv", "summary.json", "report.html"):
        assert (tmp_path / "evaluation" / name).read_text() == (trained / "test" / name).read_text()
    with pytest.raises(Exception) as caught:  # noqa: PT011
        BUNDLE.workflow("train", ["train.json", "evaluate.json"], points=["base", "tip"], **given)
    assert "scored on its own, in their order: tip, base" in str(innermost(caught.value))


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_numbers_of_one_that_was_not(trained, manifest, cache, tmp_path):
    settings = {"datalist": manifest, "cache_dir": cache, **TESTED}
    BUNDLE.kill_after(2, tmp_path, **settings)
    resumed = BUNDLE.run("training", ["train.json"], resume="true", output_dir=tmp_path, **settings)
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    first, second = (torch.load(folder / "model.pt", weights_only=True) for folder in (tmp_path, trained))
    assert first["settings"] == second["settings"]
    assert all(torch.equal(first["model"][name], second["model"][name]) for name in second["model"])
    assert (tmp_path / "test/films.csv").read_text() == (trained / "test/films.csv").read_text()


def test_inference_of_the_bundle(trained, manifest, tmp_path):
    plain = BundleRuns("chexworld_landmarks")
    done = plain.run("inference", ["inference.json"], ckpt=trained / "model.pt", input=manifest, output=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = rows_of(tmp_path / "landmarks.csv")
    assert len(rows) == 24 and not any(row["implausible"] for row in rows)
    assert (tmp_path / "00" / "overlay.png").is_file()
    wrong = plain.run("inference", ["inference.json"], ckpt=trained / "metrics.csv", input=manifest, output=tmp_path)
    assert wrong.returncode != 0 and "metrics.csv" in last_line(wrong)


def test_a_package_takes_its_landmarks_from_the_weights(trained, tmp_path):
    for library in ("onnxruntime", "cyclonedx"):
        pytest.importorskip(library, reason="packages hold ONNX models and a bill: pip install 'cxw-monai[packaging]'")
    archive = package_bundle(BUNDLE.folder, tmp_path / "package", trained / "model.pt")  # making it verifies it
    bundle = extract_bundle(archive, tmp_path)
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert metadata["network_data_format"]["outputs"]["pred"]["channel_def"] == {"0": "tip", "1": "base"}
    assert metadata["exported_models"]["outputs"]["pred"]["shape"] == ["batch", 2, 3]


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_build_what_they_say(preset, manifest):
    stated = yaml.safe_load((CONFIGS / f"presets/{preset}.yaml").read_text())
    assert set(stated) <= {*LandmarkSettings.model_fields, "extra_augmentation"}  # a list of the config's own
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / "train.json"), str(CONFIGS / f"presets/{preset}.yaml")])
    parser["encoder_ckpt"], parser["datalist"] = "none", str(manifest)
    network = parser.get_parsed_content("network_def")
    assert network.points == (LANDMARKS if preset == "cephalometric" else ("tip", "base"))
    assert parser.get_parsed_content("network_settings").anatomy == stated.get("anatomy", "chest")
    assert network(torch.rand(1, 1, 64, 48)).shape == (1, len(network.points), 64, 48)
    parser.get_parsed_content("train::preprocessing")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"points": ["thumb"]}, "no column landmark_thumb for the landmark 'thumb'"),
        ({"points": ["tip", "tip"]}, "a list of names, each once"),
        ({"heat_px": 0}, "heat_px"),
        ({"decoder": "none_such"}, "decoder must be one of"),
        ({"encoder_ckpt": "nowhere.pt"}, "nowhere.pt: no such file"),
        ({"datalist": None}, "no data set: give datalist"),
    ],
)
def test_wrong_settings_say_what_is_wrong_before_any_work(manifest, tmp_path, settings, said):
    places = {"output_dir": str(tmp_path / "run"), "cache_dir": str(tmp_path / "cache")}
    with pytest.raises(Exception) as caught:  # noqa: PT011
        BUNDLE.workflow("train", ["train.json"], **{"datalist": str(manifest), **places, **settings})
    assert said in str(innermost(caught.value))
    assert not any(tmp_path.iterdir())  # not a film was decoded


def test_metadata_has_the_mandatory_keys():
    BUNDLE.checked_metadata()
