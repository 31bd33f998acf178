"""Landmarks of films: API, inference's files, export, and models of other anatomies."""

import csv
import json
import shutil
import warnings

import highdicom as hd
import numpy as np
import pytest
import torch
from PIL import Image

import cxw_monai
from cxw_monai.inference.api import LandmarkModel
from cxw_monai.inference.locate import FilmLocator, Pointsd, landmarks_of
from cxw_monai.inference.locate_settings import LocateSettings
from cxw_monai.inference.predictor import film_inferer
from cxw_monai.io import RadiographError
from cxw_monai.io.pixel_map import PixelMap
from cxw_monai.io.radiograph import Radiograph
from cxw_monai.packaging.export import export_onnx, export_torchscript
from cxw_monai.quality import ImplausibleWarning
from cxw_monai.transforms.whole_film import WholeFilmd, whole_film
from cxw_monai.weights.files import CheckpointError
from cxw_monai.weights.kinds import read_weights
from cxw_monai.weights.landmarker import load_landmarker, read_settings
from tests.helpers.dicom_files import write_dicom
from tests.helpers.small_landmarker import POINTS, save_landmarker


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory):
    return save_landmarker(tmp_path_factory.mktemp("landmarker") / "model.pt")


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (50 + 10 * number, 40), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"film{number}.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return folder


def rows_of(folder):
    with (folder / "landmarks.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def run(ckpt, films, output, **settings):
    settings = LocateSettings(device="cpu", num_workers=1, **settings)
    model = read_settings(ckpt)
    return FilmLocator(
        [str(path) for path in sorted(films.glob("*.png"))],
        films,
        output,
        network=load_landmarker(ckpt),
        model=model,
        preprocessing=WholeFilmd(model.image_size, keys="image"),
        inferer=film_inferer(),
        postprocessing=Pointsd(model),
        settings=settings,
        model_hash="abc",
    ).run()


def test_a_landmark_is_where_the_map_of_the_stretched_film_has_its_top(ckpt, films):
    """By hand: the network on the film at 32 x 32 px, the map's top to within the window that refines it."""
    model = cxw_monai.load(ckpt)
    assert isinstance(model, LandmarkModel) and model.points == POINTS
    with pytest.warns(ImplausibleWarning, match=r"film0\.png: implausible"):
        found = model.locate(films / "film0.png")
    film = np.asarray(Image.open(films / "film0.png"))[None]
    with torch.inference_mode():
        maps = model.network(whole_film(film, 32)[None])[0].flatten(1).softmax(1)
    for name, top in zip(POINTS, maps.argmax(1).tolist(), strict=True):
        row, column = (top // 32 + 0.5) * 50 / 32 - 0.5, (top % 32 + 0.5) * 40 / 32 - 0.5
        assert abs(found[name].y - row) <= 4.5 * 50 / 32 and abs(found[name].x - column) <= 4.5 * 40 / 32
        assert 0 < found[name].confidence <= 1


def test_a_turned_film_has_its_landmarks_on_the_stored_pixels():
    """Stored 20 x 40 px, transposed and flipped by the reader; the point in the middle of the last stored pixel."""
    pixel_map = PixelMap.identity((20, 40)).transpose().flip(0)
    row, column = pixel_map.from_source(np.array([19.5, 39.5]))
    height, width = pixel_map.shape
    film = Radiograph(np.zeros((1, height, width), np.float32), {"pixel_map": pixel_map, "spacing_mm": None})
    found = landmarks_of(film, np.array([[column / width, row / height, 0.5]], np.float32), ["end"])["end"]
    assert found == pytest.approx((39, 19, 0.5), abs=1e-4)


def test_inference_writes_what_the_api_says(ckpt, films, tmp_path):
    summary = run(ckpt, films, tmp_path, formats=["csv", "json", "overlay"], min_confidence=0)
    assert summary == {"located": 2, "implausible": 2, "failed": 1, "total": 3}
    model = cxw_monai.load(ckpt)
    for row in rows_of(tmp_path):
        found = model.locate(films / row["image"], on_implausible="keep")
        for name in POINTS:
            assert json.loads(row[f"landmark_{name}"]) == pytest.approx(found[name][:2], abs=0.006)
            assert float(row[f"confidence_{name}"]) == pytest.approx(found[name].confidence, rel=1e-5)
        folder = tmp_path / row["image"].removesuffix(".png")
        said = json.loads((folder / "landmarks.json").read_text())
        assert said["landmarks"]["tip"]["x"] == pytest.approx(found["tip"].x) and said["landmarks"]["tip"]["on_film"]
        with Image.open(folder / "overlay.png") as picture:
            assert max(picture.size) == 1024
    columns = json.loads((tmp_path / "landmarks.json").read_text())
    assert list(columns) == list(rows_of(tmp_path)[0])
    assert "broken.png" in (tmp_path / "failures.csv").read_text()


def test_a_landmark_of_little_confidence_counts_as_not_on_the_film(ckpt, films, tmp_path):
    run(ckpt, films, tmp_path, formats=["json"], min_confidence=1)
    rows = rows_of(tmp_path)
    assert all(row[f"landmark_{name}"] == "" and row[f"confidence_{name}"] for row in rows for name in POINTS)
    said = json.loads((tmp_path / "film0" / "landmarks.json").read_text())["landmarks"]
    assert not any(one["on_film"] for one in said.values())


def test_a_resumed_run_ends_like_one_that_was_not_interrupted(ckpt, films, tmp_path):
    run(ckpt, films, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    table = tmp_path / "cut" / "landmarks.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:2]))
    shutil.rmtree(tmp_path / "cut" / "film1")
    run(ckpt, films, tmp_path / "cut", resume=True)
    assert table.read_bytes() == (tmp_path / "whole" / "landmarks.csv").read_bytes()
    assert (tmp_path / "cut" / "film1" / "overlay.png").is_file()
    with pytest.raises(ValueError, match=r"min_confidence was 0\.1 and is now 0\.5"):
        run(ckpt, films, tmp_path / "cut", resume=True, min_confidence=0.5)


def test_only_models_of_chests_look_whether_a_film_is_one(films, tmp_path):
    hand = save_landmarker(tmp_path / "hand.pt", anatomy="hand")
    assert run(hand, films, tmp_path / "found", on_implausible="skip")["located"] == 2
    model = cxw_monai.load(hand)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.locate(films / "film0.png")
    chest = cxw_monai.load(save_landmarker(tmp_path / "chest.pt"))
    with pytest.raises(RadiographError, match="not a frontal chest film"):
        chest.locate(films / "film0.png", on_implausible="skip")


def test_a_file_from_before_anatomy_is_one_of_chests(ckpt, tmp_path):
    content = torch.load(ckpt, weights_only=True)
    del content["settings"]["anatomy"]
    torch.save(content, tmp_path / "model.pt")
    assert read_weights(tmp_path / "model.pt").kind == "landmarks"
    assert read_settings(tmp_path / "model.pt") == read_settings(ckpt)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("heat_px", 0.0, "heat_px must be"),
        ("points", ["../a"], "points must be named by"),
        ("anatomy", "a/b", "anatomy"),
    ],
)
def test_settings_of_no_network_are_refused(ckpt, tmp_path, field, value, said):
    content = torch.load(ckpt, weights_only=True)
    content["settings"][field] = value
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=said):
        cxw_monai.load(tmp_path / "model.pt")


@pytest.mark.parametrize("kind", ["ts", "onnx"])
def test_exports_answer_like_the_model(ckpt, tmp_path, kind):
    model = cxw_monai.load(ckpt)
    film = np.random.default_rng(5).random((1, 1, 70, 90), dtype=np.float32)
    expected, path = model.answer(film[0]), tmp_path / f"model.{kind}"
    if kind == "ts":
        export_torchscript(model.film_model(), path)
        with torch.inference_mode():
            found = torch.jit.load(path)(torch.from_numpy(film))[0].numpy()
    else:
        onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX: pip install 'cxw-monai[packaging]'")
        export_onnx(model.film_model(), path)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        found = session.run(None, {"image": film})[0][0]
    assert found.shape == (3, 3)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_landmarks_of_a_dicom_film_as_a_report(ckpt, tmp_path):
    """Beside the table and in the same place; a picture's row says why it has none."""
    folder = tmp_path / "films"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 4096, (50, 40), dtype=np.uint16)
    write_dicom(folder / "film.png", pixels, Modality="DX", StudyInstanceUID="1.2", SeriesInstanceUID="1.2.3")
    Image.fromarray((pixels >> 4).astype(np.uint8)).save(folder / "picture.png")
    for resume in (False, True):
        run(ckpt, folder, tmp_path / "out", formats=["sr"], min_confidence=0, resume=resume)
        film, picture = rows_of(tmp_path / "out")
        assert film["sr_note"] == "" and picture["sr_note"].startswith("not a DICOM file")
        report = hd.sr.srread(tmp_path / "out" / "film" / "landmarks.dcm")
        groups = report.content.get_image_measurement_groups()
        for name, group in zip(POINTS, groups, strict=True):
            (number,) = group.get_measurements()
            x, y = json.loads(film[f"landmark_{name}"])
            assert number.referenced_coordinates[0].GraphicData == pytest.approx([x + 0.5, y + 0.5], abs=0.01)
    run(ckpt, folder, tmp_path / "none", formats=["sr"], min_confidence=1)
    assert rows_of(tmp_path / "none")[0]["sr_note"] == "no landmark on the film"
