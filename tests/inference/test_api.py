"""The API of three lines: the answers of the bundles' own inference, on the film's own grid."""

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from pydicom.data import get_testdata_file

import cxw_monai
from cxw_monai.inference.api import EmbeddingModel, SegmentationModel
from cxw_monai.io import RadiographError, read_radiograph
from cxw_monai.networks import RadiographEmbedder, WorldModel, WorldModelPredictor, radiograph_vit
from cxw_monai.weights.bundles import BundleError
from cxw_monai.weights.encoder import CheckpointError
from cxw_monai.weights.segmenter import new_segmenter, save_segmenter, segmenter_settings
from tests.helpers.film_segmenter import film_segmenter

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
FILM = get_testdata_file("RG1_UNCR.dcm", download=False)


@pytest.fixture(scope="module")
def segmenter():
    return cxw_monai.load("chexworld_segmentation")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """Folder with `model.pt` and `encoder.pt` of a pretraining run whose two encoders differ."""
    folder = tmp_path_factory.mktemp("pretraining")
    torch.manual_seed(0)
    encoder = radiograph_vit("tiny", image_size=64, image_mean=0.4, image_std=0.3)
    model = WorldModel(encoder, WorldModelPredictor(encoder.grid, 192, 24, depth=1, num_heads=3))
    with torch.no_grad():
        model.target_encoder.blocks[0].mlp.fc1.bias.add_(0.5)
    torch.save(model.state_dict(), folder / "model.pt")
    torch.save(RadiographEmbedder(model.target_encoder).state_dict(), folder / "encoder.pt")
    return folder, RadiographEmbedder(model.target_encoder).eval()


def test_masks_are_those_that_inference_writes(segmenter, tmp_path):
    """A whole run of the bundle's inference in this process."""
    network, structures, size = segmenter.network, segmenter.structures, segmenter.image_size
    settings = {"formats": ("png",), "keep_largest": ["heart"], "threshold": 0.4}
    film_segmenter([FILM], FILM, tmp_path, network, structures, size, **settings).run()
    masks = segmenter.segment(FILM, threshold=0.4, keep_largest=["heart"])
    written = {path.stem: np.asarray(Image.open(path)) > 0 for path in tmp_path.rglob("masks/*.png")}
    assert masks.keys() == written.keys() == set(segmenter.structures)
    for name, mask in masks.items():
        assert mask.dtype == bool and mask.any()
        np.testing.assert_array_equal(mask, written[name])
    probabilities = segmenter.probabilities(FILM)
    np.testing.assert_array_equal(probabilities["lung_left"] >= 0.4, masks["lung_left"])


def test_masks_lie_on_the_grid_that_the_file_stores(tmp_path):
    """NIfTI stores columns first: its reader turns the film, and the masks are turned back."""
    segmenter = cxw_monai.load("chexworld_segmentation", amp="none")
    small = np.ascontiguousarray(read_radiograph(FILM).array[0, ::8, ::8])
    integers = np.rint(small * 65535).astype(np.uint16)
    Image.fromarray(integers).save(tmp_path / "film.png")
    nib.save(nib.Nifti1Image(integers.T[..., None], np.diag([-1, -1, 1, 1])), tmp_path / "film.nii.gz")
    from_array, from_floats = segmenter.segment(integers), segmenter.segment(small)
    from_png, from_nifti = segmenter.segment(tmp_path / "film.png"), segmenter.segment(tmp_path / "film.nii.gz")
    for name, mask in from_array.items():
        np.testing.assert_array_equal(mask, from_png[name])
        np.testing.assert_array_equal(mask, from_nifti[name].T)
        assert mask.shape == small.shape and (mask != from_floats[name]).mean() < 1e-3


def test_embeddings_of_any_film(pretrained):
    folder, network = pretrained
    image = np.random.default_rng(0).random((64, 64), dtype=np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(image)[None, None])[0].numpy()
    for place in (folder, folder / "model.pt", folder / "encoder.pt"):
        model = cxw_monai.load(place)
        assert isinstance(model, EmbeddingModel) and model.image_size == (64, 64)
        np.testing.assert_allclose(model.embed(image), expected, atol=1e-6)
        np.testing.assert_allclose(model.embed(torch.from_numpy(image)[None]), expected, atol=1e-6)
    assert model.embed(FILM).shape == (192,)


BRIGHT = np.array([[1, 0, 0, 0], [1, 1, 0, 0]], dtype=bool)
"""Which of 2 x 4 patches are bright. Seen as 4 x 2 patches, the first row would be bright, and one patch more."""


def sign_encoder(encoder) -> None:
    """By hand: a token is the sign of its patch's mean less 0.5, whatever its place.

    Only the first of D = 192 features is not 0, so that the final norm makes it +-sqrt(191), the others -+1/sqrt(191).
    """
    with torch.no_grad():
        for name, value in encoder.named_parameters():
            if not name.startswith("norm."):
                value.zero_()
        encoder.patch_embed.proj.weight[0] = 1 / 256
        encoder.image_mean.fill_(0.5)
        encoder.image_std.fill_(0.01)


def by_patches(scale: int) -> np.ndarray:
    """A film `[2 * scale, 4 * scale]`, 1 in bright patches and 0.2 in others."""
    return np.kron(np.where(BRIGHT, 1.0, 0.2), np.ones((scale, scale))).astype(np.float32)


@pytest.mark.parametrize("scale", [16, 50])
def test_height_and_width_of_a_segmenter(tmp_path, scale):
    """Height 32, width 64: the mask is the bright patches, on films of that size and on larger ones."""
    settings = segmenter_settings(["bright", "dark"], [32, 64], "tiny", 16, "linear", 4)
    network = new_segmenter(settings)
    sign_encoder(network.encoder)
    with torch.no_grad():
        network.decoder.head.weight.zero_()
        network.decoder.head.bias.zero_()
        network.decoder.head.weight[:16, 0] = 1  # 4 x 4 cells a token
        network.decoder.head.weight[16:, 0] = -1
    save_segmenter(network, settings, tmp_path / "model.pt")
    model = cxw_monai.load(tmp_path / "model.pt")
    assert model.image_size == (32, 64)
    masks, probabilities = model.segment(by_patches(scale)), model.probabilities(by_patches(scale))
    expected = np.kron(BRIGHT, np.ones((scale, scale), dtype=bool))
    inner = np.kron(np.ones_like(BRIGHT), np.pad(np.ones((scale - 8, scale - 8), dtype=bool), 4))
    assert expected[inner].any() and not expected[inner].all()
    np.testing.assert_array_equal(masks["bright"][inner], expected[inner])
    np.testing.assert_array_equal(masks["dark"][inner], ~expected[inner])
    sure = 1 / (1 + np.exp(-np.sqrt(191)))
    np.testing.assert_allclose(probabilities["bright"][inner], np.where(expected, sure, 1 - sure)[inner], atol=0.05)


@pytest.mark.parametrize("scale", [16, 50])
def test_height_and_width_of_an_encoder(tmp_path, scale):
    """The mean token: 3 of 8 patches are bright; of learnt positions the bundle's config tells the grid."""
    network = RadiographEmbedder(radiograph_vit("tiny", image_size=(32, 64)))
    sign_encoder(network.encoder)
    for folder in ("configs", "models"):
        (tmp_path / folder).mkdir()
    torch.save(network.state_dict(), tmp_path / "models" / "model.pt")
    (tmp_path / "configs" / "inference.json").write_text(json.dumps({"image_size": [32, 64]}))
    model = cxw_monai.load(tmp_path)
    assert model.image_size == (32, 64)
    expected = np.full(192, -1 / np.sqrt(191), dtype=np.float32)
    expected[0] = np.sqrt(191)
    np.testing.assert_allclose(model.embed(by_patches(scale)), expected * (3 - 5) / 8, rtol=1e-3)
    prepared = torch.from_numpy(by_patches(scale))[None, None]
    np.testing.assert_allclose(model.film_model()(prepared)[0].detach(), expected * (3 - 5) / 8, rtol=1e-3)


def test_a_bundle_with_an_encoder(pretrained, tmp_path):
    shipped = cxw_monai.load("chexworld_pretraining")
    assert isinstance(shipped, EmbeddingModel) and shipped.embed(FILM).shape == (192,)
    assert shipped.image_size == (160, 160)
    shutil.copytree(BUNDLES / "chexworld_pretraining", tmp_path / "bundle")
    (tmp_path / "bundle" / "models" / "model.pt").unlink()
    with pytest.raises(CheckpointError, match="a folder without model.pt"):
        cxw_monai.load(tmp_path / "bundle")
    shutil.copy(pretrained[0] / "encoder.pt", tmp_path / "bundle" / "models" / "model.pt")
    assert isinstance(cxw_monai.load(tmp_path / "bundle"), EmbeddingModel)


def test_a_name_that_is_no_bundle(tmp_path):
    with pytest.raises(BundleError, match="chexworld_nothing: no such file, and no bundle of this name in .*bundles"):
        cxw_monai.load("chexworld_nothing")
    with pytest.raises(BundleError, match="no such file"):
        cxw_monai.load(tmp_path / "model.pt")
    with pytest.raises(AttributeError, match="nothing"):
        _ = cxw_monai.nothing


@pytest.mark.parametrize(
    ("film", "said"),
    [
        (np.zeros((3, 64, 64)), r"got shape \(3, 64, 64\)"),
        (np.full((64, 64), 300.0), "from 300.0 to 300.0"),
        (np.full((64, 64), np.nan), "from nan to nan"),
        (np.zeros((64, 64), np.int32), "got int32"),
    ],
)
def test_arrays_that_are_no_film(segmenter, film, said):
    with pytest.raises(ValueError, match=said):
        segmenter.segment(film)


def test_wrong_arguments_and_files(segmenter, tmp_path):
    (tmp_path / "film.dcm").write_text("no film")
    with pytest.raises(RadiographError, match="film.dcm"):
        segmenter.segment(tmp_path / "film.dcm")
    with pytest.raises(ValueError, match="threshold must lie"):
        segmenter.segment(FILM, threshold=1)
    with pytest.raises(ValueError, match="keep_largest: .*'liver'"):
        segmenter.segment(FILM, keep_largest=["liver"])
    assert isinstance(segmenter, SegmentationModel)


@pytest.mark.parametrize("content", [b"image,patient_id\na.png,1\n", b"hello", b"", b"\x89PNG\r\n\x1a\n", b"{}"])
@pytest.mark.parametrize("name", ["films.csv", "notes.txt", "film.png", "model.pt"])
def test_files_that_hold_no_weights(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    said = f"{name}: not a readable checkpoint .neither a torch checkpoint nor safetensors.; give model.pt, encoder.pt"
    with pytest.raises(CheckpointError, match=said):
        cxw_monai.load(tmp_path / name)


def test_what_the_other_kind_of_model_does(pretrained, segmenter):
    encoder = cxw_monai.load(pretrained[0] / "encoder.pt")
    for name in ("segment", "probabilities", "review"):
        with pytest.raises(AttributeError, match=f"encoder.pt is an encoder, which has no '{name}'; load a segmenter"):
            getattr(encoder, name)
        assert not hasattr(encoder, name)
    with pytest.raises(AttributeError, match="model.pt is a segmenter, which has no 'embed'; load an encoder"):
        segmenter.embed(FILM)
    with pytest.raises(AttributeError, match="'EmbeddingModel' object has no attribute 'train'"):
        encoder.train()
