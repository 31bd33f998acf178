"""The pretraining bundle as a user runs it."""

import csv
import json
import re
import shutil
import sqlite3

import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigParser
from PIL import Image

from cxw_monai.io.results import folders
from cxw_monai.networks import WorldModel
from cxw_monai.tasks.pretraining.components import new_encoder
from cxw_monai.training.errors import plain_message, root_cause
from tests.helpers.bundle_runs import BundleRuns, innermost, last_line
from tests.helpers.forks import run_python

BUNDLE = BundleRuns(
    "chexworld_pretraining",
    network_size="tiny",
    image_size=96,
    predictor_dim=24,
    predictor_depth=1,
    cache_size=96,
    batch_size=4,
    epochs=2,
    warmup_epochs=1,
    val_fraction=0.25,
    val_interval=1,
    save_interval=1,
    monitor_every=1,
    num_workers=0,
)
CONFIGS, workflow = BUNDLE.configs, BUNDLE.workflow
ABLATION = sorted((CONFIGS / "presets" / "ablation").glob("*.yaml"))


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """A folder of a dozen films, one in a subfolder."""
    folder = tmp_path_factory.mktemp("films")
    (folder / "more").mkdir()
    rng = np.random.default_rng(0)
    for number in range(12):
        image = Image.fromarray(rng.integers(0, 256, (8, 8)).astype(np.uint8)).resize(
            (130, 110), Image.Resampling.BICUBIC
        )
        image.save(folder / ("more" if number == 0 else ".") / f"film{number:02}.png")
    return folder


@pytest.fixture(scope="module")
def trained(films, tmp_path_factory):
    """A finished small run: its folder and what it printed."""
    output = tmp_path_factory.mktemp("trained")
    done = BUNDLE.run_from_the_start("training", ["train.json"], dataset_dir=films, output_dir=output)
    assert done.returncode == 0, done.stderr[-3000:]
    return output, done


def test_training_leaves_checkpoints_curves_and_pictures(trained):
    output, _ = trained
    names = {path.name for path in output.iterdir()}
    wanted = {"checkpoint_epoch=1.pt", "checkpoint_epoch=2.pt", "model.pt", "encoder.pt", "metrics.csv", "curves.png"}
    assert wanted | {"world_views.png", "verdict.html"} <= names
    assert json.loads((output / "verdict.json").read_text())["verdict"] == "cannot tell"  # of twelve films
    for part in ("step", "epoch", "validation"):
        assert list((output / "tensorboard" / part).glob("events.*")), part
    with (output / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    needed = ("loss", "loss_intra", "loss_cross", "lr", "ema", "gradient_norm", "images_per_second", "target_std",
              "target_cosine", "target_rank", "prediction_rank", "val_loss_cross", "val_mean_token_cross",
              "val_mean_position_cross", "val_geometry_withheld_cross", "val_action_withheld_intra")  # fmt: skip
    for name in needed:
        assert np.isfinite(float(rows[-1][name])), name
    for picture in ("curves.png", "world_views.png"):
        assert (output / picture).read_bytes()[:4] == b"\x89PNG"


def test_training_imports_nothing_that_it_does_not_need(trained):
    """MONAI itself imports itk, scikit-learn and matplotlib where they are installed; the verdict embeds films."""
    imported = set(re.findall(r"^import time: .*\| +(\S+)$", trained[1].stderr, flags=re.M))
    assert {"monai.bundle", "cxw_monai.training", "cxw_monai.tasks.pretraining.step"} <= imported
    others = {"highdicom", "onnx", "onnxruntime", "cyclonedx", "fastapi", "dicomweb_client"}
    rooms = {f"cxw_monai.{room}" for room in ("packaging", "label", "rendering", "datasets", "cli")}
    assert not imported & (others | rooms)


def test_evaluation_compares_with_baselines(trained, films):
    output, _ = trained
    of_training = json.loads((output / "verdict.json").read_text())
    for name in ("verdict.json", "verdict.html"):
        (output / name).unlink()
    done = BUNDLE.run("evaluating", ["train.json", "evaluate.json"], dataset_dir=films, output_dir=output, verdict=True)
    assert done.returncode == 0, done.stderr[-3000:]
    again = json.loads((output / "verdict.json").read_text())
    assert (again["verdict"], again["films"]) == ("cannot tell", 12) and (output / "verdict.html").is_file()
    assert again["because"] == of_training["because"]
    metrics = json.loads((output / "evaluation.json").read_text())
    assert re.search(r"loss_cross \d\.\d+ .*\| geometry_withheld \d\.\d+ (NOT )?beaten", done.stdout + done.stderr)
    with (output / "metrics.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    assert metrics["loss"] == pytest.approx(float(last["val_loss"]), rel=1e-5)  # the same held-out films and masks


@pytest.mark.parametrize("weights", ["model.pt", "encoder.pt"])
def test_the_tests_of_a_world_model_are_a_run_of_the_bundle(trained, films, tmp_path, weights):
    output, _ = trained
    given = {"dataset_dir": str(films), "ckpt": str(output / weights), "output_dir": str(tmp_path)}
    workflow("eval", ["train.json", "evaluate_world.json"], world_tests=["local", "spread"], **given).run()
    rows = json.loads((tmp_path / "world" / "scores.json").read_text())["scores"]
    tests = {row["test"] for row in rows if row["network"] == "this network"}
    assert tests == ({"local, other places", "spread"} if weights == "model.pt" else {"spread"})
    assert (tmp_path / "world" / "index.html").is_file() and (tmp_path / "verdict.html").is_file()


@pytest.mark.parametrize("weights", ["model.pt", "encoder.pt"])
def test_inference_writes_embeddings(trained, films, tmp_path, weights):
    output, _ = trained
    flow = workflow(
        "infer",
        ["inference.json"],
        dataset_dir=str(films),
        output_dir=str(tmp_path),
        ckpt=str(output / weights),
        embedding="patches",
    )
    flow.run()
    saved = np.load(tmp_path / "embeddings.npz", allow_pickle=False)
    assert saved["embeddings"].shape == (12, 192) and saved["patches"].shape == (12, 192, 6, 6)
    np.testing.assert_allclose(saved["patches"].mean(axis=(2, 3)), saved["embeddings"], atol=2e-3)
    with (tmp_path / "embeddings.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [str(path) for path in saved["image"]]
    assert float(rows[3]["e5"]) == pytest.approx(saved["embeddings"][3, 5], rel=1e-4, abs=1e-6)
    assert len({row["e0"] for row in rows}) == 12
    assert flow.check_properties() == []


def test_training_properties(films, tmp_path):
    flow = workflow("train", ["train.json"], dataset_dir=str(films), output_dir=str(tmp_path))
    assert flow.check_properties() == []


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_numbers_of_one_that_was_not(films, tmp_path):
    settings = {"dataset_dir": films, "epochs": 8, "cache_dir": tmp_path / "cache", "num_workers": 1}
    killed = tmp_path / "killed"
    BUNDLE.kill_after(2, killed, **settings)
    resumed = BUNDLE.run("training", ["train.json"], output_dir=killed, resume="true", **settings)
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert "Resumed" in resumed.stdout + resumed.stderr
    whole = BUNDLE.run("training", ["train.json"], output_dir=tmp_path / "whole", **settings)
    assert whole.returncode == 0, whole.stderr[-3000:]
    first = torch.load(killed / "model.pt", weights_only=True)
    second = torch.load(tmp_path / "whole/model.pt", weights_only=True)
    assert all(torch.equal(first[name], second[name]) for name in second)


@pytest.mark.slow
@pytest.mark.parametrize("overlays", [["multi_gpu_train.json"], ["multi_gpu_train.json", "fsdp_train.json"]], ids=len)
def test_two_processes_train_with_the_overlays(overlays, films, tmp_path):
    done = BUNDLE.run(
        "training",
        ["train.json", *overlays],
        processes=2,
        dataset_dir=films,
        output_dir=tmp_path,
        batch_size=2,
        epochs=1,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    content = torch.load(tmp_path / "checkpoint_epoch=1.pt", weights_only=True)
    assert len(content["processes"]) == 2
    states = [process["masks"] for process in content["processes"]]
    assert not all(torch.equal(torch.as_tensor(states[0][k]), torch.as_tensor(states[1][k])) for k in states[0])
    with (tmp_path / "metrics.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert int(row["iteration"]) == 2  # nine films, two processes, two a batch


def test_a_bad_film_is_named_in_one_line_and_stops_the_run(films, tmp_path):
    bad = tmp_path / "films"
    bad.mkdir()
    for path in films.glob("*.png"):
        (bad / path.name).write_bytes(path.read_bytes())
    (bad / "broken.png").write_bytes((films / "film01.png").read_bytes()[:200])
    done = BUNDLE.run("training", ["train.json"], dataset_dir=bad, output_dir=tmp_path / "out")
    assert done.returncode != 0
    assert last_line(done).startswith(f"error: {bad / 'broken.png'}: ")
    assert "Traceback" not in done.stderr
    skipped = BUNDLE.run(
        "training", ["train.json"], dataset_dir=bad, output_dir=tmp_path / "out", on_error="skip", epochs=1
    )
    assert skipped.returncode == 0, skipped.stderr[-3000:]
    reports = list((tmp_path / "out").glob("skipped_*.csv"))
    assert sum("broken.png" in path.read_text() for path in reports) == 1


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({}, "dataset_dir"),
        ({"dataset_dir": "nowhere"}, "nowhere"),
        ({"image_size": 100}, "multiple of patch_size"),
        ({"image_size": 32}, "grid"),
        ({"batch_size": 64}, "fewer training images"),
        ({"conditioning": "magic"}, "conditioning"),
    ],
)
def test_wrong_settings_say_what_is_wrong(films, tmp_path, overrides, said):
    settings = {"output_dir": str(tmp_path), "dataset_dir": str(films), **overrides}
    if not overrides:
        del settings["dataset_dir"]

    def run():
        workflow("train", ["train.json"], **settings).run()

    with pytest.raises(Exception) as caught:  # noqa: PT011
        run()
    assert said in str(innermost(caught.value))


def untouched(folder):
    """Every file of a folder, with its time and size."""
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*") if path.is_file()}


def own_error(call):
    """The message that the error hook shows."""
    with pytest.raises(Exception) as caught:  # noqa: PT011
        call()
    return plain_message(root_cause(caught.value))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"resume": False}, "holds checkpoints of an earlier run: continue with --resume true, or choose another"),
        ({"regulariser": "sigreg"}, "means nothing: regulariser was 'none' and is now 'sigreg'; give those again"),
        ({"objectives": ["local"]}, "objectives was ['local', 'global', 'domain'] and is now ['local']"),
        ({"predictor_dim": 48}, "predictor_dim was 24 and is now 48"),
        ({"seed": 1, "val_fraction": 0.5}, "seed was 0 and is now 1; val_fraction was 0.25 and is now 0.5"),
        ({"optimizer::_target_": "torch.optim.SGD", "optimizer::fused": None}, "optimizer"),
        ({"batch_size": 64}, "fewer training images than batch_size"),
        (
            {"lr": "fast"},
            "lr must be a valid number, unable to parse string as a number, got 'fast' (given in the settings).",
        ),
        ({"epoch": 3}, "did you mean epochs?"),
        ({"clip_norm": -1}, "clip_norm must be greater than 0, or null, got -1"),
        ({"mask_ratio": 0.5}, "mask_ratio has no use in strategy 'multiblock'"),
        ({"crop_scale": [0.9, 0.3]}, "scale must be (low, high)"),
        ({"resume": "nowhere.pt"}, "nowhere.pt: no such file"),
    ],
)
def test_a_refused_run_leaves_everything_as_it_was(trained, films, monkeypatch, overrides, said):
    output, _ = trained
    monkeypatch.setattr(folders, "_held", {})  # what other tests of this process hold
    before = untouched(output)
    settings = {"dataset_dir": str(films), "output_dir": str(output), "resume": True, **overrides}
    if "optimizer::_target_" in overrides:
        settings["optimizer"] = {"_target_": "torch.optim.SGD", "params": "$@network.parameters()", "lr": "@lr"}
        settings = {name: value for name, value in settings.items() if "::" not in name}
    assert said in own_error(lambda: workflow("train", ["train.json"], **settings))
    assert untouched(output) == before
    assert not folders.holds_output()  # nothing was begun, so that the program ends with status 2


@pytest.mark.parametrize("old", [False, True])
def test_a_resumed_run_says_what_changed(trained, films, tmp_path, caplog, old):
    shutil.copytree(trained[0], tmp_path / "run", ignore=shutil.ignore_patterns("cache"))
    newest = tmp_path / "run" / "checkpoint_epoch=2.pt"
    content = torch.load(newest, weights_only=True)
    assert content["settings"]["fixed"]["objectives"] == ["local", "global", "domain"]
    assert not any(str(films) in str(value) for value in content["settings"].values())
    if old:
        del content["settings"]
        torch.save(content, newest)
    settings = {"dataset_dir": str(films), "output_dir": str(tmp_path / "run"), "cache_dir": str(trained[0] / "cache")}
    flow = workflow("train", ["train.json"], **settings, resume="true", epochs=3, lr="1e-3")
    caplog.set_level("WARNING")
    flow.run()
    said = {record.message for record in caplog.records if "other setting" in record.message}
    changed = {"lr was 0.0002 and is now 0.001", "epochs was 2 and is now 3"}
    assert said == (set() if old else {f"Resuming with another setting: {change}." for change in changed})
    assert any("keeps no settings" in record.message for record in caplog.records) == old
    assert (tmp_path / "run" / "checkpoint_epoch=3.pt").exists()


def test_a_broken_manifest_is_named_in_one_line(tmp_path):
    (tmp_path / "broken.json").write_text("{'training': [")
    done = BUNDLE.run("training", ["train.json"], datalist=tmp_path / "broken.json", output_dir=tmp_path / "out")
    assert done.returncode == 2 and "Traceback" not in done.stderr and not (tmp_path / "out").exists()
    assert last_line(done).startswith(f"error: {tmp_path / 'broken.json'}: not readable JSON (Expecting property name")


def test_a_misspelt_setting_ends_the_command_before_any_work(films, tmp_path):
    done = BUNDLE.run("training", ["train.json"], dataset_dir=films, output_dir=tmp_path / "out", regularizer="sigreg")
    assert done.returncode == 2 and "Traceback" not in done.stderr and not (tmp_path / "out").exists()
    assert last_line(done).startswith("error: regularizer (given on the command line): the bundle has no such setting")
    assert "did you mean regulariser?" in last_line(done)


def test_weights_of_another_geometry_are_refused(trained, films, tmp_path):
    output, _ = trained
    done = BUNDLE.run(
        "inference", ["inference.json"], dataset_dir=films, output_dir=tmp_path, ckpt=output / "model.pt", patch_size=8
    )
    assert done.returncode != 0
    assert re.match(
        rf"error: {re.escape(str(output / 'model.pt'))}: of another geometry .*patch_embed", last_line(done)
    )


@pytest.mark.parametrize("preset", ABLATION, ids=[path.stem for path in ABLATION])
def test_every_row_of_the_ablation_trains(films, tmp_path, preset):
    name = f"presets/ablation/{preset.name}"
    flow = workflow("train", ["train.json", name], dataset_dir=str(films), output_dir=str(tmp_path), epochs=1)
    before = {n: p.clone() for n, p in flow.network_def.named_parameters()}
    flow.run()
    stated = yaml.safe_load(preset.read_text())
    settings = flow.network_def.settings
    assert {k: list(v) if k == "objectives" else v for k, v in ((k, getattr(settings, k)) for k in stated)} == stated
    changed = {n for n, p in flow.network_def.named_parameters() if not torch.equal(p, before[n])}
    assert {"encoder.blocks.0.attn.qkv.weight", "predictor.predictor_proj.weight"} <= changed


@pytest.mark.parametrize(
    ("overlays", "targets", "width"), [(["presets/mae_tiny.yaml"], "pixels", 256), ([], "both", 448)]
)
def test_pixels_can_be_the_target_or_stand_beside_it(films, tmp_path, overlays, targets, width):
    configs = ["train.json", *overlays]
    settings = {} if overlays else {"targets": targets, "crops_on": "device", "mask_multiple": 4}
    flow = workflow("train", configs, dataset_dir=str(films), output_dir=str(tmp_path), epochs=1, **settings)
    flow.run()
    assert flow.network_def.settings.targets == targets
    assert flow.network_def.predictor.predictor_proj.out_features == width  # patches of 16 x 16, and tokens of 192
    assert (tmp_path / "encoder.pt").exists()


def test_the_ablation_has_the_papers_seven_rows():
    assert [path.name[:4] for path in ABLATION] == [f"row{i}" for i in range(1, 8)]


@pytest.mark.parametrize(
    ("preset", "dim", "grid", "order", "truncation"),
    [
        ("demo", 192, (8, 8), "row_first", "random"),
        ("cpu_tiny", 192, (10, 10), "row_first", None),
        ("learning_base", 192, (10, 10), "row_first", "random"),
        ("vit_base_paper", 768, (14, 14), "row_first", "random"),
        ("vit_base_parity", 768, (14, 14), "column_first", "first"),
    ],
)
def test_presets_build_what_they_say(preset, dim, grid, order, truncation):
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / "train.json"), str(CONFIGS / f"presets/{preset}.yaml")])
    with torch.device("meta") if dim == 768 else torch.device("cpu"):
        encoder = new_encoder(parser.get_parsed_content("settings"))
    assert encoder.embed_dim == dim and encoder.grid == grid
    settings = parser.get_parsed_content("settings")
    assert settings.context_order == order and settings.mask_truncation == truncation


def test_metadata_has_the_mandatory_keys():
    BUNDLE.checked_metadata()


@pytest.mark.slow
def test_network_checks_and_export(trained, tmp_path):
    output, _ = trained
    common = ["--net_id", "network_def", "--meta_file", "configs/metadata.json", "--config_file",
              "configs/inference.json"]  # fmt: skip
    for action in (["verify_net_in_out", *common, "--n", "4"],
                   ["ckpt_export", *common, "--network_size", "tiny", "--image_size", "96",
                    "--ckpt_file", output / "encoder.pt", "--filepath", tmp_path / "model.ts"]):  # fmt: skip
        done = run_python(["-m", "monai.bundle", *action], cwd=BUNDLE.folder)
        assert done.returncode == 0, done.stderr[-2000:]
    script = torch.jit.load(str(tmp_path / "model.ts"))
    state = torch.load(output / "model.pt", weights_only=True)
    assert torch.equal(script.state_dict()["encoder.norm.weight"], state["target_encoder.norm.weight"])
    for shape in ((96, 96), (64, 160)):
        assert script(torch.rand(2, 1, *shape)).shape == (2, 192)


def test_the_network_of_the_training_config_is_a_world_model():
    parser = ConfigParser()
    parser.read_config(str(CONFIGS / "train.json"))
    parser.update({"network_size": "tiny", "image_size": 96, "predictor_dim": 24, "predictor_depth": 1})
    assert isinstance(parser.get_parsed_content("network_def"), WorldModel)


@pytest.mark.slow
def test_mlflow_records_the_run(films, tmp_path):
    pytest.importorskip("mlflow", reason="mlflow is an extra: pip install 'cxw-monai[tracking]'")
    done = BUNDLE.run("training", ["train.json"], dataset_dir=films, output_dir=tmp_path, tracking="mlflow")
    assert done.returncode == 0, done.stderr[-3000:]
    with sqlite3.connect(tmp_path / "mlruns.db") as database:
        recorded = dict(database.execute("select key, count(*) from metrics group by key"))
    assert {"loss", "loss_cross", "lr", "ema", "target_rank", "mean_token_cross"} <= set(recorded)
    assert recorded["train_loss"] == 4  # two epochs of two steps


def test_the_films_own_normalisation_goes_into_the_weights(films, tmp_path):
    """Measured on the training films, before the first step; weights to start from have their own."""
    settings = {"dataset_dir": str(films), "output_dir": str(tmp_path), "measure_normalisation": True}
    begun = workflow("train", ["train.json"], **settings)
    encoder = begun.parser.get_parsed_content("network_def").encoder
    grey = np.concatenate([begun.parser.get_parsed_content("train::cache").image(n).ravel() for n in range(9)]) / 255
    assert float(encoder.image_mean.mean()) == pytest.approx(grey.mean(), abs=0.01)
    assert float(encoder.image_std.mean()) == pytest.approx(grey.std(), abs=0.01)
    said = own_error(lambda: workflow("train", ["train.json"], **settings, start_from="encoder.pt"))
    assert "measure_normalisation is for fresh weights" in said
