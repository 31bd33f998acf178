"""The classification bundle as a user runs it, on small films of blobs."""

import csv
import json

import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigParser
from PIL import Image

import cxw_monai
from cxw_monai.networks.heads import AttentiveHead
from cxw_monai.packaging import package_bundle
from cxw_monai.tasks.classification.evaluation import calibrate_weights
from cxw_monai.tasks.classification.settings import ClassificationSettings
from cxw_monai.weights.bundles import extract_bundle
from cxw_monai.weights.classifier import read_classifier, read_settings
from tests.helpers.bundle_runs import BundleRuns, innermost

BUNDLE = BundleRuns(
    "chexworld_classification",
    classes="['edema','mass']",
    network_size="tiny",
    image_size=32,
    cache_size=32,
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
    """32 patients with a film of 36 px: a bright square above is edema, one below a mass, of which some are unknown."""
    folder = tmp_path_factory.mktemp("films")
    rows = []
    for number in range(32):
        edema, mass = number % 2, number // 2 % 2
        pixels = np.random.default_rng(number).normal(80, 10, (36, 36))
        pixels[2:16, 4:16] += 120 * edema
        pixels[20:34, 20:34] += 120 * mass
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number:02}.png")
        view = ("AP", "PA")[number // 4 % 2]
        about = {"image": f"{number:02}.png", "patient_id": f"p{number}", "sex": "MF"[number // 3 % 2], "view": view}
        rows.append({**about, "label_edema": edema, "label_mass": "" if number < 4 else mass})
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
    done = BUNDLE.run_from_the_start(
        "training", ["train.json"], datalist=manifest, output_dir=output, cache_dir=cache, **TESTED
    )
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
    for name in ("loss", "lr", "gradient_norm", "val_loss", "val_auroc", "val_auroc_edema", "val_accuracy"):
        assert np.isfinite(float(rows[-1][name])), name
    summary = json.loads((trained / "test" / "summary.json").read_text())
    assert summary["films"] == 8 and 0 <= summary["edema/auroc"] <= 1


def test_temperatures_and_operating_points_are_in_the_file(trained):
    settings = read_settings(trained / "model.pt")
    assert settings.classes == ("edema", "mass") and len(settings.temperatures) == 2
    assert set(settings.operating_points) == {"edema", "mass"}
    assert "youden" in settings.operating_points["edema"]


def test_evaluation_needs_the_model_alone_and_repeats_the_test(trained, manifest, cache, tmp_path):
    done = BUNDLE.run(
        "evaluating",
        ["train.json", "evaluate.json"],
        datalist=manifest,
        ckpt=trained / "model.pt",
        cache_dir=cache,
        output_dir=tmp_path,
        **TESTED,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("films.csv", "summary.json", "operating_points.csv"):
        assert (tmp_path / "evaluation" / name).read_text() == (trained / "test" / name).read_text()


def test_thresholds_are_chosen_again_on_films_of_ones_own(trained, manifest, cache, tmp_path):
    """The weights stay; Youden's threshold is the best one for the films given, as inference sees them."""
    settings_of_run = {
        "datalist": manifest, "ckpt": trained / "model.pt", "cache_dir": cache, "subset": "all", "output_dir": tmp_path,
    }  # fmt: skip
    how = ("calibrating", ["train.json", "evaluate.json", "calibrate.json"])
    done = BUNDLE.run(*how, **settings_of_run)
    assert done.returncode == 0, done.stderr[-3000:]
    old, new = (read_classifier(folder / "model.pt") for folder in (trained, tmp_path))
    assert all(torch.equal(value, new[1].state_dict()[name]) for name, value in old[1].state_dict().items())
    assert old[0].temperatures != new[0].temperatures and old[0].classes == new[0].classes

    model = cxw_monai.load(tmp_path / "model.pt")
    known = [
        (row["label_edema"], model.classify(manifest.parent / row["image"], on_implausible="keep")["edema"])
        for row in rows_of(manifest)
    ]

    def index(threshold):  # of Youden, times the 16 films of either label
        return sum((1 if label == "1" else -1) * (value >= threshold - 1e-6) for label, value in known)

    assert index(new[0].operating_points["edema"]["youden"]) == max(index(value) for _, value in known)
    with pytest.raises(ValueError, match="is there already; give another output_dir"):
        calibrate_weights(None, None, None, new[0], tmp_path / "model.pt")
    rows = [row | {"image": str(manifest.parent / row["image"])} for row in rows_of(manifest)]
    with (tmp_path / "one.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(row for row in rows if row["label_edema"] == "1" and row["label_mass"] in ("", "0"))
    refused = BUNDLE.run(*how, **settings_of_run | {"datalist": tmp_path / "one.csv", "output_dir": tmp_path / "one"})
    assert (
        refused.returncode
        and "no class has both 1 and 0" in refused.stderr
        and "nothing to calibrate by" in refused.stderr
    )
    assert not (tmp_path / "one" / "model.pt").exists()


def test_a_model_is_scored_on_its_own_classes_in_their_order(trained, manifest, cache, tmp_path):
    places = {"datalist": str(manifest), "output_dir": str(tmp_path), "cache_dir": str(cache)}
    places["ckpt"] = str(trained / "model.pt")
    with pytest.raises(Exception) as caught:  # noqa: PT011
        BUNDLE.workflow("train", ["train.json", "evaluate.json"], **{**places, "classes": ["mass", "edema"]})
    assert "scored on its own, in their order: edema, mass" in str(innermost(caught.value))


def test_operating_points_do_not_move_with_the_labels_of_the_test(trained, manifest, cache, tmp_path):
    """The same run, but for the test films' labels, which are turned round."""
    tested = {row["film"] for row in rows_of(trained / "test" / "films.csv")}
    rows = rows_of(manifest)
    for row in rows:
        row["image"] = str(manifest.parent / row["image"])
        if row["image"].removesuffix(".png")[-2:] in tested:
            row |= {name: str(1 - int(row[name])) for name in ("label_edema", "label_mass") if row[name]}
    turned = tmp_path / "turned.csv"
    with turned.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    done = BUNDLE.run("training", ["train.json"], datalist=turned, output_dir=tmp_path, cache_dir=cache, **TESTED)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (read_settings(folder / "model.pt") for folder in (trained, tmp_path))
    assert first == second
    scores = [json.loads((one / "test/summary.json").read_text())["edema/auroc"] for one in (trained, tmp_path)]
    assert scores[0] == pytest.approx(1 - scores[1])


def test_a_head_is_trained_on_tokens_that_are_computed_once(manifest, cache, tmp_path):
    """With the preset `frozen` the encoder stays as it was, and a second run computes no tokens."""
    settings_of_run = {"datalist": manifest, "cache_dir": cache, **TESTED}
    for output in (tmp_path / "a", tmp_path / "b"):
        how = {"output_dir": output, "seed": 1, **settings_of_run}
        done = BUNDLE.run("training", ["train.json", "presets/frozen.yaml"], **how)
        assert done.returncode == 0, done.stderr[-3000:]
        assert ("encoding 18 films" in done.stdout + done.stderr) == (output.name == "a")
    settings, network = read_classifier(tmp_path / "a" / "model.pt")
    assert isinstance(network.head, AttentiveHead) and settings.head_layers == 4
    one, two = (torch.load(tmp_path / name / "model.pt", weights_only=True)["model"] for name in "ab")
    assert all(torch.equal(one[name], two[name]) for name in one)
    places = {"ckpt": tmp_path / "a" / "model.pt", "output_dir": tmp_path / "c", **settings_of_run}
    given = {name: str(value) for name, value in places.items()}
    configs = ["train.json", "presets/frozen.yaml", "evaluate.json"]
    flow = BUNDLE.workflow("train", configs, seed=1, classes=["edema", "mass"], **given)
    flow.run()
    flow.finalize()
    found, tested = tmp_path / "c" / "evaluation", tmp_path / "a" / "test"
    assert (found / "films.csv").read_text() == (tested / "films.csv").read_text()


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


@pytest.mark.slow
def test_two_processes_train_with_the_multi_gpu_overlay(manifest, cache, tmp_path):
    done = BUNDLE.run(
        "training",
        ["train.json", "multi_gpu_train.json"],
        processes=2,
        datalist=manifest,
        output_dir=tmp_path,
        cache_dir=cache,
        **{"epochs": 2, "batch_size": 2, **TESTED},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(torch.load(tmp_path / "checkpoint_epoch=2.pt", weights_only=True)["processes"]) == 2
    assert json.loads((tmp_path / "test" / "summary.json").read_text())["films"] == 8
    assert read_settings(tmp_path / "model.pt").temperatures


def test_inference_of_the_bundle(trained, manifest, tmp_path):
    plain = BundleRuns("chexworld_classification")
    done = plain.run("inference", ["inference.json"], ckpt=trained / "model.pt", input=manifest, output=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = rows_of(tmp_path / "classification.csv")
    assert len(rows) == 32 and {row["decision_edema_youden"] for row in rows} <= {"0", "1"}


def test_a_package_takes_its_classes_from_the_weights(trained, tmp_path):
    for library in ("onnxruntime", "cyclonedx"):
        pytest.importorskip(library, reason="packages hold ONNX models and a bill: pip install 'cxw-monai[packaging]'")
    archive = package_bundle(BUNDLE.folder, tmp_path / "package", trained / "model.pt")  # making it verifies it
    bundle = extract_bundle(archive, tmp_path)
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert metadata["network_data_format"]["outputs"]["pred"]["channel_def"] == {"0": "edema", "1": "mass"}
    assert metadata["network_data_format"]["inputs"]["image"]["spatial_shape"] == [32, 32]


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_build_what_they_say(preset):
    stated = yaml.safe_load((CONFIGS / f"presets/{preset}.yaml").read_text())
    assert set(stated) <= {*ClassificationSettings.model_fields, "extra_augmentation"}  # a list of the config's own
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / "train.json"), str(CONFIGS / f"presets/{preset}.yaml")])
    parser["encoder_ckpt"] = "none"
    network = parser.get_parsed_content("network_def")
    settings = parser.get_parsed_content("settings")
    assert network.classes == tuple(stated.get("classes", ["pneumonia"]))
    assert isinstance(network.head, AttentiveHead) == (preset == "frozen")
    assert set(settings.label_map) <= set(network.classes)
    assert network.encoder.blocks[-1].drop_path.drop_prob == 0.6 if preset in ("nih", "shenzhen") else True
    parser.get_parsed_content("train::preprocessing")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"classes": ["liver"]}, "no column label_liver or liver for the class 'liver'"),
        ({"cache_tokens": True}, "cache_tokens needs a frozen encoder"),
        ({"target": "multi_class", "gamma_negative": 1}, "are of target multi_label"),
        ({"class_weights": [1.0]}, "class_weights must be 2 numbers"),
        ({"key_metric": "dice"}, "key_metric"),
        ({"source_shares": {"elsewhere": 1}}, "source_shares must name each source of the films"),
        ({"encoder_ckpt": "nowhere.pt"}, "nowhere.pt: no such file"),
    ],
)
def test_wrong_settings_say_what_is_wrong_before_any_work(manifest, tmp_path, settings, said):
    if settings.get("target") == "multi_class":
        settings = {**settings, "label_map": {"edema": {"view": "AP"}, "mass": {"view": "PA"}}}
    places = {"output_dir": str(tmp_path / "run"), "cache_dir": str(tmp_path / "cache")}
    settings = {"datalist": str(manifest), **places, "classes": ["edema", "mass"], **settings}
    with pytest.raises(Exception) as caught:  # noqa: PT011
        BUNDLE.workflow("train", ["train.json"], **settings)
    assert said in str(innermost(caught.value))
    assert not any(tmp_path.iterdir())  # not a film was decoded


def test_metadata_has_the_mandatory_keys():
    BUNDLE.checked_metadata()
