"""Classification of films: API, inference's files, heat maps, export."""

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
from cxw_monai.inference.api import ClassificationModel
from cxw_monai.inference.classify import FilmClassifier, Probabilitiesd
from cxw_monai.inference.classify_settings import ClassifySettings
from cxw_monai.inference.heat_maps import heat_maps, occlusion_maps, write_heat_map
from cxw_monai.inference.predictor import film_inferer
from cxw_monai.io import RadiographError
from cxw_monai.packaging.export import export_onnx, export_torchscript
from cxw_monai.quality import ImplausibleWarning
from cxw_monai.transforms.whole_film import WholeFilmd
from cxw_monai.weights.classifier import classifier_settings, load_classifier, new_classifier, read_settings
from cxw_monai.weights.files import CheckpointError
from cxw_monai.weights.kinds import save_network
from tests.helpers.dicom_files import write_dicom
from tests.helpers.small_classifier import CLASSES, POINTS, save_classifier


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory):
    return save_classifier(tmp_path_factory.mktemp("classifier") / "model.pt")


def test_weights_of_a_bundle_by_name(tmp_path):
    models = tmp_path / "models"
    models.mkdir()
    for name, classes in {"model": ("edema",), "tuberculosis": ("tb", "none")}.items():
        settings = classifier_settings(classes, image_size=32, size="tiny")
        save_network(new_classifier(settings), settings, models / f"{name}.pt")
    assert cxw_monai.load(tmp_path).classes == ("edema",)
    found = cxw_monai.load(tmp_path, weights="tuberculosis")
    assert (found.classes, found.weights) == (("tb", "none"), models / "tuberculosis.pt")
    with pytest.raises(CheckpointError, match="no such weights; name one of the bundle's: model, tuberculosis"):
        cxw_monai.load(tmp_path, weights="../model")


@pytest.mark.parametrize(
    ("weights", "label"),
    [(None, "pneumonia"), ("shenzhen_tuberculosis", "tuberculosis"), ("view_position", "AP")],
)
def test_shipped_weights_answer(weights, label):
    model = cxw_monai.load("chexworld_classification", weights=weights)
    assert model.classes == (label,) and len(model.settings.temperatures) == 1
    assert model.weights.stat().st_size < 25e6
    film = np.random.default_rng(0).random((180, 150), dtype=np.float32)
    [probability] = model.classify(film, on_implausible="keep").values()
    decisions = model.decide(film, on_implausible="keep")[label]
    assert {"youden", "sensitivity_95", "specificity_90"} <= set(decisions)
    assert decisions == {name: probability >= at for name, at in model.settings.operating_points[label].items()}


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (50 + 10 * number, 40), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"film{number}.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return folder


def rows_of(folder):
    with (folder / "classification.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def _array(path):
    return np.asarray(Image.open(path), dtype=np.float32)[None] / 255


def run(ckpt, films, output, **settings):
    settings = ClassifySettings(device="cpu", num_workers=1, **settings)
    model = read_settings(ckpt)
    return FilmClassifier(
        [str(path) for path in sorted(films.iterdir())],
        films,
        output,
        network=load_classifier(ckpt),
        model=model,
        preprocessing=WholeFilmd(model.image_size, keys="image"),
        inferer=film_inferer(),
        postprocessing=Probabilitiesd(model),
        settings=settings,
        model_hash="abc",
    ).run()


def test_films_that_differ_a_little_do_not_share_a_probability(ckpt, films):
    """In bfloat16, which processors with AMX compute faster, a logit has eight bits, and films tie."""
    model = cxw_monai.load(ckpt)
    assert model.predictor.amp == ClassifySettings(device="cpu").amp == "none"
    film = _array(films / "film0.png")
    found = [model.predictor.probabilities(film * (1 - step / 1000))[0] for step in range(8)]
    assert len(set(map(float, np.ravel(found)))) == np.size(found)


def test_probabilities_are_calibrated_logits(ckpt, films):
    model = cxw_monai.load(ckpt)
    assert isinstance(model, ClassificationModel)
    with pytest.warns(ImplausibleWarning, match=r"film0\.png: implausible, look at it: not a frontal chest film"):
        found = model.classify(films / "film0.png")
    logits = model.predictor.output(_array(films / "film0.png"))
    expected = torch.sigmoid(logits / torch.tensor([2.0, 0.5]))
    assert list(found) == list(CLASSES)
    np.testing.assert_allclose(list(found.values()), expected.numpy(), rtol=1e-6)
    with pytest.raises(RadiographError, match="implausible"):
        model.classify(films / "film0.png", on_implausible="skip")
    decided = model.decide(films / "film0.png", on_implausible="keep")
    assert decided == {"edema": {"youden": True, "sensitivity_90": False}, "mass": {}}
    with pytest.raises(AttributeError, match="is a classifier, which has no 'segment'; load a segmenter"):
        model.segment(films / "film0.png")
    with pytest.raises(AttributeError, match="'ClassificationModel' object has no attribute 'fit'"):
        model.fit()


def test_inference_writes_what_the_api_says(ckpt, films, tmp_path):
    summary = run(ckpt, films, tmp_path, formats=["csv", "json", "heatmap"])
    assert summary == {"classified": 2, "implausible": 2, "failed": 1, "total": 3}
    rows = rows_of(tmp_path)
    assert [row["implausible"] for row in rows] == ["not a frontal chest film"] * 2  # noise
    assert [row["image"] for row in rows] == ["film0.png", "film1.png"]
    model = cxw_monai.load(ckpt)
    for row in rows:
        found = model.classify(films / row["image"], on_implausible="keep")
        assert {name: float(row[f"probability_{name}"]) for name in CLASSES} == pytest.approx(found, abs=1e-6)
        assert (row["decision_edema_youden"], row["decision_edema_sensitivity_90"]) == ("1", "0")
        assert float(row["threshold_edema_sensitivity_90"]) == 1.5
        folder = tmp_path / row["image"].removesuffix(".png")
        assert json.loads((folder / "classification.json").read_text())["probabilities"] == pytest.approx(found)
        with Image.open(folder / "heatmap_mass.png") as picture:
            width, height = Image.open(films / row["image"]).size
            factor = -(-512 // height)  # small films are enlarged by a whole number
            assert picture.mode == "RGB" and picture.width == factor * width and picture.height > factor * height
    assert "broken.png" in (tmp_path / "failures.csv").read_text()
    assert json.loads((tmp_path / "settings.json").read_text())["operating_points"] == POINTS


def test_a_resumed_run_does_what_is_missing(ckpt, films, tmp_path):
    own = tmp_path / "films"
    shutil.copytree(films, own, ignore=shutil.ignore_patterns("broken.png"))
    output = tmp_path / "out"
    run(ckpt, own, output, formats=["json"])
    whole = rows_of(output)
    kept = (output / "film0" / "classification.json").stat().st_mtime_ns
    (output / "film1" / "classification.json").unlink()
    assert run(ckpt, own, output, formats=["json"], resume=True)["implausible"] == 1
    assert rows_of(output) == whole and (output / "film1" / "classification.json").is_file()
    assert (output / "film0" / "classification.json").stat().st_mtime_ns == kept
    shutil.copy(own / "film0.png", own / "film1.png")  # another film under the name
    run(ckpt, own, output, formats=["json"], resume=True)
    first, second = rows_of(output)
    assert second["file_sha256"] == first["file_sha256"] and second["probability_mass"] == first["probability_mass"]
    with pytest.raises(ValueError, match="on_implausible was 'flag' and is now 'keep'; give the same again"):
        run(ckpt, own, output, formats=["json"], resume=True, on_implausible="keep")


def test_a_dicom_film_has_its_report_and_a_picture_a_note(ckpt, films, tmp_path):
    own = tmp_path / "films"
    own.mkdir()
    shutil.copy(films / "film0.png", own)
    uids = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4", "SOPInstanceUID": "1.2.3.4.5"}
    write_dicom(own / "film1.dcm", np.random.default_rng(1).integers(0, 4096, (60, 40)).astype(np.uint16), **uids)
    run(ckpt, own, tmp_path / "out", formats=["sr"])
    picture, film = rows_of(tmp_path / "out")
    assert picture["sr_note"].startswith("not a DICOM file") and film["sr_note"] == ""
    assert not (tmp_path / "out" / "film0" / "classification.dcm").exists()
    report = hd.sr.srread(tmp_path / "out" / "film1" / "classification.dcm")
    groups = report.content.get_image_measurement_groups()
    found = [group.get_measurements()[0].value / 100 for group in groups]
    assert found == pytest.approx([float(film[f"probability_{name}"]) for name in CLASSES])
    assert report.SeriesDescription.startswith("IMPLAUSIBLE") and report.SoftwareVersions.endswith(" abc")
    (tmp_path / "out" / "film1" / "classification.dcm").unlink()
    run(ckpt, own, tmp_path / "out", formats=["sr"], resume=True)
    assert (tmp_path / "out" / "film1" / "classification.dcm").is_file() and len(rows_of(tmp_path / "out")) == 2


def test_implausible_films_are_skipped_or_not_looked_at(ckpt, films, tmp_path):
    summary = run(ckpt, films, tmp_path / "skip", on_implausible="skip")
    assert (summary["classified"], summary["failed"]) == (0, 3) and not rows_of(tmp_path / "skip")
    assert "implausible: not a frontal chest film" in (tmp_path / "skip" / "failures.csv").read_text()
    assert run(ckpt, films, tmp_path / "keep", on_implausible="keep")["implausible"] == 0


def test_nothing_beside_the_table_unless_asked_for(ckpt, films, tmp_path):
    run(ckpt, films, tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_occlusion_finds_what_a_logit_depends_on():
    """The logit is the brightness of the upper left quarter of a film that is bright there alone."""

    def network(image):
        return image[:, :, :16, :16].mean(dim=(2, 3))

    image = torch.zeros(1, 1, 32, 32)
    image[..., :16, :16] = 1
    found = occlusion_maps(network, image, windows=4)[0]
    assert found[:2, :2].min() > 0 and found[3].max() == found[:, 3].max() == 0


def test_a_heat_map_is_brightest_where_its_values_are(tmp_path):
    values = np.zeros((4, 4), np.float32)
    values[0, 3] = 3
    found = []
    for number, strength in enumerate((1, 0.01)):
        path = tmp_path / f"{number}.png"
        write_heat_map(path, np.zeros((512, 256), np.float32), strength * values, "mass: 0.930", "attention", 1)
        found.append(np.asarray(Image.open(path)).sum(axis=2))
    strong, weak = found
    assert strong.shape[1] == 256 and strong.shape[0] > 512  # the scale is below the film
    assert strong[16, 232] > 200 and strong[480, 16] == 0 and strong[:512, :64].max() == 0
    assert strong[512:].max() == 3 * 255  # white text
    assert weak[16, 232] < 10  # a map without a strong value is not made one


def test_exported_models_give_the_same_probabilities(ckpt, films, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    model = cxw_monai.load(ckpt)
    film = _array(films / "film1.png")
    export_torchscript(model.film_model(), tmp_path / "model.ts")
    script = torch.jit.load(str(tmp_path / "model.ts"))(torch.from_numpy(film)[None])
    np.testing.assert_allclose(script.detach().numpy()[0], model.answer(film), atol=1e-4)
    export_onnx(model.film_model(), tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"image": film[None]})[0][0], model.answer(film), atol=1e-4)


def test_the_map_of_an_attentive_head_is_its_attention_above_the_mean(ckpt):
    network, image = load_classifier(ckpt), torch.rand(1, 1, 32, 32)
    with torch.inference_mode():
        shares, found = network.attention(image)[0].numpy(), heat_maps(network, image)
    np.testing.assert_allclose(found.values, np.maximum(4 * shares - 1, 0), atol=1e-6)  # 2 x 2 tokens


def test_a_classifier_of_hands_does_not_ask_for_a_chest(tmp_path):
    """The anatomy is kept in the weights; noise is no chest, of which a model of chests warns."""
    film = np.random.default_rng(0).random((64, 64), dtype=np.float32)
    for anatomy in ("chest", "hand"):
        settings = classifier_settings(CLASSES, head="linear", image_size=32, size="tiny", anatomy=anatomy)
        save_network(new_classifier(settings), settings, tmp_path / f"{anatomy}.pt")
        assert read_settings(tmp_path / f"{anatomy}.pt").anatomy == anatomy
    with pytest.warns(ImplausibleWarning, match="not a frontal chest"):
        cxw_monai.load(tmp_path / "chest.pt").classify(film)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ImplausibleWarning)
        cxw_monai.load(tmp_path / "hand.pt").classify(film)
