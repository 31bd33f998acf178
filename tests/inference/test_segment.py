"""Films in, masks on their own grids out: places, thresholds, independence of batches, and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from cxw_monai.inference import reading
from cxw_monai.inference import run as segment
from cxw_monai.inference.predictor import restore_masks
from cxw_monai.inference.settings import SegmentSettings, film_inferer, find_films, on_device
from cxw_monai.io.pixel_map import PixelMap
from cxw_monai.io.structures import definitions
from cxw_monai.networks import radiograph_segmenter
from cxw_monai.training import precision
from tests.helpers.film_segmenter import film_segmenter

BLOB = (150.0, 120.0, 60.0, 45.0)  # centre row and column, half axes, px


class Brightness(nn.Module):
    """Two structures: what is bright, and what is dark."""

    def __init__(self, gain: float = 4.0) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits = self.gain * (image - 0.5)
        return torch.cat([logits, -logits], dim=1)


class Grey(nn.Module):
    """One structure whose probability is the grey value."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.logit(image, eps=1e-6)


def segmenter(films, output, network, structures, size=96, window=None, **settings):
    """A segmenter as the bundle builds it."""
    return film_segmenter(films, Path(films[0]).parent, output, network, structures, size, window, **settings)


def save_blob(path, shape=(300, 240), origin=(0, 0), scale=1.0):
    """A bright ellipse on a dark ground; `origin` is the film's corner in the scene, `scale` film px per scene px."""
    rows, columns = (origin[at] + (np.arange(shape[at]) + 0.5) / scale for at in (0, 1))
    y, x, b, a = BLOB
    inside = ((rows[:, None] - y) / b) ** 2 + ((columns - x) / a) ** 2 <= 1
    grey = np.where(inside, 230, 25).astype(np.uint8)  # 0.5 lies in the middle
    grey[0, :3] = 24, 26, 27  # two levels would be a mask
    if path.suffix == ".gz":  # stored [X, Y] with Y upwards
        image = nib.Nifti1Image(np.ascontiguousarray(grey[::-1].T[:, None, :]), np.diag([-0.5, 1.0, 0.5, 1.0]))
        nib.save(image, path)
    else:
        Image.fromarray(grey).save(path)
    return path


def mask(output, film, structure):
    return np.asarray(Image.open(Path(output) / film / "masks" / f"{structure}.png")) > 127


@pytest.mark.parametrize(
    ("name", "shape", "origin", "scale"),
    [
        ("whole.png", (300, 240), (0, 0), 1.0),
        ("shifted.png", (300, 240), (37, -21), 1.0),
        ("cropped.png", (190, 131), (75, 60), 1.0),
        ("enlarged.png", (750, 600), (0, 0), 2.5),
        ("turned.nii.gz", (300, 240), (0, 0), 1.0),
    ],
)
def test_a_structure_is_found_where_it_is(tmp_path, name, shape, origin, scale):
    """Shifted, cropped, enlarged and turned films give the ellipse's own box, to a pixel of the scene."""
    film = save_blob(tmp_path / name, shape, origin, scale)
    summary = segmenter([film], tmp_path / "out", Brightness(), ["bright", "dark"]).run()
    assert (summary["failed"], summary["total"]) == (0, 1)
    bright, dark = (mask(tmp_path / "out", name.split(".")[0], one) for one in ("bright", "dark"))
    assert bright.shape == shape
    assert (bright != dark).all()
    for axis, (centre, half) in enumerate(zip(BLOB[:2], BLOB[2:], strict=True)):
        ends = np.flatnonzero(bright.any(axis=1 - axis))[[0, -1]] + [0, 1]
        truth = (np.array([centre - half, centre + half]) - origin[axis]) * scale
        assert np.abs(ends - truth).max() <= max(1.0, scale), (axis, ends, truth)


def test_the_threshold_is_that_of_the_probability(tmp_path):
    """Grey rises by 1 a column from 0 to 255; the columns inside are those of at least the threshold."""
    Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (64, 1))).save(tmp_path / "ramp.png")
    for threshold, first in ((0.25, 64), (0.5, 128), (0.9, 230)):  # 0.25 * 255 = 63.75, 127.5, 229.5
        output = tmp_path / str(threshold)
        segmenter([tmp_path / "ramp.png"], output, Grey(), ["bright"], size=(64, 256), threshold=threshold).run()
        assert np.flatnonzero(mask(output, "ramp", "bright").all(axis=0)).tolist() == list(range(first, 256))


def test_windows_see_the_film_at_its_own_size(tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (150, 230)).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "noise.png")
    segmenter([tmp_path / "noise.png"], tmp_path / "out", Brightness(), ["bright", "dark"], window=64).run()
    np.testing.assert_array_equal(mask(tmp_path / "out", "noise", "bright"), grey >= 128)


def test_only_the_largest_part_is_kept_where_asked(tmp_path):
    grey = np.full((96, 96), 20, np.uint8)
    grey[10:50, 10:50] = grey[60:70, 60:90] = 240
    grey[0, :3] = 19, 21, 22  # two levels would be a mask
    Image.fromarray(grey).save(tmp_path / "two.png")
    one = segmenter([tmp_path / "two.png"], tmp_path / "out", Brightness(), ["bright", "dark"], keep_largest=["bright"])
    one.run()
    kept = mask(tmp_path / "out", "two", "bright")
    assert kept[10:50, 10:50].all() and kept.sum() == 1600
    told = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert told["keep_largest"] == ["bright"] and told["amp"] in ("bfloat16", "none")  # not "auto"
    both = segmenter([tmp_path / "two.png"], tmp_path / "all", Brightness(), ["bright", "dark"])
    both.run()
    assert mask(tmp_path / "all", "two", "bright").sum() == 1600 + 300
    organs = segmenter([tmp_path / "two.png"], tmp_path / "organs", Brightness(), ["heart", "opacity"])
    organs.run()
    assert mask(tmp_path / "organs", "two", "heart").sum() == 1600  # a heart is in one piece, an opacity need not be
    assert organs.keep_largest == [True, False]
    told = json.loads((tmp_path / "organs" / "settings.json").read_text())
    assert told["definitions"] == definitions(["heart", "opacity"]) and len(told["definitions"]) == 2
    probabilities = np.zeros((1, 4, 6), np.float32)
    found = restore_masks(probabilities, PixelMap((4, 6)), 0.5, [True])
    assert not found.any()  # a structure that isn't there stays so


def _everything(output):
    files = (path for path in output.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(output): path.read_bytes() for path in files}


@pytest.mark.parametrize("window", [None, 48])
def test_masks_depend_neither_on_batches_nor_on_threads(radiograph_folder, tmp_path, window):
    torch.manual_seed(3)
    structures = ["lung_left", "lung_right"]
    network = radiograph_segmenter("tiny", structures=structures, base_channels=4, image_size=64)
    films = find_films(radiograph_folder, tmp_path)[:5]
    found = []
    for batch, workers in ((1, 1), (4, 3), (4, 1)):
        output = tmp_path / f"{batch}_{workers}"
        settings = {"batch_size": batch, "num_workers": workers, "formats": ["png", "nifti", "csv"]}
        segmenter(films, output, network, structures, size=64, window=window, **settings).run()
        found.append(_everything(output))
    assert len(found[0]) == 5 * 4 + 5
    assert found[0] == found[1] == found[2]


def test_no_more_films_are_in_memory_than_allowed(radiograph_folder, tmp_path, monkeypatch):
    started, finished, most = [], [], []
    read, write = reading.read_radiograph, segment.SegmentationWriter.write

    def counting_read(path, **options):
        started.append(path)
        return read(path, **options)

    def counting_write(self, *arguments, **options):
        most.append(len(started) - len(finished))
        row = write(self, *arguments, **options)
        finished.append(row)
        return row

    monkeypatch.setattr(reading, "read_radiograph", counting_read)
    monkeypatch.setattr(segment.SegmentationWriter, "write", counting_write)
    films = find_films(radiograph_folder, tmp_path)
    settings = {"batch_size": 2, "num_workers": 4}
    segmenter(films, tmp_path / "out", Brightness(), ["bright", "dark"], **settings).run()
    assert len(finished) == 12 and max(most) <= 2 + 1


def test_bad_films_are_told_and_the_others_go_on(tmp_path, monkeypatch, caplog):
    films = [save_blob(tmp_path / f"{name}.png") for name in "abc"]
    films[0].write_bytes(b"no film")
    read = reading.read_radiograph

    def breaking(path, **options):
        if path.endswith("b.png"):
            raise RuntimeError("Secret^Name")
        return read(path, **options)

    monkeypatch.setattr(reading, "read_radiograph", breaking)
    summary = segmenter(films, tmp_path / "out", Brightness(), ["bright", "dark"]).run()
    assert (summary["films"], summary["failed"], summary["total"]) == (1, 2, 3)
    with (tmp_path / "out" / "failures.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["path"] for row in rows] == ["a.png", "b.png"]
    assert "not an image of a known format" in rows[0]["reason"] and rows[0]["remedy"]
    assert rows[1]["reason"] == "reading it failed unexpectedly (RuntimeError)"
    assert "Secret" not in caplog.text + str(rows)
    with pytest.raises(SystemExit, match="error: 2 of 3 films were not segmented"):
        segment.end_with_status(summary, tmp_path / "out")
    assert segment.end_with_status({**summary, "failed": 0}, tmp_path / "out") is None


def test_a_run_in_bfloat16_is_not_mixed_with_masks_of_a_machine_without_it(tmp_path, monkeypatch):
    films = [save_blob(tmp_path / f"{name}.png") for name in "ab"]
    build = {"films": films, "output": tmp_path / "out", "network": Brightness(), "structures": ["bright", "dark"]}
    monkeypatch.setattr(precision, "bfloat16_support", lambda device: "fast")
    segmenter(**{**build, "films": films[:1]}, amp="bfloat16").run()
    monkeypatch.setattr(precision, "bfloat16_support", lambda device: "none")
    for amp in ("auto", "bfloat16"):
        with pytest.raises(ValueError, match="bfloat16, which the device here does not compute; resume on a machine"):
            segmenter(**build, amp=amp, resume="true").run()
    with pytest.raises(ValueError, match="amp was 'bfloat16' and is now 'none'; give the same again"):
        segmenter(**build, amp="none", resume="true").run()


def test_a_run_is_resumed_only_as_it_was_begun(tmp_path):
    films = [save_blob(tmp_path / f"{name}.png") for name in "ab"]
    build = {"films": films, "output": tmp_path / "out", "network": Brightness(), "structures": ["bright", "dark"]}
    segmenter(**{**build, "films": films[:1]}).run()
    before = (tmp_path / "out" / "a" / "masks" / "bright.png").stat().st_mtime_ns
    (tmp_path / "out" / "b").mkdir()
    (tmp_path / "out" / "b" / ".overlay.png.x1.part").write_bytes(b"cut off")
    summary = segmenter(**build, resume="true", batch_size=1).run()
    assert summary["films"] == 1
    assert (tmp_path / "out" / "a" / "masks" / "bright.png").stat().st_mtime_ns == before
    assert not list((tmp_path / "out").rglob("*.part"))
    with pytest.raises(ValueError, match="threshold was 0.5 and is now 0.6; give the same again"):
        segmenter(**build, resume=True, threshold=0.6).run()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    film = save_blob(tmp_path / "a.png")
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ValueError, match=r"out.*: (File exists|Not a directory); correct that"):
        segmenter([film], tmp_path / "out", Brightness(), ["bright", "dark"]).run()


def test_films_of_a_folder_a_file_and_a_manifest(tmp_path):
    films = tmp_path / "films"
    for name in ("b.png", "sub/a.PNG", "notes.txt", "results/a/overlay.png", "sub/masks/heart.png"):
        (films / name).parent.mkdir(parents=True, exist_ok=True)
        (films / name).write_bytes(b"x")
    assert find_films(films, films / "results") == [str(films / "b.png"), str(films / "sub" / "a.PNG")]
    assert find_films(films / "b.png", tmp_path / "out") == [str(films / "b.png")]
    (films / "list.csv").write_text("image,split\nsub/a.PNG,training\nb.png,test\n")
    assert find_films(films / "list.csv", films) == [str(films / "sub" / "a.PNG"), str(films / "b.png")]
    inside = films / "results" / "again"  # films that lie in the output's folder are films
    (inside / "c.png").parent.mkdir(parents=True)
    (inside / "c.png").write_bytes(b"x")
    assert find_films(inside, films / "results") == [str(inside / "c.png")]


@pytest.mark.parametrize(
    ("source", "output", "said"),
    [
        (None, "out", "no input: give --input"),
        ("nowhere", "out", "no such file or folder"),
        ("empty", "out", "no film in it"),
        ("empty", "empty", "would lie among the films"),
    ],
)
def test_what_cannot_be_segmented_is_said(tmp_path, source, output, said):
    (tmp_path / "empty").mkdir()
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        find_films(source and tmp_path / source, tmp_path / output)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"threshold": 1.0}, "threshold must lie between 0 and 1"),
        ({"threshold": "half"}, "threshold must lie between 0 and 1"),
        ({"formats": ["pdf"]}, "formats must be some of"),
        ({"formats": []}, "formats must be some of"),
        ({"formats": ["png"], "resume": True}, "resume needs the format 'csv'"),
        ({"voi": "best"}, "voi must be one of"),
        ({"amp": "float16"}, "amp must be"),
        ({"batch_size": 0}, "batch_size must be a whole number"),
        ({"num_workers": 1.5}, "num_workers must be a whole number"),
    ],
)
def test_wrong_settings_are_named(settings, said):
    with pytest.raises(ValueError, match=said):
        SegmentSettings(**settings)


def test_models_and_devices_that_do_not_fit_are_said(tmp_path):
    film = save_blob(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"keep_largest: \['spleen'\] not among the model's \['bright', 'dark'\]"):
        segmenter([film], tmp_path / "out", Brightness(), ["bright", "dark"], keep_largest=["spleen"])
    with pytest.raises(ValueError, match="the network has 2 channels for 1 structures"):
        segmenter([film], tmp_path / "out", Brightness(), ["bright"]).run()
    with pytest.raises(ValueError, match="the model: the network answers with NaN or infinite values"):
        segmenter([film], tmp_path / "out", Brightness(float("nan")), ["bright", "dark"]).run()
    with pytest.raises(ValueError, match="device 'cuda:99' can't be used .*; give --device cpu"):
        on_device(nn.Linear(1, 1), "cuda:99")
    with pytest.raises(ValueError, match="sliding_window must be a number of px of at least 16, got 8"):
        film_inferer(8)


def test_a_manifest_gives_the_spacing_of_films_that_declare_none(tmp_path):
    """By hand: a bar of 80 columns is 12 mm wide at 0.15 mm a pixel, and 40 mm in the film whose header says 0.5."""
    grey = np.full((240, 240), 25, np.uint8)
    grey[80:160, 80:160] = 230
    grey[0, :3] = 24, 26, 27
    for name in ("a.png", "b.png"):
        Image.fromarray(grey).save(tmp_path / name)
    image = nib.Nifti1Image(np.ascontiguousarray(grey[::-1].T[:, None, :]), np.diag([-0.5, 1.0, 0.5, 1.0]))
    image.header.set_xyzt_units("mm")
    nib.save(image, tmp_path / "c.nii.gz")
    manifest, output = tmp_path / "films.csv", tmp_path / "out"
    manifest.write_text("image,pixel_spacing_mm\na.png,0.15\nb.png,\nc.nii.gz,0.15\n")

    def run(**settings):
        films = find_films(manifest, output)
        return film_segmenter(films, manifest, output, Grey(), ["heart"], 120, None, formats=("csv",), **settings).run()

    assert run()["failed"] == 0
    with (output / "measurements.csv").open(newline="") as stream:
        a, b, c = csv.DictReader(stream)
    assert {row["heart_diameter_px"] for row in (a, b, c)} == {"80"}
    assert [float(row["heart_diameter_mm"] or "nan") for row in (a, b, c)] == pytest.approx(
        [12, np.nan, 40], nan_ok=True
    )
    assert (a["spacing_from"], b["spacing_from"]) == ("pixel_spacing_mm of the manifest", "unknown")
    manifest.write_text(manifest.read_text().replace("0.15", "0.16", 1))
    with pytest.raises(ValueError, match=r"manifest_spacings was .* give the same again"):
        run(resume=True)
    manifest.write_text(manifest.read_text().replace("0.16", "none", 1))
    with pytest.raises(ValueError, match=r"a\.png: pixel_spacing_mm is 'none'"):
        run()
