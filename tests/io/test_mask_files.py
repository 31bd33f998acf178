"""Names of result folders, PNG masks, and NIfTI masks that lie on their films."""

from __future__ import annotations

from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from cxw_monai.io import read_radiograph
from cxw_monai.io.results.mask_files import check_structures, stores_columns_first, write_nifti_masks, write_png_masks

FILM = np.random.default_rng(1).integers(0, 256, (20, 30), dtype=np.uint8)
MASKS = np.random.default_rng(2).random((2, 20, 30)) < 0.5
NAMES = ("lung_left", "heart")


def test_names_of_structures():
    assert check_structures(["lung_left", "T-4.b"]) == ("lung_left", "T-4.b")
    for bad in ("../up", "a/b", "", ".hidden", "naïve", "a b", "x" * 65):
        with pytest.raises(ValueError, match="structure name"):
            check_structures([bad])
    with pytest.raises(ValueError, match="must differ"):
        check_structures(["heart", "Heart"])
    with pytest.raises(ValueError, match="at least one"):
        check_structures([])


def test_png_masks_are_0_and_255_on_the_same_grid(tmp_path):
    files = write_png_masks(tmp_path / "deep" / "masks", MASKS, NAMES)
    assert [file.name for file in files] == ["lung_left.png", "heart.png"]
    for file, mask in zip(files, MASKS, strict=True):
        with Image.open(file) as image:
            assert image.mode == "L"
            np.testing.assert_array_equal(np.asarray(image), 255 * mask)


def test_masks_of_another_form_are_refused(tmp_path):
    for bad in (MASKS[:1], MASKS[0], MASKS.astype(np.uint8)):
        with pytest.raises(ValueError, match=r"masks must be bool \[2, H, W\]"):
            write_png_masks(tmp_path, bad, NAMES)


def _geometry(path: Path) -> tuple[np.ndarray, ...]:
    """Array and geometry as ITK (so 3D Slicer and ITK-SNAP) has them, as 3-D."""
    image = itk.imread(str(path))
    values = np.asarray(itk.array_from_image(image))
    size = image.GetImageDimension()
    direction, spacing, origin = np.eye(3), np.ones(3), np.zeros(3)
    direction[:size, :size] = itk.array_from_matrix(image.GetDirection())
    spacing[:size], origin[:size] = image.GetSpacing(), image.GetOrigin()
    return values.reshape(values.shape[-2:]) if size == 3 and 1 in values.shape else values, direction, spacing, origin


def _assert_lies_on(mask: Path, film: Path) -> np.ndarray:
    values, *place = _geometry(mask)
    film_values, *film_place = _geometry(film)
    assert values.shape == film_values.shape
    for one, other in zip(place, film_place, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    return values


def test_nifti_masks_lie_on_a_png(tmp_path):
    Image.fromarray(FILM).save(tmp_path / "a.png")
    files = write_nifti_masks(tmp_path / "n", MASKS, NAMES, source=tmp_path / "a.png", spacing_mm=None)
    for file, mask in zip(files, MASKS, strict=True):
        np.testing.assert_array_equal(_assert_lies_on(file, tmp_path / "a.png"), mask)
    header = nib.load(files[0]).header
    assert header.get_xyzt_units()[0] == "unknown" and header.get_data_dtype() == np.uint8
    assert header.get_zooms()[:2] == (1, 1)  # nothing is invented


def test_nifti_masks_with_a_spacing_read_back_upright(tmp_path):
    Image.fromarray(FILM).save(tmp_path / "a.png")
    file = write_nifti_masks(tmp_path, MASKS, NAMES, source=tmp_path / "a.png", spacing_mm=(0.25, 0.5))[1]
    back = nib.load(file)  # [X, Y, 1]
    np.testing.assert_allclose(back.affine[:2, :2], [[-0.5, 0], [0, -0.25]])
    np.testing.assert_array_equal(np.asarray(back.dataobj)[:, :, 0].T == 1, MASKS[1])


def test_nifti_masks_lie_on_real_films(shared_data, tmp_path):
    film = shared_data / "dicom" / "images" / "rsna_cr_chest_jpeg.dcm"
    radiograph = read_radiograph(film)
    mask = radiograph.array > 0.5
    file = write_nifti_masks(tmp_path, mask, ["x"], source=film, spacing_mm=radiograph.meta["spacing_mm"])[0]
    values = _assert_lies_on(file, film)
    np.testing.assert_array_equal(values, mask[0])


@pytest.mark.parametrize("nifti2", [False, True])
def test_nifti_masks_take_over_the_geometry_of_a_nifti(tmp_path, nifti2):
    affine = np.array([[0, 0.4, 0, 10], [0, 0, 1, -3], [-0.3, 0, 0, 40], [0, 0, 0, 1.0]])
    kind = nib.Nifti2Image if nifti2 else nib.Nifti1Image
    film = kind(FILM[:, None, :], affine[:, [0, 2, 1, 3]])  # [20, 1, 30]
    film.header["descrip"] = b"Secret^Name"
    film.header.set_xyzt_units("mm")
    film.set_qform(affine[:, [0, 2, 1, 3]], 1)
    film.set_sform(affine[:, [0, 2, 1, 3]], 2)
    nib.save(film, tmp_path / "a.nii.gz")
    assert stores_columns_first(tmp_path / "a.nii.gz")
    file = write_nifti_masks(tmp_path / "n", MASKS, NAMES, source=tmp_path / "a.nii.gz", spacing_mm=(0.3, 0.4))[0]
    mask = nib.load(file)
    assert type(mask) is kind and mask.shape == (20, 1, 30) and bytes(mask.header["descrip"]).strip(b"\0") == b""
    np.testing.assert_array_equal(mask.affine, film.affine)
    assert (int(mask.header["qform_code"]), int(mask.header["sform_code"])) == (1, 2)
    np.testing.assert_array_equal(np.asanyarray(mask.dataobj)[:, 0], MASKS[0])
    with pytest.raises(ValueError, match=r"masks of shape \(30, 20\) don't fit the file's \(20, 1, 30\)"):
        write_nifti_masks(tmp_path, MASKS.swapaxes(1, 2), NAMES, source=tmp_path / "a.nii.gz", spacing_mm=None)


def test_nifti_masks_lie_on_a_nrrd(tmp_path):
    nrrd = pytest.importorskip("nrrd")
    header = {
        "space": "left-posterior-superior",
        "space directions": [[0, 0.3, 0], [0.4, 0, 0], [0, 0, -1]],
        "space origin": [5, 6, 7],
        "kinds": ["domain"] * 3,
    }
    nrrd.write(str(tmp_path / "a.nrrd"), FILM[:, :, None], header)  # X runs over 20, Y over 30
    assert stores_columns_first(tmp_path / "a.nrrd")
    file = write_nifti_masks(tmp_path, MASKS, NAMES, source=tmp_path / "a.nrrd", spacing_mm=(0.3, 0.4))[1]
    np.testing.assert_array_equal(_assert_lies_on(file, tmp_path / "a.nrrd"), MASKS[1].T)


def test_the_same_masks_give_the_same_bytes(tmp_path):
    Image.fromarray(FILM).save(tmp_path / "a.png")
    one, other = (
        write_nifti_masks(tmp_path / name, MASKS, NAMES, source=tmp_path / "a.png", spacing_mm=None)[0]
        for name in ("one", "other")
    )
    assert one.read_bytes() == other.read_bytes()
