"""The app as MONAI Label's server calls it, with real films: every task, every refusal, and nothing left behind."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("monailabel.interfaces", reason="needs fastapi (requirements.txt), on Python 3.11 or later")

from fastapi import HTTPException  # noqa: E402

import cxw_monai  # noqa: E402
from cxw_monai.data.manifest import find_images  # noqa: E402
from cxw_monai.io import read_radiograph  # noqa: E402
from cxw_monai.io.structures import definitions, structure_colours  # noqa: E402
from cxw_monai.label.app import EMBEDDING, SEGMENTATION, CxwLabelApp  # noqa: E402
from cxw_monai.label.label_files import RESULT_ENDINGS, read_label, write_result  # noqa: E402
from cxw_monai.label.label_maps import paint  # noqa: E402
from cxw_monai.weights.bundles import named_bundle  # noqa: E402
from tests.helpers.small_classifier import CLASSES, POINTS  # noqa: E402

NAMES = ("lung_left", "heart")
NUMBERS = {"lung_left": 1, "heart": 2}


@pytest.fixture
def uploads(tmp_path, monkeypatch) -> Path:
    """Where the server puts what clients send, and results."""
    folder = tmp_path / "app" / "tmp"
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def app(app_folder, film_files, uploads, tmp_path, monkeypatch) -> CxwLabelApp:
    """An app over a folder with the six films."""
    monkeypatch.setenv("MONAI_LABEL_DATASTORE_AUTO_RELOAD", "false")
    studies = tmp_path / "studies"
    studies.mkdir()
    for file in film_files.values():
        (studies / file.name).write_bytes(file.read_bytes())
    return CxwLabelApp(str(app_folder), str(studies), {"bundle": str(named_bundle("chexworld_segmentation"))})


def refused(status: int, said: str, call, *arguments, **named) -> None:
    with pytest.raises(HTTPException) as raised:
        call(*arguments, **named)
    assert raised.value.status_code == status and said in raised.value.detail, raised.value.detail
    assert tempfile.gettempdir() not in raised.value.detail


def sent(uploads: Path, file: Path) -> str:
    """A file that a client sent, under a name as MONAI Label gives it."""
    path = uploads / f"tmpabcdefgh{''.join(file.suffixes)}"
    path.write_bytes(file.read_bytes())
    return str(path)


def masks_of(app: CxwLabelApp, name: str) -> np.ndarray:
    return app.label_model.masks(read_radiograph(app.datastore().get_image_uri(name)))


def test_what_is_told(app, film_files):
    found = app.info()
    assert set(found["models"]) == {SEGMENTATION, EMBEDDING} and set(found["trainers"]) == {SEGMENTATION}
    assert set(found["strategies"]) == {"random", "uncertainty"} and found["labels"] == list(NAMES)
    assert found["datastore"]["total"] == len(film_files) == 6
    model = found["models"][SEGMENTATION]
    assert model["result_extensions"] == list(RESULT_ENDINGS)
    assert {one["name"]: one["idx"] for one in model["label_info"]} == NUMBERS
    assert {one["name"]: one["definition"] for one in model["label_info"]} == definitions(NAMES)
    assert [tuple(one["color"]) for one in model["label_info"]] == structure_colours(NAMES)
    assert app._infers[SEGMENTATION].get_path() == str(app.label_model.path)


@pytest.mark.parametrize("ending", ["", ".seg.nrrd", ".nii.gz", ".nii", ".nrrd", ".png"])
def test_masks_come_in_every_format_on_the_films_own_grid(app, film_files, tmp_path, ending):
    for name, file in film_files.items():
        film, expected = read_radiograph(file), masks_of(app, name)
        assert expected.any() and not expected.all()
        answer = app.infer({"model": SEGMENTATION, "image": name, "result_extension": ending})
        wanted = ending or {".png": ".png", ".gz": ".nii.gz"}.get(file.suffix, ".nii.gz")
        assert answer["file"].endswith(wanted) and answer["label"] == answer["file"]
        label_map, masks = read_label(answer["file"], film, NAMES, NUMBERS)
        if ending == ".seg.nrrd":
            np.testing.assert_array_equal(np.stack([masks[one] for one in NAMES]), expected)
        else:
            np.testing.assert_array_equal(label_map, paint(expected, NAMES))
        told = answer["params"]
        assert told["pixels"] == dict(zip(NAMES, expected.sum(axis=(1, 2)).tolist(), strict=True))
        assert (
            told["hidden_pixels"]["heart"] == 0 and told["hidden_pixels"]["lung_left"] == (expected.all(axis=0)).sum()
        )
        assert told["label_names"] == NUMBERS and told["shape"] == list(expected.shape[1:])


def test_a_dicom_film_gets_a_dicom_segmentation(app, film_files):
    for name in ("film_cr_2", "film_dx_1"):
        answer = app.infer({"model": SEGMENTATION, "image": name, "result_extension": "dcm"})
        seg = hd.seg.segread(answer["file"])
        assert [seg.get_segment_description(n).segment_label for n in seg.segment_numbers] == list(NAMES)
        found = seg.get_pixels_by_source_instance([read_radiograph_uid(film_files[name])])[0]
        np.testing.assert_array_equal(np.moveaxis(found, -1, 0).astype(bool), masks_of(app, name))
    refused(422, "not a DICOM", app.infer, {"model": SEGMENTATION, "image": "film_png", "result_extension": "dcm"})


def read_radiograph_uid(file: Path) -> str:
    import pydicom

    return str(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID)


def test_settings_of_a_request(app):
    whole = masks_of(app, "film_png")
    one = app.infer({"model": SEGMENTATION, "image": "film_png", "structures": ["heart"], "threshold": 0.6})
    expected = app.label_model.masks(read_radiograph(app.datastore().get_image_uri("film_png")), 0.6)[1]
    np.testing.assert_array_equal(np.asarray(Image.open(one["file"])) == 1, expected)
    assert one["params"]["label_names"] == {"heart": 1} and not np.array_equal(expected, whole[1])
    for wrong, said in (
        ({"result_extension": ".exe"}, "result_extension must be one of"),
        ({"threshold": 2}, "threshold must lie between"),
        ({"threshold": "half"}, "threshold must lie between"),
        ({"structures": ["tail"]}, "structures must be a list of some of lung_left, heart"),
        ({"structures": "heart"}, "structures must be a list"),
        ({"keep_largest": ["tail"]}, "keep_largest"),
    ):
        refused(422, said, app.infer, {"model": SEGMENTATION, "image": "film_png", **wrong})


def test_a_film_that_comes_with_the_request(app, film_files, uploads):
    there = app.infer({"model": SEGMENTATION, "image": "film_jpeg"})["params"]
    answer = app.infer({"model": SEGMENTATION, "image": sent(uploads, film_files["film_jpeg"]), "save_label": True})
    assert answer["params"]["pixels"] == there["pixels"]
    assert app.datastore().get_labeled_images() == []  # it is no film of the datastore
    bad = uploads / "tmphgfedcba.png"
    bad.write_bytes(b"no image")
    refused(422, "the film: ", app.infer, {"model": SEGMENTATION, "image": str(bad)})
    assert not bad.exists()


def test_what_is_no_film_of_the_datastore(app, film_files, tmp_path):
    for image in ("nothing", "../film_png", "/etc/hostname", str(film_files["film_png"]), "", None, 3):
        refused(404, "no such image", app.infer, {"model": SEGMENTATION, "image": image})
    refused(404, "no such model", app.infer, {"model": "other", "image": "film_png"})
    refused(404, "no such model", app.infer, {"image": "film_png"})
    refused(404, "no whole-slide models", app.infer_wsi, {})
    refused(404, "no such strategy", app.next_sample, {"strategy": "first"})


def test_bad_films_are_answered_with_a_reason(app, film_files, uploads, tmp_path):
    from tests.label.selftest.films import make_bad_files

    store = app.datastore()
    for name, file in make_bad_files(tmp_path / "bad", film_files).items():
        copy = sent(uploads, file)
        refused(422, "the film: ", app.infer, {"model": SEGMENTATION, "image": copy})
        assert not Path(copy).exists()
        refused(422, "", store.add_image, name.replace(".", "_"), sent(uploads, file), {})
    assert list(uploads.iterdir()) == [] and store.status()["total"] == 6


def test_the_embedding_is_the_packages_own(app, film_files):
    answer = app.infer({"model": EMBEDDING, "image": "film_png"})
    own = app.label_model.embedding(read_radiograph(film_files["film_png"]))
    assert answer["file"] is None and answer["params"]["model"] == app.label_model.version
    np.testing.assert_allclose(answer["params"]["embedding"], own, rtol=1e-5)
    assert app._infers[EMBEDDING].is_valid()


def test_classes_are_the_packages_own(app_folder, film_files, classifier_file, tmp_path):
    name, film, studies = "chexworld_classification", film_files["film_png"], tmp_path / "studies"
    studies.mkdir()
    shutil.copy(film, studies)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 40), dtype=np.uint8)).save(studies / "noise.png")
    conf = {"bundle": str(named_bundle(SEGMENTATION)), "classifiers": json.dumps({name: str(classifier_file)})}
    app = CxwLabelApp(str(app_folder), str(studies), conf)
    told = app.info()
    assert told["labels"] == list(NAMES)  # to draw; classes are none
    assert told["models"][name]["classes"] == list(CLASSES) and told["models"][name]["operating_points"] == POINTS
    answer = app.infer({"model": name, "image": "film_png"})
    own = cxw_monai.load(classifier_file).classify(film, on_implausible="keep")
    assert answer["file"] is None and answer["params"]["probabilities"] == pytest.approx(own, abs=1e-6)
    assert answer["params"]["decisions"] == {"edema": {"youden": True, "sensitivity_90": False}, "mass": {}}
    assert json.loads(json.dumps(answer["params"])) == answer["params"]
    noise = {"model": name, "image": "noise"}
    assert app.infer(noise)["params"]["implausible"] == ["not a frontal chest film"]
    refused(422, "implausible: not a frontal chest film", app.infer, {**noise, "on_implausible": "skip"})
    refused(422, "on_implausible must be", app.infer, {**noise, "on_implausible": "x"})


def test_the_next_film_is_the_least_sure_one_without_a_label(app, film_files, tmp_path):
    scores = {name: app.label_model.uncertainty(read_radiograph(file)) for name, file in film_files.items()}
    order = sorted(scores, key=lambda name: -scores[name])
    (tmp_path / "studies" / "broken.png").write_bytes(b"no image")
    app.datastore().refresh()
    for name in order:
        chosen = app.next_sample({"strategy": "uncertainty"})
        assert chosen["id"] == name and chosen["path"] == app.datastore().get_image_uri(name)
        assert chosen["weight"] == pytest.approx(min(scores[name], 1e9))
        assert app.next_sample({"strategy": "random"})["id"] in {*order[order.index(name) :], "broken"}
        save(app, name, ".png", tmp_path)
    assert not app.next_sample({"strategy": "uncertainty"})  # what is left can't be read


def save(app: CxwLabelApp, name: str, ending: str, folder: Path, tag: str = "final", **info: object) -> None:
    """Save the model's own masks as an unchanged label."""
    film = read_radiograph(app.datastore().get_image_uri(name))
    path = folder / f"label_of_{name}{ending}"
    write_result(path, film, app.label_model.masks(film), NAMES)
    app.datastore().save_label(name, str(path), tag, info)


def saved_masks(tmp_path: Path, name: str) -> np.ndarray:
    folder = tmp_path / "studies" / "labels" / "masks" / name
    return np.stack([np.asarray(Image.open(folder / f"{one}.png")) > 0 for one in NAMES])


@pytest.mark.parametrize("ending", [".png", ".nii.gz", ".nrrd", ".seg.nrrd"])
def test_an_unchanged_label_is_the_models_masks(app, tmp_path, ending):
    """Whole, also where one hides the other; upright, as the film is seen."""
    for name in ("film_png", "film_nifti", "film_dx_1"):
        save(app, name, ending, tmp_path)
        film = read_radiograph(app.datastore().get_image_uri(name))
        expected = masks_of(app, name)
        if film.array.shape[1:] != expected.shape[1:]:
            expected = expected.swapaxes(1, 2)
        np.testing.assert_array_equal(saved_masks(tmp_path, name), expected)
    assert sorted(app.datastore().get_labeled_images()) == ["film_dx_1", "film_nifti", "film_png"]
    app.datastore().remove_label("film_png", "final")
    assert not (tmp_path / "studies" / "labels" / "masks" / "film_png").exists()
    assert "film_png" in app.datastore().get_unlabeled_images()


def test_labels_that_cannot_be_used(app, film_files, tmp_path, uploads):
    store = app.datastore()
    film = read_radiograph(film_files["film_png"])
    write_result(tmp_path / "label.png", film, app.label_model.masks(film), NAMES)
    wrong = {
        "film_16bit": ("label.png", 422, "its film"),
        "nothing": ("label.png", 404, "no such image"),
        "../film_png": ("label.png", 404, "no such image"),
        "film_png": ("label.exe", 422, "of no known ending"),
    }
    (tmp_path / "label.exe").write_bytes(b"")
    for name, (file, status, said) in wrong.items():
        copy = sent(uploads, tmp_path / file)
        refused(status, said, store.save_label, name, copy, "final", {})
        assert not Path(copy).exists()
    for tag in ("../final", "", "a/b", "x" * 50):
        refused(422, "not a usable label tag", store.save_label, "film_png", str(tmp_path / "label.png"), tag, {})
        (tmp_path / "label.png").write_bytes(b"")
    assert store.get_labeled_images() == [] and not (tmp_path / "studies" / "labels" / "masks").exists()


def test_a_result_is_kept_as_a_label_where_it_is_asked_for(app, tmp_path):
    answer = app.infer({"model": SEGMENTATION, "image": "film_png", "save_label": True})
    assert answer["label"] == "film_png" and app.datastore().get_labeled_images() == []  # an original, not a final one
    kept = tmp_path / "studies" / "labels" / "original" / "film_png.png"
    assert not [item for item in find_images(tmp_path / "studies") if "labels" in item["image"]]  # no films to train on
    np.testing.assert_array_equal(np.asarray(Image.open(kept)), paint(masks_of(app, "film_png"), NAMES))
    results = app.batch_infer({"model": SEGMENTATION, "images": "all"})
    assert set(results) == set(app.datastore().list_images())
    assert len(list((tmp_path / "studies" / "labels" / "original").glob("film_*"))) == 6


def test_a_model_that_cannot_be_used(app, film_files, app_folder):
    """Whatever is wrong with it: no mask, no vector, no choice, and the reason without a path of the server."""
    whole = torch.load(app.label_model.path, weights_only=True)
    weight = "encoder.blocks.0.attn.qkv.weight"
    nan = whole["model"] | {weight: torch.full_like(whole["model"][weight], torch.nan)}
    for content, said in (
        ({"model": nan, "settings": whole["settings"]}, "NaN or infinite"),
        (whole | {"settings": whole["settings"] | {"image_size": [2**20, 2**20]}}, "image_size must be"),
        (whole | {"settings": whole["settings"] | {"structures": ["../../../x", "y"]}}, "structures must be named by"),
        ({"other": torch.ones(1)}, "not a segmentation model"),
    ):
        torch.save(content, app.label_model.path)
        for model in (SEGMENTATION, EMBEDDING):
            refused(503, said, app.infer, {"model": model, "image": "film_png"})
        refused(503, said, app.next_sample, {"strategy": "uncertainty"})
    torch.save(whole, app.label_model.path)
    assert app.infer({"model": SEGMENTATION, "image": "film_png"})["params"]["pixels"]


def test_training_goes_on_from_saved_labels(app, app_folder, tmp_path):
    with pytest.raises(ValueError, match="0 films have a saved label"):
        app.train({"model": SEGMENTATION})
    for name in ("film_png", "film_nifti", "film_cr_2"):
        save(app, name, ".seg.nrrd", tmp_path)
    before = app.label_model.version
    with pytest.raises(ValueError, match="max_epochs and train_batch_size must be at least 1"):
        app.train({"model": SEGMENTATION, "max_epochs": 0})
    told = app.train({"model": SEGMENTATION, "max_epochs": 1, "learning_rate": 1e-2, "publish": "always"})
    assert told["films"] == 3 and told["published"] and 0 <= told["validation_dice"] <= 1
    assert app.label_model.version != before
    assert app.infer({"model": SEGMENTATION, "image": "film_png"})["params"]["model"] == app.label_model.version
    run = app_folder / "runs" / told["run"]
    assert (run / "model_before.pt").is_file() and not (run / "cache").exists()
    assert "film_nifti" in (run / "manifest.csv").read_text()
