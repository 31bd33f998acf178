"""Labels as annotation tools open and save them: on the film's own pixels, in every format, for every kind of film."""

from datetime import datetime
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image

from cxw_monai.io import RadiographError, read_radiograph
from cxw_monai.io.results.dicom_seg import write_dicom_seg
from cxw_monai.label.label_files import read_label, write_result
from cxw_monai.label.label_maps import paint
from tests.helpers.dicom_files import write_dicom

NAMES = ("lung_left", "heart")
VALUES = {"lung_left": 1, "heart": 2}
MAPS = (".png", ".nii.gz", ".nii", ".nrrd")


def make_film(folder: Path, kind: str) -> Path:
    """A film of 40 rows and 32 columns; of the TIFF, the stored columns are the rows."""
    grey = np.random.default_rng(7).integers(0, 255, (40, 32), dtype=np.uint8)
    path = folder / f"film.{kind}"
    if kind == "nii.gz":
        affine = np.array([[0, -0.5, 0, 9], [-0.25, 0, 0, 4], [0, 0, 1, 0], [0, 0, 0, 1]])
        nib.save(nib.Nifti1Image(grey.T[:, :, None], affine), path)
    elif kind == "tif":
        Image.fromarray(np.rot90(grey)).save(path, tiffinfo={274: 6})  # to be turned clockwise
    else:
        Image.fromarray(grey).save(path)
    return path


def masks_of(film) -> np.ndarray:
    """Two masks that overlap, on the stored grid, with no symmetry."""
    rows, columns = film.meta["pixel_map"].source_shape
    masks = np.zeros((2, rows, columns), dtype=bool)
    masks[0, 3:20, 5:11], masks[1, 15:28, 8:30] = True, True
    return masks


@pytest.mark.parametrize("kind", ["png", "tif", "nii.gz"])
@pytest.mark.parametrize("ending", MAPS)
def test_a_map_comes_back_on_the_stored_grid(tmp_path, kind, ending):
    film = read_radiograph(make_film(tmp_path, kind))
    masks = masks_of(film)
    write_result(tmp_path / f"label{ending}", film, masks, NAMES)
    found, _ = read_label(tmp_path / f"label{ending}", film, NAMES, VALUES)
    assert np.array_equal(found, paint(masks, NAMES))


@pytest.mark.parametrize("kind", ["png", "tif", "nii.gz"])
def test_layers_come_back_with_nothing_hidden(tmp_path, kind):
    film = read_radiograph(make_film(tmp_path, kind))
    masks = masks_of(film)
    write_result(tmp_path / "label.seg.nrrd", film, masks, NAMES)
    label_map, found = read_label(tmp_path / "label.seg.nrrd", film, NAMES, {})
    assert label_map is None and all(np.array_equal(found[name], mask) for name, mask in zip(NAMES, masks, strict=True))


@pytest.mark.parametrize("seg_type", ["binary", "fractional"])
def test_a_dicom_seg_comes_back_with_nothing_hidden(tmp_path, seg_type):
    """29 x 17 px: the second frame of a binary one begins within a byte."""
    uids = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4", "SOPInstanceUID": "1.2.3.4.5"}
    grey = np.random.default_rng(7).integers(0, 255, (29, 17), dtype=np.uint8)
    film = read_radiograph(write_dicom(tmp_path / "film.dcm", grey, **uids))
    masks = np.zeros((2, 29, 17), dtype=bool)
    masks[0, 3:20, 5:11], masks[1, 15:28, 8:17] = True, True
    path = tmp_path / "label.dcm"
    write_dicom_seg(path, film.meta["path"], masks, NAMES, created=datetime(2024, 5, 6), seg_type=seg_type)
    label_map, found = read_label(path, film, NAMES, {})
    assert label_map is None and all(np.array_equal(found[name], mask) for name, mask in zip(NAMES, masks, strict=True))
    with pytest.raises(RadiographError, match="no segment named carina in it"):
        read_label(path, film, ("carina",), {})
    seg = pydicom.dcmread(path)
    seg.SegmentSequence[1].SegmentLabel = NAMES[0]
    seg.save_as(path)
    with pytest.raises(RadiographError, match="two segments have the same label"):
        read_label(path, film, NAMES, {})
    seg.Rows = 17
    seg.save_as(path)
    with pytest.raises(RadiographError, match="label is 17x17 px, its film 29x17"):
        read_label(path, film, NAMES, {})


@pytest.mark.parametrize("kind", ["png", "nii.gz"])
@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd"])
def test_itk_puts_a_map_where_it_puts_the_film(tmp_path, kind, ending):
    path = make_film(tmp_path, kind)
    film = read_radiograph(path)
    write_result(tmp_path / f"label{ending}", film, masks_of(film), NAMES)
    film_image, label = itk.imread(str(path)), itk.imread(str(tmp_path / f"label{ending}"))
    size = film_image.GetImageDimension()
    assert (
        list(label.GetLargestPossibleRegion().GetSize())[:2]
        == list(film_image.GetLargestPossibleRegion().GetSize())[:2]
    )
    for where in ((0, 0), (7, 21)):
        film_point, label_point = (
            list(image.TransformIndexToPhysicalPoint([*where, 0][: image.GetImageDimension()]))[:size]
            for image in (film_image, label)
        )
        assert np.allclose(film_point, label_point, atol=1e-4)


def test_a_png_map_of_a_turned_film_is_upright(tmp_path):
    film = read_radiograph(make_film(tmp_path, "tif"))
    write_result(tmp_path / "label.png", film, masks_of(film), NAMES)
    assert np.asarray(Image.open(tmp_path / "label.png")).shape == film.array.shape[1:] == (40, 32)


def test_bytes_row_by_row_are_a_map(tmp_path):
    film = read_radiograph(make_film(tmp_path, "png"))
    (tmp_path / "label.bin").write_bytes(paint(masks_of(film), NAMES).tobytes())
    found, _ = read_label(tmp_path / "label.bin", film, NAMES, VALUES)
    assert np.array_equal(found, paint(masks_of(film), NAMES))


@pytest.mark.parametrize(
    ("ending", "content", "reason"),
    [
        (".png", b"no image", "cannot be read"),
        (".nrrd", b"NRRD0004\n", "cannot be read"),
        (".seg.nrrd", b"NRRD0004\n", "cannot be read"),
        (".bin", b"\x01" * 99, "99 px, its film 40x32"),
        (".bin", b"\x00" * 1280, "none of the numbers"),
        (".txt", b"", "known format"),
        (".dcm", b"no DICOM", "not a DICOM file"),
        (".dcm", bytes(128) + b"DICM", "not a BINARY or FRACTIONAL DICOM SEG"),
    ],
)
def test_what_is_no_label_of_the_film_is_refused(tmp_path, ending, content, reason):
    film = read_radiograph(make_film(tmp_path, "png"))
    (tmp_path / f"label{ending}").write_bytes(content)
    with pytest.raises(RadiographError, match=reason):
        read_label(tmp_path / f"label{ending}", film, NAMES, VALUES)


def test_an_unknown_ending_is_named(tmp_path):
    film = read_radiograph(make_film(tmp_path, "png"))
    with pytest.raises(ValueError, match="result_extension must be one of"):
        write_result(tmp_path / "label.txt", film, masks_of(film), NAMES)
