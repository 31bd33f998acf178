"""The reader inside MONAI: LoadImaged, the dictionary transform, batches."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch, list_data_collate, set_track_meta
from monai.transforms import Compose, EnsureChannelFirstd, LoadImage, LoadImaged, RandFlipd, SpatialPadd
from PIL import Image

from cxw_monai.io import LoadRadiographd, RadiographError, RadiographReader, read_radiograph
from cxw_monai.io.pixel_map import PixelMap
from tests.helpers import dicom_files as _files

FILM = (np.arange(20 * 30, dtype=np.uint16) * 6).reshape(20, 30)  # 12 bits, rows and columns differ


@pytest.fixture
def films(tmp_path):
    """A MONOCHROME1 DICOM of known spacing, a PNG and a turned NIfTI of unknown spacing."""
    dicom = _files.write_dicom(
        tmp_path / "a.dcm", FILM, bits=12, photometric="MONOCHROME1", PixelSpacing=[0.3, 0.2], ViewPosition="PA"
    )
    Image.fromarray((FILM // 16).astype(np.uint8)).save(tmp_path / "b.png")
    nib.save(nib.Nifti1Image((FILM // 16).astype(np.uint8).T[::-1], np.diag([1.0, -1, 1, 1])), tmp_path / "c.nii.gz")
    return [dicom, tmp_path / "b.png", tmp_path / "c.nii.gz"]


def _loaders():
    reader = RadiographReader()
    return {
        "reader": LoadImaged("image", reader=reader),
        "channel first": LoadImaged("image", reader=reader, ensure_channel_first=True),
        "by dotted path": LoadImaged("image", reader="cxw_monai.io.RadiographReader", ensure_channel_first=True),
        "by class": LoadImaged("image", reader=RadiographReader),
        "then EnsureChannelFirstd": Compose([LoadImaged("image", reader=reader), EnsureChannelFirstd("image")]),
        "own transform": LoadRadiographd("image"),
    }


@pytest.mark.parametrize("name", list(_loaders()))
def test_every_way_gives_the_array_of_the_function(films, name):
    load = _loaders()[name]
    for path in films:
        for given in (path, str(path)):
            image = load({"image": given, "label": 3})["image"]
            assert isinstance(image, MetaTensor) and image.dtype == torch.float32
            np.testing.assert_array_equal(image.numpy(), read_radiograph(path).array)  # [1, 20, 30]
            assert image.meta["filename_or_obj"] == str(path)


def test_a_spacing_that_is_unknown_is_told_so(films):
    dicom, png, _ = (LoadRadiographd("image")({"image": path})["image"] for path in films)
    assert dicom.meta["spacing_known"] and list(dicom.meta["spacing_mm"]) == [0.3, 0.2]
    np.testing.assert_allclose(dicom.affine.numpy(), [[0, -0.2, 0, 0], [-0.3, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    assert dicom.pixdim[:2].tolist() == pytest.approx([0.3, 0.2])  # rows, columns
    assert not png.meta["spacing_known"] and np.isnan(png.meta["spacing_mm"]).all()
    np.testing.assert_allclose(png.affine.numpy(), [[0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


def test_meta_tells_what_the_function_tells(films):
    image = LoadRadiographd("image")({"image": films[0]})["image"]
    meta = read_radiograph(films[0]).meta
    assert image.meta["steps"] == "; ".join(meta["steps"])
    unequal = "pixels aren't square: 0.3 x 0.2 mm (rows x columns), left as stored"
    assert meta["steps"] == ["declared range 0 to 4095", "inverted", unequal, "spacing: PixelSpacing"]
    assert (image.meta["bits"], image.meta["view"], image.meta["laterality"]) == (12, "PA", "")
    turned = LoadRadiographd("image")({"image": films[2]})["image"]
    pixel_map = PixelMap.from_dict(json.loads(turned.meta["pixel_map"]))
    assert pixel_map == read_radiograph(films[2]).meta["pixel_map"]
    np.testing.assert_array_equal(pixel_map.restore(turned[0].numpy()) * 255, (FILM // 16).T[::-1])


@pytest.mark.parametrize("loader", ["reader", "own transform"])
@pytest.mark.parametrize("workers", [0, 1])
def test_batches_mix_known_and_unknown_spacing(films, loader, workers):
    transform = Compose([_loaders()[loader], RandFlipd("image", prob=0.5), SpatialPadd("image", (32, 32))])
    data = Dataset([{"image": str(path)} for path in films * 2], transform)
    for batch in DataLoader(data, batch_size=6, num_workers=workers):
        images = batch["image"]
        assert images.shape == (6, 1, 32, 32) and isinstance(images, MetaTensor)
        assert images.meta["spacing_known"].tolist() == [True, False, False] * 2
        assert torch.isnan(images.meta["spacing_mm"]).any(1).tolist() == [False, True, True] * 2
        assert images.meta["steps"][0].startswith("declared range")
        single = decollate_batch(batch)[2]["image"]
        assert json.loads(single.meta["pixel_map"])["source_shape"] == [30, 20]
    assert list_data_collate([data[0], data[1]])["image"].shape == (2, 1, 32, 32)


def test_options_reach_the_reader(films):
    expected = read_radiograph(films[0], window=(1000, 500)).array
    options = {"window": (1000, 500), "min_size": 20}
    for load in (LoadRadiographd("image", **options), LoadImaged("image", reader=RadiographReader(**options))):
        np.testing.assert_array_equal(load({"image": films[0]})["image"].numpy(), expected)
    with pytest.raises(RadiographError, match="smaller than 21"):
        LoadRadiographd("image", min_size=21)({"image": films[0]})
    for build in (RadiographReader, lambda **wrong: LoadRadiographd("image", **wrong)):
        with pytest.raises(ValueError, match="voi must be one of"):
            build(voi="best")


def test_a_file_that_another_reader_could_read_is_still_our_error(tmp_path):
    # A colour DICOM: MONAI's PydicomReader and ITKReader both load it
    pytest.importorskip("itk")
    colour = np.zeros((20, 30, 3), np.uint8)
    colour[:, :, 0] = FILM // 16
    path = _files.write_dicom(
        tmp_path / "a.dcm",
        np.zeros((20, 30), np.uint8),
        photometric="RGB",
        SamplesPerPixel=3,
        PlanarConfiguration=0,
        PixelData=colour.tobytes(),
    )
    assert LoadImage(reader="PydicomReader")(path).shape[-1] == 3
    for load in _loaders().values():
        with pytest.raises((RadiographError, RuntimeError)) as caught:
            load({"image": path})
        error = caught.value
        if not isinstance(error, RadiographError):  # Compose wraps what it meets
            assert "applying transform" in str(error)
            error = error.__cause__
        assert isinstance(error, RadiographError) and "colour DICOM" in error.reason


@pytest.mark.parametrize("name", ["a.dcm", "b.png", "c.nii.gz", "missing.png"])
def test_broken_files_are_our_error(films, name):
    pytest.importorskip("itk")
    path = films[0].with_name(name)
    if path.exists():
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    for name in ("reader", "channel first", "own transform"):
        with pytest.raises(RadiographError) as caught:
            _loaders()[name]({"image": path})
        assert caught.value.path == str(path)


def test_several_files_for_one_image_are_refused(films):
    with pytest.raises(RadiographError, match="3 files for one radiograph"):
        LoadImage(reader=RadiographReader())(films)


def test_automatic_choice_by_name(films):
    loader = LoadImage()
    loader.register(RadiographReader())  # comes before MONAI's own
    for path in films:
        np.testing.assert_array_equal(loader(path).numpy(), read_radiograph(path).array)
    assert not RadiographReader().verify_suffix("a.npy")


def test_without_tracking_a_plain_tensor(films):
    set_track_meta(False)
    try:
        image = LoadRadiographd("image")({"image": films[0]})["image"]
    finally:
        set_track_meta(True)
    assert type(image) is torch.Tensor and image.shape == (1, 20, 30)


def test_keys(films):
    both = LoadRadiographd(["image", "prior"], allow_missing_keys=True)({"image": films[0], "id": 7})
    assert set(both) == {"image", "id"} and both["id"] == 7
    with pytest.raises(KeyError):
        LoadRadiographd(["image", "prior"])({"image": films[0]})
