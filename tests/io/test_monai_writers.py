"""Films through MONAI's writers and back: the same pixels at the same places, at the same spacing."""

from __future__ import annotations

from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, ITKReader, NibabelReader, NibabelWriter, PILReader, decollate_batch
from monai.data.utils import to_affine_nd
from monai.transforms import (
    Compose,
    EnsureTyped,
    Flipd,
    Invertd,
    LoadImage,
    LoadImaged,
    Orientationd,
    Resized,
    SaveImage,
    SaveImaged,
    Spacingd,
)
from PIL import Image

from cxw_monai.io import LoadRadiographd, RadiographReader, read_radiograph
from cxw_monai.io.results.mask_files import write_nifti_masks
from tests.helpers import dicom_files as _files

FILM = np.random.default_rng(3).integers(0, 256, (20, 31)).astype(np.uint8)  # no symmetry, rows and columns differ
FILM[0, :2] = 0, 255
SOURCES = ("a.dcm", "b.png", "c.nii.gz")


@pytest.fixture
def folder(tmp_path):
    """The same film three times, of spacing 0.3 (rows) and 0.2 mm, unknown, and 0.3 and 0.2 mm."""
    _files.write_dicom(tmp_path / "a.dcm", FILM, PixelSpacing=[0.3, 0.2])
    Image.fromarray(FILM).save(tmp_path / "b.png")
    film = nib.Nifti1Image(FILM.T[::-1], np.diag([0.2, -0.3, 1, 1]))  # stored from the patient's left to right
    film.header.set_xyzt_units("mm")
    nib.save(film, tmp_path / "c.nii.gz")
    return tmp_path


def _save(image: torch.Tensor, folder: Path, ending: str, **how: object) -> Path:
    """Write an image by SaveImage; the file."""
    how = {"scale": 255 if ending == ".png" else None, **how}
    if ending == ".dcm":
        image = image * 255
    SaveImage(folder / "out", "x", ending, separate_folder=False, print_log=False, **how)(image)
    (path,) = (folder / "out").iterdir()
    return path


def _loaders() -> list[object]:
    reader = RadiographReader()
    return [
        LoadRadiographd("image"),
        LoadImaged("image", reader=reader),
        LoadImaged("image", reader=reader, ensure_channel_first=True),
    ]


@pytest.mark.parametrize("source", SOURCES)
def test_the_affine_puts_rows_down_and_columns_to_the_left(folder, source):
    image = LoadRadiographd("image")({"image": folder / source})["image"]
    row, column = (1.0, 1.0) if source == "b.png" else (0.3, 0.2)
    corner, down, right = (image.affine.numpy() @ [r, c, 0, 1] for r, c in ((0, 0), (1, 0), (0, 1)))
    np.testing.assert_allclose(down - corner, [0, -row, 0, 0], atol=1e-6)  # RAS: to posterior
    np.testing.assert_allclose(right - corner, [-column, 0, 0, 0], atol=1e-6)  # to the left
    np.testing.assert_allclose(image.pixdim[:2], [row, column], atol=1e-6)
    assert bool(image.meta["spacing_known"]) == (source != "b.png")


@pytest.mark.parametrize(("loader", "resample"), [(0, False), (1, True), (2, False)])
@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".png", ".tif", ".dcm"])
@pytest.mark.parametrize("source", SOURCES)
def test_a_saved_film_is_the_film(folder, source, ending, resample, loader):
    film = read_radiograph(folder / source)
    image = _loaders()[loader]({"image": folder / source})["image"]
    path = _save(image, folder, ending, resample=resample)
    again = read_radiograph(path)
    np.testing.assert_allclose(again.array, film.array, atol=1 / 250)
    if ending in (".nii.gz", ".nii", ".nrrd"):
        spacing = film.meta["spacing_mm"]
        assert again.meta["spacing_mm"] == (spacing and pytest.approx(spacing)) or spacing is None


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    ("ending", "reader"),
    [(".nii.gz", NibabelReader), (".nii.gz", ITKReader), (".nrrd", ITKReader), (".dcm", ITKReader)],
)
def test_monais_readers_find_every_pixel_at_its_place(folder, source, ending, reader):
    film = LoadRadiographd("image")({"image": folder / source})["image"]
    again = LoadImage(reader=reader)(_save(film, folder, ending))
    values, affine = again.numpy().reshape(again.shape[:2]), to_affine_nd(3, again.affine.numpy())
    for row, column in ((0, 0), (0, 30), (19, 0), (19, 30), (7, 22)):
        place = film.affine.numpy() @ [row, column, 0, 1]
        i, j = np.rint(np.linalg.solve(affine, place))[:2].astype(int)
        np.testing.assert_allclose((affine @ [i, j, 0, 1])[:2], place[:2], atol=1e-4)
        scale = 255 if ending == ".dcm" else 1
        assert values[i, j] / scale == pytest.approx(float(film[0, row, column]), abs=1 / 250)


@pytest.mark.parametrize("source", SOURCES)
def test_a_saved_picture_looks_like_the_film(folder, source):
    film = LoadRadiographd("image")({"image": folder / source})["image"]
    path = _save(film, folder, ".png")
    with Image.open(path) as image:
        np.testing.assert_allclose(np.asarray(image), FILM, atol=1)
    np.testing.assert_allclose(LoadImage(reader=PILReader)(path).numpy(), FILM.T, atol=1)  # columns first, as ever


@pytest.mark.parametrize("source", SOURCES)
def test_monais_own_writer_of_nifti_needs_no_help(folder, source):
    film = read_radiograph(folder / source)
    image = LoadRadiographd("image")({"image": folder / source})["image"]
    path = _save(image, folder, ".nii.gz", writer=NibabelWriter, resample=True)
    np.testing.assert_allclose(read_radiograph(path).array, film.array, atol=1e-6)


def test_masks_saved_through_monai_lie_on_the_packages_own(folder):
    image = LoadRadiographd("image")({"image": folder / "a.dcm"})["image"]
    masks = np.stack([FILM > 128, FILM > 200])
    (own,) = write_nifti_masks(folder / "own", masks[:1], ["heart"], source=folder / "a.dcm", spacing_mm=(0.3, 0.2))
    saved = _save((image > 128.5 / 255).to(torch.uint8), folder, ".nii.gz", output_dtype=np.uint8)
    one, other = (itk.imread(str(path)) for path in (own, saved))
    for row, column in ((0, 0), (5, 17), (19, 30)):
        values = []
        for picture in (one, other):
            point = [column * 0.2, row * 0.3, 0.0][: picture.GetImageDimension()]
            values.append(int(picture.GetPixel(picture.TransformPhysicalPointToIndex(point))))
        assert values[0] == values[1] == int(masks[0, row, column])


def test_several_channels_are_kept(folder):
    image = LoadRadiographd("image")({"image": folder / "a.dcm"})["image"]
    path = _save(torch.cat([image, 1 - image]), folder, ".nii.gz")
    found = nib.load(path)
    values = np.asarray(found.dataobj)  # [20, 31, 1, 2]
    np.testing.assert_allclose(values[:, :, 0, 0], FILM / 255, atol=1e-6)
    np.testing.assert_allclose(values[:, :, 0, 1], 1 - FILM / 255, atol=1e-6)
    np.testing.assert_allclose(found.affine, image.affine)


@pytest.mark.parametrize("ending", [".png", ".nii.gz", ".nrrd"])
@pytest.mark.parametrize(
    "transforms",
    [
        [Flipd("image", 0)],
        [Flipd("image", 1)],
        [Orientationd("image", axcodes="LP", labels=(("L", "R"), ("P", "A"), ("I", "S")))],
    ],
)
def test_turned_films_are_written_where_they_lie(folder, transforms, ending):
    image = Compose([LoadRadiographd("image"), *transforms])({"image": folder / "a.dcm"})["image"]
    assert image.shape[1:] in ((20, 31), (31, 20))
    np.testing.assert_allclose(read_radiograph(_save(image, folder, ending)).array[0], FILM / 255, atol=1 / 250)


def test_spacing_and_its_inverse_follow_the_affine(folder):
    pre = Compose([LoadRadiographd("image"), Spacingd("image", pixdim=(0.1, 0.2), mode="nearest")])
    item = pre({"image": folder / "a.dcm"})
    assert item["image"].shape == (1, 58, 31)  # 19 gaps of 0.3 mm at 0.1, and the first
    np.testing.assert_allclose(item["image"].pixdim[:2], [0.1, 0.2])
    item["pred"] = item["image"].clone()
    back = Invertd("pred", pre, orig_keys="image")(item)["pred"]
    np.testing.assert_allclose(back.numpy()[0], FILM / 255, atol=1e-6)
    np.testing.assert_allclose(read_radiograph(_save(back, folder, ".nii.gz")).array[0], FILM / 255, atol=1e-6)


def test_a_resized_film_is_saved_at_its_own_size_again(folder):
    pre = Compose([LoadRadiographd("image"), Resized("image", (40, 62), mode="nearest")])
    image = pre({"image": folder / "a.dcm"})["image"]
    again = read_radiograph(_save(image, folder, ".nii.gz", resample=True, mode="nearest"))
    np.testing.assert_allclose(again.array[0], FILM / 255, atol=1e-6)
    assert again.meta["spacing_mm"] == pytest.approx((0.3, 0.2))


def test_from_a_batch(folder):
    data = Dataset(
        [{"image": folder / name} for name in SOURCES], Compose([LoadRadiographd("image"), EnsureTyped("image")])
    )
    (batch,) = DataLoader(data, batch_size=3)
    for number, item in enumerate(decollate_batch(batch)):
        options = {"output_ext": ".png", "scale": 255, "separate_folder": False, "print_log": False}
        SaveImaged("image", output_dir=folder / f"out{number}", **options)(item)
        (path,) = (folder / f"out{number}").iterdir()
        np.testing.assert_allclose(read_radiograph(path).array[0], FILM / 255, atol=1 / 250)


def test_other_images_are_written_as_ever(folder):
    image = LoadImage(ensure_channel_first=True, reader=PILReader)(folder / "b.png")  # [1, W, H]
    path = _save(image / 255, folder, ".png")
    with Image.open(path) as picture:
        np.testing.assert_allclose(np.asarray(picture), FILM, atol=1)


def test_a_nrrd_of_a_plane_lies_as_itk_has_it(folder):
    image = itk.image_from_array(FILM)
    image.SetSpacing([0.2, 0.3])
    for direction in (np.eye(2), np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([[-1.0, 0.0], [0.0, 1.0]])):
        image.SetDirection(itk.matrix_from_array(direction))
        itk.imwrite(image, str(folder / "d.nrrd"))
        found = read_radiograph(folder / "d.nrrd")
        expected = {1.0: FILM, 0.0: FILM.T, -1.0: FILM[:, ::-1]}[direction[0, 0]]
        np.testing.assert_allclose(found.array[0], expected / 255, atol=1e-6)
        spacing = (0.3, 0.2) if direction[0, 0] else (0.2, 0.3)
        assert found.meta["spacing_mm"] == pytest.approx(spacing)
