"""Packages: what is in them, that broken ones are reported, and that MONAI itself loads and runs them."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from monai.bundle import create_workflow, download
from monai.bundle import load as monai_load
from PIL import Image
from pydicom.data import get_testdata_file

import cxw_monai
from cxw_monai.networks import RadiographEmbedder, WorldModel, WorldModelPredictor, radiograph_vit
from cxw_monai.packaging import hugging_face_folder, package_bundle, verify_package
from cxw_monai.packaging.contents import write_sums, write_zip
from cxw_monai.packaging.export import export_onnx
from cxw_monai.weights.bundles import BundleError, extract_bundle
from cxw_monai.weights.encoder import CheckpointError
from cxw_monai.weights.segmenter import read_settings
from tests.helpers.forks import run_python

PROJECT = Path(__file__).resolve().parents[2]
SEGMENTATION = PROJECT / "bundles" / "chexworld_segmentation"
METADATA = json.loads((SEGMENTATION / "configs" / "metadata.json").read_text())
FILM = get_testdata_file("RG1_UNCR.dcm", download=False)


@pytest.fixture
def light(unpacked):
    """The same with placeholders for models, which come after the checks of files and metadata."""
    for path in (unpacked / "models").iterdir():
        path.write_text("placeholder")
    return unpacked


def packed(bundle: Path) -> Path:
    """A folder as a zip, with new checksums."""
    write_sums(bundle)
    archive = bundle.parent / "again.zip"
    write_zip(bundle, archive)
    return archive


def edit(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_name_contents_and_checksums(package, unpacked):
    assert package.name == f"chexworld_segmentation_v{METADATA['version']}.zip"
    assert sorted(path.name for path in package.parent.iterdir()) == [package.name, f"{package.name}.sha256"]
    for listing in (package.with_name(f"{package.name}.sha256"), unpacked / "SHA256SUMS"):
        done = subprocess.run(["sha256sum", "-c", listing.name], cwd=listing.parent, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
    with zipfile.ZipFile(package) as archive:
        members = archive.infolist()
    assert [each.filename for each in members] == sorted(each.filename for each in members)
    assert {each.date_time for each in members} == {(1980, 1, 1, 0, 0, 0)}
    shipped = (SEGMENTATION / "models" / "model.pt").read_bytes()
    assert (unpacked / "models" / "model.pt").read_bytes() == shipped
    for path in unpacked.rglob("*"):
        assert not path.is_file() or path.suffix in (".ts", ".onnx") or path.stat().st_size <= 25_000_000


def test_the_same_files_give_the_same_bytes(unpacked, tmp_path):
    copy = shutil.copytree(unpacked, tmp_path / "copy" / unpacked.name)
    for number, folder in enumerate((unpacked, copy)):
        write_zip(folder, tmp_path / f"{number}.zip")
    assert (tmp_path / "0.zip").read_bytes() == (tmp_path / "1.zip").read_bytes()


def test_bill_of_materials(unpacked):
    bill = json.loads((unpacked / "sbom.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    parts = {part["name"]: part for part in bill["components"]}
    files = [part for part in bill["components"] if "hashes" in part]
    stated = {name for line in (unpacked / "SHA256SUMS").read_text().splitlines() if (name := line.partition("  ")[2])}
    assert {part["name"] for part in files} == stated - {"sbom.json"}
    weights = hashlib.sha256((unpacked / "models" / "model.pt").read_bytes()).hexdigest()
    assert parts["models/model.pt"]["hashes"] == [{"alg": "SHA-256", "content": weights}]
    assert parts["torch"]["version"] == torch.__version__
    assert parts["sympy"]["purl"].startswith("pkg:pypi/sympy@")  # torch's own requirement
    references = {part["bom-ref"] for part in bill["components"]} | {bill["metadata"]["component"]["bom-ref"]}
    assert len(references) == len(bill["components"]) + 1
    assert {each for edge in bill["dependencies"] for each in (edge["ref"], *edge.get("dependsOn", []))} <= references
    assert {each["ref"] for each in bill["dependencies"]} >= references - {part["bom-ref"] for part in files}
    assert not {"serialNumber", "timestamp"} & {*bill, *bill["metadata"]}  # the same package has the same bill
    required = json.loads((unpacked / "configs" / "metadata.json").read_text())["required_packages_version"]
    assert set(required) <= set(parts)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda b: (b / "LICENSE").unlink(), "LICENSE: missing"),
        (lambda b: (b / "docs" / "big.bin").write_bytes(bytes(25_000_001)), "docs/big.bin: 25000001 bytes, over"),
        (lambda b: edit(b / "configs" / "metadata.json", lambda m: m.pop("monai_version")), "'monai_version' is a req"),
        (lambda b: edit(b / "configs" / "metadata.json", lambda m: m.update(version="9.0")), "9.0 is not in the chang"),
        (lambda b: edit(b / "configs" / "metadata.json", lambda m: m.update(references=[])), "references: "),
        (
            lambda b: edit(b / "sbom.json", lambda m: m["components"][0].update(type="other")),
            "sbom.json: 'other' is",
        ),
        (lambda b: (b / "sbom.json").write_text("{"), "sbom.json: Expecting property name"),
    ],
)
def test_harm_is_reported(light, harm, said):
    harm(light)
    (problem,) = verify_package(packed(light))
    assert said in problem


def test_a_changed_file_is_reported(light):
    write_sums(light)
    (light / "docs" / "README.md").write_text("changed")
    (light / "docs" / "new.txt").write_text("not listed")
    write_zip(light, light.parent / "again.zip")
    problems = verify_package(light.parent / "again.zip")
    assert problems == [f"docs/{name}: not what SHA256SUMS says" for name in ("README.md", "new.txt")]


def test_a_large_file_may_be_listed(light):
    (light / "docs" / "big.bin").write_bytes(bytes(25_000_001))
    (light / "large_files.yml").write_text("large_files:\n- path: docs/big.bin\n  url: https://example.org/big.bin\n")
    (light / "LICENSE").unlink()
    assert verify_package(packed(light)) == ["LICENSE: missing"]


@pytest.mark.slow
def test_what_only_running_it_shows_is_reported(unpacked):
    """Metadata of another network, a training without optimiser, an ONNX model of other weights."""
    formats = unpacked / "configs" / "metadata.json"
    edit(formats, lambda m: m["network_data_format"]["outputs"]["pred"].update(num_channels=5))
    edit(unpacked / "configs" / "train.json", lambda m: m.pop("loss_function", None) or m["train"].pop("trainer"))
    model = cxw_monai.load(unpacked)
    with torch.no_grad():
        model.network.decoder.head.bias.add_(1.0)
    export_onnx(model.film_model(), unpacked / "models" / "model.onnx")
    problems = verify_package(packed(unpacked))
    assert len(problems) == 3, problems
    assert "output channel number `8` doesn't match: `5`" in problems[0]
    assert problems[1].startswith("workflows: ")
    assert problems[2].startswith("models/model.onnx: differs by 0.")


@pytest.mark.slow
def test_nothing_is_left_of_a_package_that_fails(tmp_path):
    bundle = shutil.copytree(SEGMENTATION, tmp_path / "chexworld_segmentation")
    edit(bundle / "configs" / "metadata.json", lambda m: m.pop("task"))
    with pytest.raises(BundleError, match="does not make a package: .*'task' is a required"):
        package_bundle(bundle, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.fixture(scope="module")
def world_model(tmp_path_factory):
    """`model.pt` of a pretraining run."""
    path = tmp_path_factory.mktemp("run") / "model.pt"
    torch.manual_seed(0)
    encoder = radiograph_vit("tiny", image_size=96)
    model = WorldModel(encoder, WorldModelPredictor(encoder.grid, 192, 24, depth=1, num_heads=3))
    torch.save(model.state_dict(), path)
    return path, RadiographEmbedder(model.target_encoder).eval()


@pytest.mark.slow
def test_an_encoder_makes_a_package_whose_configs_fit_it(world_model, tmp_path):
    weights, network = world_model
    empty = shutil.copytree(PROJECT / "bundles" / "chexworld_pretraining", tmp_path / "empty" / "chexworld_pretraining")
    (empty / "models" / "model.pt").unlink()
    with pytest.raises(CheckpointError, match="no weights; give those of a run"):
        package_bundle(empty, tmp_path)
    package = package_bundle(empty, tmp_path, weights)
    bundle = extract_bundle(package, tmp_path)
    config = json.loads((bundle / "configs" / "inference.json").read_text())
    assert [config[name] for name in ("network_size", "image_size", "patch_size", "in_channels")] == ["tiny", 96, 16, 1]
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert metadata["network_data_format"]["outputs"]["pred"]["num_channels"] == 192
    loaded = monai_load(
        bundle.name,
        bundle_dir=tmp_path,
        workflow_type="inference",
        device="cpu",
        args_file={"bundle_root": str(bundle)},
    )
    image = torch.rand(1, 1, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(loaded.eval()(image), network(image))


def test_monai_loads_a_package(package, tmp_path, monkeypatch):
    """From its zip to a network and a TorchScript module with `monai.bundle` alone, in another folder."""
    monkeypatch.chdir(tmp_path)
    download("chexworld_segmentation", bundle_dir=str(tmp_path / "bundles"), url=package.as_uri(), progress=False)
    bundle = tmp_path / "bundles" / "chexworld_segmentation"
    network = monai_load(
        bundle.name,
        bundle_dir=bundle.parent,
        workflow_type="inference",
        device="cpu",
        args_file={"bundle_root": str(bundle)},
    )
    own = cxw_monai.load(package, amp="none")
    image = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(image), own.network(image))
    script, metadata, _ = monai_load(bundle.name, bundle_dir=bundle.parent, load_ts_module=True, device="cpu")
    assert metadata["version"] == METADATA["version"]
    with torch.no_grad():
        found = script(image)[0].numpy()
    np.testing.assert_allclose(found, np.stack(list(own.probabilities(image[0, 0]).values())), atol=1e-4)


def workflow(bundle: Path, kind: str, config: str, **settings):
    """`create_workflow` as a program elsewhere calls it."""
    return create_workflow(
        config_file=str(bundle / "configs" / config),
        workflow_type=kind,
        bundle_root=str(bundle),
        logging_file=False,
        device=torch.device("cpu"),
        **settings,
    )


def test_create_workflow_infers_from_anywhere(unpacked, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    output = tmp_path / "found"
    inference = workflow(unpacked, "infer", "inference.json", input=FILM, output=str(output), formats=["png"])
    inference.run()
    masks = cxw_monai.load(unpacked).segment(FILM)
    for name in read_settings(unpacked / "models" / "model.pt").structures:
        np.testing.assert_array_equal(
            np.asarray(Image.open(output / "RG1_UNCR" / "masks" / f"{name}.png")) > 0, masks[name]
        )


@pytest.mark.slow
def test_create_workflow_trains_from_anywhere(unpacked, radiograph_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(radiograph_folder.parent)
    rows = []
    for path in sorted(radiograph_folder.glob("*.png")):
        bright = np.asarray(Image.open(path)) > 128
        Image.fromarray(bright.astype(np.uint8) * 255).save(radiograph_folder / f"mask_{path.name}")
        rows.append({"image": path.name, "patient_id": path.stem, "mask_heart": f"mask_{path.name}"})
    with (radiograph_folder / "manifest.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    small = {"structures": ["heart"], "network_size": "tiny", "image_size": 64, "cache_size": 64, "base_channels": 4}
    training = workflow(
        unpacked,
        "train",
        "train.json",
        dataset_dir=str(radiograph_folder),
        output_dir=str(tmp_path / "run"),
        epochs=1,
        batch_size=4,
        num_workers=1,
        val_fraction=0.3,
        **small,
    )
    training.run()
    model = cxw_monai.load(tmp_path / "run" / "model.pt")
    assert model.segment(radiograph_folder / rows[0]["image"]).keys() == {"heart"}


@pytest.mark.slow
def test_hugging_face_folder(tmp_path):
    folder = hugging_face_folder(SEGMENTATION, tmp_path)
    _, front, body = (folder / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front)["license"] == "apache-2.0"
    assert yaml.safe_load(front)["library_name"] == "monai"
    for fact in (
        "Not a medical device",
        f"| wingspan_dice_heart | {METADATA['eval_metrics']['wingspan_dice_heart']} |",
        "arXiv:2504.13820",
        "](docs/segmentation_rg1.png)",
    ):
        assert fact in body
    assert "](../" not in body
    film = np.random.default_rng(0).random((90, 80), dtype=np.float32)
    expected = cxw_monai.load("chexworld_segmentation").probabilities(film)
    for place in (folder, folder / "model.safetensors"):
        found = cxw_monai.load(place).probabilities(film)
        assert all(np.array_equal(found[name], expected[name]) for name in expected)
    with pytest.raises(BundleError, match="exists already"):
        hugging_face_folder(SEGMENTATION, tmp_path)


def test_the_command_tells_what_is_wrong_in_one_line(tmp_path):
    arguments = [PROJECT / "scripts" / "package_bundle.py", "chexworld_nothing", "--output", "out"]
    done = run_python(arguments, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("error: chexworld_nothing: no such file"), done.stderr
