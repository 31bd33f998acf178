"""The segmentation bundle as a user runs it, on rendered films of the phantom."""

import csv
import json
import re

import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigParser

from cxw_monai.networks import RadiographEmbedder, radiograph_vit
from cxw_monai.rendering import make_dataset
from cxw_monai.tasks.segmentation.settings import FineTuningSettings
from cxw_monai.weights.segmenter import load_segmenter, read_settings
from tests.helpers.bundle_runs import BundleRuns, innermost, last_line
from tests.helpers.forks import run_python
from tests.helpers.phantom import write_phantom

BUNDLE = BundleRuns(
    "chexworld_segmentation",
    network_size="tiny",
    image_size=64,
    cache_size=64,
    base_channels=4,
    batch_size=3,
    epochs=4,
    lr=2e-3,
    warmup_epochs=1,
    val_fraction=0.25,
    val_interval=2,
    save_interval=1,
    num_workers=0,
)
CONFIGS, workflow = BUNDLE.configs, BUNDLE.workflow
SHIPPED = BUNDLE.folder / "models" / "model.pt"
FIVE = ["lung_left", "lung_right", "heart", "clavicle_left", "clavicle_right"]


def root_message(call):
    """What the first error of a chain says."""
    with pytest.raises(Exception) as caught:  # noqa: PT011
        call()
    return str(innermost(caught.value))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Ten rendered patients of 64 px with all masks; on the first three films nobody drew the clavicles."""
    folder = tmp_path_factory.mktemp("drr")
    source = write_phantom(folder / "phantom")
    path = make_dataset(folder / "films", 10, source, size=64, views=("PA",), voxel_mm=6.0, seed=0)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows[:3]:
        row["mask_clavicle_left"] = row["mask_clavicle_right"] = ""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def trained(manifest, cache, tmp_path_factory):
    """A finished small run with a test at its end: its folder and what it printed."""
    output = tmp_path_factory.mktemp("trained")
    done = BUNDLE.run_from_the_start(
        "training", ["train.json"], datalist=manifest, output_dir=output, cache_dir=cache, test_fraction=0.2
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return output, done


def test_training_leaves_a_model_curves_pictures_and_a_test(trained):
    output, _ = trained
    names = {path.name for path in output.iterdir()}
    assert {"checkpoint_epoch=3.pt", "checkpoint_epoch=4.pt", "model.pt", "metrics.csv", "curves.png"} <= names
    with (output / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert [bool(row["val_dice"]) for row in rows] == [False, True, False, True]
    needed = ("loss", "loss_dice", "loss_bce", "lr", "gradient_norm", "images_per_second", "val_loss", "val_dice_heart")
    for name in needed:
        assert np.isfinite(float(rows[-1][name])), name
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    for picture in ("curves.png", "training_samples.png"):
        assert (output / picture).read_bytes()[:4] == b"\x89PNG"
    summary = json.loads((output / "test" / "summary.json").read_text())
    assert summary["films"] == 2 and 0 <= summary["dice"] <= 1
    assert read_settings(output / "model.pt").structures == tuple(FIVE)


def test_evaluation_needs_the_model_alone_and_repeats_the_test(trained, manifest, cache, tmp_path):
    """No preset, no sizes: on the test films the evaluation gives the numbers of the run's own test."""
    output, _ = trained
    flow = workflow(
        "train",
        ["train.json", "evaluate.json"],
        datalist=str(manifest),
        output_dir=str(tmp_path),
        cache_dir=str(cache),
        ckpt=str(output / "model.pt"),
        test_fraction=0.2,
        network_size="base",
        base_channels=99,
    )
    flow.run()
    found = (tmp_path / "evaluation" / "summary.json").read_text()
    assert json.loads(found) == pytest.approx(json.loads((output / "test" / "summary.json").read_text()), abs=1e-4)


@pytest.fixture
def without_heart(manifest):
    """The manifest without its column of hearts."""
    with manifest.open(newline="") as file:
        rows = [{name: cell for name, cell in row.items() if name != "mask_heart"} for row in csv.DictReader(file)]
    path = manifest.with_name("without_heart.csv")
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def evaluated(trained, manifest, cache, output, **settings):
    """Summary and table of an evaluation of the small run's model on all films."""
    files = {"datalist": str(manifest), "cache_dir": str(cache), "output_dir": str(output)}
    flow = workflow("train", ["train.json", "evaluate.json"], **files, ckpt=str(trained[0] / "model.pt"), subset="all",
                    **settings)  # fmt: skip
    flow.run()
    return json.loads((output / "evaluation" / "summary.json").read_text())


def test_a_model_is_scored_on_those_of_its_structures_that_there_are_masks_of(
    trained, manifest, without_heart, cache, tmp_path, caplog
):
    whole = evaluated(trained, manifest, cache, tmp_path / "whole")
    caplog.set_level("WARNING")
    found = evaluated(trained, without_heart, cache, tmp_path / "heartless")
    assert "No film has a mask of heart: not scored." in caplog.messages
    assert "No film has a mask of heart: not scored." in (tmp_path / "heartless/evaluation/report.html").read_text()
    assert "dice_heart" not in found and found["heart/unknown"] == 10
    chosen = evaluated(trained, manifest, cache, tmp_path / "chosen", structures="clavicle_left, lung_right")
    names = {name for name in chosen if name.startswith("dice_") and "/" not in name}
    assert names == {"dice_clavicle_left", "dice_lung_right"}
    for one in (found, chosen):  # each structure is scored as among all of them, in any order
        for name in (name for name in one if name.startswith("dice_") and "/" not in name):
            assert one[name] == pytest.approx(whole[name], abs=1e-6), name


def test_structures_that_a_model_does_not_have_are_refused_by_name(trained, manifest, cache, tmp_path):
    said = root_message(lambda: evaluated(trained, manifest, cache, tmp_path, structures=["heart", "ribs"]))
    assert "the model has no 'ribs'; it has lung_left, lung_right, heart" in said
    assert not (tmp_path / "evaluation").exists()
    nothing = manifest.with_name("nothing.csv")
    nothing.write_text("image\n" + next(manifest.parent.glob("images/*.png"), manifest).as_posix() + "\n")
    assert "no column mask_lung_left" in root_message(lambda: evaluated(trained, nothing, cache, tmp_path))


@pytest.mark.parametrize("structures", [FIVE[::-1], FIVE[:3], [*FIVE[:4], "mediastinum"]])
def test_a_started_training_keeps_its_structures(trained, manifest, cache, structures):
    files = {path: path.stat().st_mtime_ns for path in trained[0].rglob("*")}
    settings = {"datalist": str(manifest), "cache_dir": str(cache), "output_dir": str(trained[0]), "test_fraction": 0.2}
    said = root_message(
        lambda: workflow("train", ["train.json"], **settings, resume=True, structures=structures, epochs=5)
    )
    assert f"structures was {FIVE!r} and is now {structures!r}; give those again, or start a run of its own" in said
    assert {path: path.stat().st_mtime_ns for path in trained[0].rglob("*")} == files


def test_unknown_structures_are_left_out_of_every_score(trained, manifest, cache, tmp_path):
    done = BUNDLE.run(
        "evaluating",
        ["train.json", "evaluate.json"],
        datalist=manifest,
        output_dir=tmp_path,
        cache_dir=cache,
        ckpt=trained[0] / "model.pt",
        subset="all",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with (tmp_path / "evaluation" / "films.csv").open() as file:
        rows = list(csv.DictReader(file))
    empty = {row["film"] for row in rows if row["dice_clavicle_left"] == ""}
    assert len(rows) == 10 and empty == {f"drr_{n:04d}_PA" for n in (1, 2, 3)}
    assert all(row["dice_heart"] for row in rows)


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_numbers_of_one_that_was_not(trained, manifest, cache, tmp_path):
    whole, _ = trained
    settings = {"datalist": manifest, "output_dir": tmp_path, "cache_dir": cache, "test_fraction": 0.2}
    BUNDLE.kill_after(2, **settings)
    resumed = BUNDLE.run(
        "training", ["train.json"], resume="true", num_workers=1, **{**settings, "output_dir": tmp_path}
    )
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert "Resumed" in resumed.stdout + resumed.stderr
    for name in ("model.pt", "checkpoint_epoch=4.pt"):
        first, second = (torch.load(folder / name, weights_only=True)["model"] for folder in (tmp_path, whole))
        assert all(torch.equal(first[key], second[key]) for key in second), name
    assert (tmp_path / "test/films.csv").read_text() == (whole / "test/films.csv").read_text()


@pytest.mark.slow
def test_two_processes_train_with_the_multi_gpu_overlay(manifest, cache, tmp_path):
    done = BUNDLE.run(
        "training",
        ["train.json", "multi_gpu_train.json"],
        processes=2,
        datalist=manifest,
        output_dir=tmp_path,
        cache_dir=cache,
        test_fraction=0.2,
        batch_size=2,
        epochs=2,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(torch.load(tmp_path / "checkpoint_epoch=2.pt", weights_only=True)["processes"]) == 2
    with (tmp_path / "metrics.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    assert int(last["iteration"]) == 2  # six films, two processes, two a batch: one step an epoch
    assert json.loads((tmp_path / "test" / "summary.json").read_text())["films"] == 2
    assert load_segmenter(tmp_path / "model.pt").structures == tuple(FIVE)


def test_settings_reach_the_network_and_the_optimiser(manifest, cache, tmp_path):
    """A pretrained encoder at another patch size, frozen half way, with layer decay, and transforms of one's own."""
    torch.manual_seed(0)
    encoder = radiograph_vit("tiny", image_size=96)
    torch.save(RadiographEmbedder(encoder).state_dict(), tmp_path / "encoder.pt")
    flow = workflow(
        "train",
        ["train.json"],
        dataset_dir=str(manifest.parent),
        output_dir=str(tmp_path / "out"),
        cache_dir=str(cache),
        network_size=None,
        patch_size=8,
        image_size=[64, 80],
        encoder_ckpt=str(tmp_path / "encoder.pt"),
        freeze=6,
        layer_decay=0.5,
        drop_path_rate=0.2,
        extra_augmentation=[{"_target_": "ScaleIntensityd", "keys": "image", "minv": 0.25, "maxv": 0.25}],
        jitter_prob=0.0,
        noise_prob=0.0,
    )
    network = flow.network_def
    assert network.patch_size == 8 and len(network.encoder.blocks) == 12
    assert torch.equal(network.encoder.blocks[3].attn.qkv.weight, encoder.blocks[3].attn.qkv.weight)
    assert [
        p.requires_grad for p in (network.encoder.blocks[5].norm1.weight, network.encoder.blocks[6].norm1.weight)
    ] == [
        False,
        True,
    ]
    optimizer = flow.parser.get_parsed_content("optimizer")
    assert [group["lr_scale"] for group in optimizer.param_groups[::2]] == [0.5**k for k in range(6, -1, -1)]
    sample = flow.parser.get_parsed_content("train::dataset")[(0, 0)]
    assert sample["image"].shape == (1, 64, 80) and sample["label"].shape == (5, 64, 80)
    torch.testing.assert_close(sample["image"], torch.full((1, 64, 80), 0.25))  # one's own transform came last
    assert set(flow.check_properties()) == set()


def test_starts_from_the_shipped_encoder_unless_told_otherwise(manifest, cache, tmp_path):
    settings = {"datalist": str(manifest), "output_dir": str(tmp_path), "cache_dir": str(cache), "network_size": None}
    shipped = torch.load(BUNDLE.folder.parent / "chexworld_pretraining" / "models" / "model.pt", weights_only=True)
    network = workflow("train", ["train.json"], **settings).network_def
    weight = network.encoder.blocks[3].attn.qkv.weight
    assert torch.equal(weight, shipped["encoder.blocks.3.attn.qkv.weight"])
    fresh = workflow("train", ["train.json"], **settings, encoder_ckpt="none").network_def.encoder
    assert fresh.embed_dim == 384 and not torch.equal(fresh.blocks[3].attn.qkv.weight[:576, :192], weight)
    said = root_message(lambda: workflow("train", ["train.json"], **settings | {"network_size": "base"}).run())
    assert "'tiny', not 'base'; set network_size to tiny, or encoder_ckpt to" in said


def test_findings_of_rendered_films_train_without_conversion(manifest, cache, tmp_path):
    flow = workflow(
        "train",
        ["train.json", "presets/pneumothorax.yaml"],
        datalist=str(manifest),
        output_dir=str(tmp_path),
        cache_dir=str(cache),
        structure_map={"pneumothorax": "finding_mask_Pneumothorax"},
        absent_labels={"pneumothorax": "Pneumothorax"},
    )
    dataset = flow.parser.get_parsed_content("train::dataset")
    assert all(dataset.films.known(index).tolist() == [True] for index in range(len(dataset)))
    assert dataset[(0, 0)]["label"].shape == (1, 64, 64)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"datalist": None}, "give dataset_dir (a folder) or datalist"),
        ({"structures": ["spleen"]}, "no column mask_spleen"),
        ({"image_size": 100}, "multiple of patch_size 16"),
        ({"batch_size": 64}, "fewer training films than batch_size"),
        ({"decoder": "magic"}, "decoder must be one of"),
        ({"freeze": "half"}, "freeze must be"),
        ({"layer_decay": 2.0}, "layer_decay must be less than or equal to 1"),
        ({"encoder_ckpt": "nowhere.pt"}, "nowhere.pt: no such file"),
        ({"structures": ["lung_left"], "flip_prob": 0.5}, "set flip_prob to 0"),
        ({"splits": "column"}, "has the split None"),
        ({"source_shares": {"elsewhere": 1}}, "source_shares must name each source of the films"),
        ({"start_from": "nowhere.pt"}, "nowhere.pt: no such file"),
    ],
)
def test_wrong_settings_say_what_is_wrong_before_any_work(manifest, tmp_path, overrides, said):
    places = {"output_dir": str(tmp_path / "run"), "cache_dir": str(tmp_path / "cache")}
    settings = {"datalist": str(manifest), **places, **overrides}
    assert said in root_message(lambda: workflow("train", ["train.json"], **settings).run())
    assert not any(tmp_path.iterdir())  # not a film was decoded


def test_a_bad_mask_is_named_in_one_line(manifest, tmp_path):
    folder = manifest.parent
    bad = next((folder / "masks" / "heart").glob("drr_0005*.png"))
    content = bad.read_bytes()
    bad.write_bytes(content[:40])
    try:
        done = BUNDLE.run("training", ["train.json"], datalist=manifest, output_dir=tmp_path)
    finally:
        bad.write_bytes(content)
    assert done.returncode != 0
    assert re.fullmatch(rf"error: {re.escape(str(bad))}: the mask cannot be read .*", last_line(done))
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("preset", ["demo", "lungs_heart_clavicles", "pneumothorax", "paper"])
def test_presets_build_what_they_say(preset):
    stated = yaml.safe_load((CONFIGS / f"presets/{preset}.yaml").read_text())
    assert set(stated) <= set(FineTuningSettings.model_fields)
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / "train.json"), str(CONFIGS / f"presets/{preset}.yaml")])
    parser["encoder_ckpt"] = "none"
    network = parser.get_parsed_content("network_def")
    size = stated["image_size"]
    assert network.patch_size == (8 if preset == "paper" else 16)
    assert network.encoder.grid == (size // network.patch_size,) * 2
    assert network.structures == (("pneumothorax",) if preset == "pneumothorax" else tuple(FIVE))
    assert all(isinstance(value, (int, float)) for key, value in stated.items() if key.startswith("lr"))
    parser.get_parsed_content("train::preprocessing")


def test_metadata_has_the_mandatory_keys_and_the_models_structures():
    metadata = BUNDLE.checked_metadata()
    channels = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
    assert list(channels.values()) == list(read_settings(SHIPPED).structures)


@pytest.mark.slow
def test_network_checks_and_export(tmp_path):
    """Both read the network off the model's file; the exported one gives its logits at other sizes too."""
    ckpt = str(SHIPPED)
    common = ["--net_id", "network_def", "--meta_file", "configs/metadata.json", "--config_file",
              "configs/inference.json", "--ckpt", ckpt]  # fmt: skip
    for action in (["verify_net_in_out", *common, "--n", "4"],
                   ["ckpt_export", *common, "--ckpt_file", ckpt, "--key_in_ckpt", "model",
                    "--filepath", str(tmp_path / "model.ts")]):  # fmt: skip
        done = run_python(["-m", "monai.bundle", *action], cwd=BUNDLE.folder)
        assert done.returncode == 0, done.stderr[-2000:]
    script, network = torch.jit.load(str(tmp_path / "model.ts")).eval(), load_segmenter(ckpt)
    for shape in ((64, 64), (50, 90)):
        image = torch.rand(2, 1, *shape)
        with torch.no_grad():
            torch.testing.assert_close(script(image), network(image), atol=1e-4, rtol=1e-4)
