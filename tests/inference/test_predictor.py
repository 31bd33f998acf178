"""One answer to a film, whichever way it is asked: bundle, Python API, MONAI Label, pseudo-labels, descriptors."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from PIL import Image

import cxw_monai
from cxw_monai.inference.films import FilmDataset
from cxw_monai.inference.predictor import OneByOneInferer, Predictor
from cxw_monai.inference.pseudo_labels import make_pseudo_labels
from cxw_monai.inference.settings import SegmentSettings
from cxw_monai.io import RadiographError, read_radiograph
from cxw_monai.label.model import LabelModel
from cxw_monai.metrics.descriptors import encoder_descriptors
from cxw_monai.networks import RadiographEmbedder, radiograph_vit
from cxw_monai.packaging.export import export_onnx, export_torchscript
from cxw_monai.training.errors import root_cause
from cxw_monai.weights.segmenter import new_segmenter, save_segmenter, segmenter_settings
from tests.helpers import dicom_files

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
STRUCTURES = ("lung_left", "lung_right", "heart")
SHAPES = {"portrait": (1024, 832), "landscape": (610, 757), "square": (512, 512), "small": (50, 41)}


def chest_like(shape: tuple[int, int], seed: int) -> np.ndarray:
    """Smooth noise `[H, W]` in [0, 1]."""
    coarse = Image.fromarray(np.random.default_rng(seed).random((9, 8), dtype=np.float32))
    smooth = np.asarray(coarse.resize(shape[::-1], Image.Resampling.BICUBIC))
    return np.clip(smooth, 0, 1)


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Path:
    """A folder of films of several shapes and formats: 8, 12 and 16 bits, stored upright and turned."""
    folder = tmp_path_factory.mktemp("films")
    for seed, (name, shape) in enumerate(SHAPES.items()):
        Image.fromarray(np.rint(chest_like(shape, seed) * 255).astype(np.uint8)).save(folder / f"{name}.png")
    dicom_files.write_dicom(folder / "a.dcm", np.rint(chest_like((700, 540), 7) * 4095).astype(np.uint16), bits=12)
    wide = np.rint(chest_like((300, 420), 8) * 65535).astype(np.uint16)
    nib.save(nib.Nifti1Image(np.ascontiguousarray(wide.T)[..., None], np.diag([-1, -1, 1, 1])), folder / "n.nii.gz")
    return folder


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory) -> Path:
    """A tiny segmenter whose masks are neither empty nor full."""
    path = tmp_path_factory.mktemp("segmenter") / "model.pt"
    settings = segmenter_settings(STRUCTURES, (96, 80), "tiny", 16, "unet", 8)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = new_segmenter(settings).eval()
    with torch.no_grad():
        logits = network(torch.from_numpy(chest_like((96, 80), 3))[None, None])[0]
        [head] = [module for module in network.decoder.modules() if getattr(module, "out_channels", 0) == 3]
        head.bias -= logits.median(dim=2).values.median(dim=1).values
    save_segmenter(network, settings, path)
    return path


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("encoder") / "encoder.pt"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(RadiographEmbedder(radiograph_vit("tiny", image_size=64)).state_dict(), path)
    return path


def infer(bundle: str, **settings) -> None:
    """A bundle's inference in this process."""
    root = BUNDLES / bundle
    flow = ConfigWorkflow(
        config_file=str(root / "configs" / "inference.json"),
        meta_file=str(root / "configs" / "metadata.json"),
        logging_file=False,
        workflow_type="inference",
        bundle_root=str(root),
        **settings,
    )
    flow.initialize()
    flow.run()


def written(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """Masks of a folder of results: film -> structure -> bool `[H, W]`."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for file in sorted(folder.rglob("masks/*.png")):
        found.setdefault(file.parents[1].name, {})[file.stem] = np.asarray(Image.open(file)) > 0
    return found


def test_masks_are_the_same_bits_whichever_way(films, segmenter, tmp_path):
    infer("chexworld_segmentation", input=str(films), output=str(tmp_path / "bundle"), ckpt=str(segmenter),
          keep_largest=True, formats=["png", "csv"])  # fmt: skip
    manifest = films.parent / "films.csv"
    paths = sorted(path for path in films.iterdir())
    manifest.write_text("image\n" + "".join(f"{path}\n" for path in paths))
    make_pseudo_labels(manifest, [segmenter], tmp_path / "pseudo", agreement=0, adapt=False)
    by_bundle, by_committee = written(tmp_path / "bundle"), written(tmp_path / "pseudo")
    model, label = cxw_monai.load(segmenter), LabelModel(segmenter)
    assert len(by_bundle) == len(by_committee) == len(paths) == 6
    some = 0.0
    for path in paths:
        film, name = read_radiograph(path), path.name.split(".")[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are no chests
            own = model.segment(path, keep_largest=True)
        served, *_ = label.segment(film, SegmentSettings(keep_largest=True))
        for structure, mask, answer in zip(STRUCTURES, own.values(), served, strict=True):
            assert np.array_equal(mask, answer), (name, structure)
            upright = mask.T if path.suffix == ".gz" else mask  # pictures of the masks are upright
            assert np.array_equal(upright, by_bundle[name][structure]), (name, structure)
            if structure in by_committee[name]:
                assert np.array_equal(mask, by_committee[name][structure]), (name, structure)
            some += 0 < mask.mean() < 1
        stored = np.stack(list(model.probabilities(path).values()))
        assert np.array_equal(stored, model.predictor.on_film(film))
        assert np.array_equal(label.probabilities(film), model.predictor.probabilities(film.array))
    assert some > 12  # of 18 masks


def test_embeddings_are_the_same_bits_whichever_way(films, encoder, tmp_path):
    infer("chexworld_pretraining", dataset_dir=str(films), output_dir=str(tmp_path), ckpt=str(encoder),
          network_size="tiny", image_size=64, batch_size=4)  # fmt: skip
    saved = np.load(tmp_path / "embeddings.npz", allow_pickle=False)
    model = cxw_monai.load(encoder)
    own = np.stack([model.embed(path) for path in saved["image"]])
    assert np.array_equal(own, saved["embeddings"]) and len(own) == 6
    assert np.array_equal(encoder_descriptors(encoder, saved["image"].tolist()).values, own)
    assert not np.array_equal(own[0], own[1])


def test_exported_models_draw_the_same_masks(films, segmenter, tmp_path):
    """Up to the rounding of float32: a mask differs only where the probability is within 1e-4 of the threshold."""
    onnxruntime = pytest.importorskip("onnxruntime")
    model = cxw_monai.load(segmenter, amp="none")
    export_torchscript(model.film_model(), tmp_path / "model.ts")
    export_onnx(model.film_model(), tmp_path / "model.onnx")
    script = torch.jit.load(str(tmp_path / "model.ts")).eval()
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    for name in SHAPES:
        film = read_radiograph(films / f"{name}.png").array
        expected = np.stack(list(model.probabilities(film[0]).values()))
        with torch.inference_mode():
            answers = [script(torch.from_numpy(film)[None])[0].numpy(), session.run(None, {"image": film[None]})[0][0]]
        for found in answers:
            np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)
            assert ((found >= 0.5) == (expected >= 0.5))[np.abs(expected - 0.5) > 1e-4].all()
            assert ((found >= 0.5) != (expected >= 0.5)).mean() < 1e-4


def test_films_of_a_batch_go_through_the_network_one_by_one():
    seen = []

    def network(images: torch.Tensor) -> torch.Tensor:
        seen.append(images.shape)
        return images.mean(dim=(2, 3))

    images = torch.rand(3, 1, 4, 5)
    assert torch.equal(OneByOneInferer()(images, network), images.mean(dim=(2, 3)))
    assert seen == [(1, 1, 4, 5)] * 3


def test_a_film_that_cannot_be_read_is_black_and_says_why(films, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    items = [{"image": str(tmp_path / "bad.png"), "sex": "F"}, {"image": str(films / "small.png")}]
    dataset = FilmDataset(items, (32, 24))
    by_name = {Path(dataset.items[n]["image"]).name: dataset[n] for n in range(len(dataset))}
    assert by_name["bad.png"]["reason"] and not by_name["bad.png"]["image"].any()
    assert by_name["small.png"]["reason"] == "" and by_name["small.png"]["image"].shape == (1, 32, 24)
    with pytest.raises(ValueError, match="small.png is listed 2 times"):
        FilmDataset([items[1], items[1]], 32)
    with pytest.raises(ValueError, match="no films"):
        FilmDataset([], 32)


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_films_stop_the_bundle_or_are_listed(films, encoder, tmp_path, workers):
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    settings = {"ckpt": str(encoder), "network_size": "tiny", "image_size": 64, "num_workers": workers}
    settings |= {"dataset_dir": str(tmp_path / "films"), "output_dir": str(tmp_path / "out")}
    with pytest.raises(Exception, match="evaluator") as stopped:  # MONAI's, which names the part of the config
        infer("chexworld_pretraining", **settings)
    assert re.match("none of the 1 films can be used; the first: .*bad.png", str(root_cause(stopped.value)))
    (tmp_path / "films" / "small.png").write_bytes((films / "small.png").read_bytes())
    infer("chexworld_pretraining", **settings)
    listed = (tmp_path / "out" / "skipped_inference.csv").read_text().splitlines()
    assert listed[0] == "path,reason" and len(listed) == 2 and "bad.png" in listed[1]
    assert len(np.load(tmp_path / "out" / "embeddings.npz", allow_pickle=False)["embeddings"]) == 1
    with pytest.raises(Exception, match="evaluator") as stopped:
        infer("chexworld_pretraining", on_error="raise", **settings)
    error = root_cause(stopped.value)
    assert isinstance(error, RadiographError) and error.path == str(tmp_path / "films" / "bad.png")


def test_what_a_predictor_refuses():
    with pytest.raises(ValueError, match="amp must be 'auto', 'bfloat16' or 'none', got 'float16'"):
        Predictor(torch.nn.Identity(), (32, 32), amp="float16")
    with pytest.raises(ValueError, match="the network has 1 channels for 2 structures"):
        Predictor(torch.nn.Identity(), (32, 32), structures=["a", "b"]).probabilities(np.zeros((1, 8, 8), np.float32))
