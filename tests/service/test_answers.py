"""Bundles of the service: what a run of theirs writes, once, and films that are no chest."""

from __future__ import annotations

from functools import partial

import highdicom as hd
import numpy as np
import pydicom
import pytest
import torch

from cxw_monai.inference.api import load
from cxw_monai.inference.locate_settings import LocateSettings
from cxw_monai.io import RadiographError
from cxw_monai.io.results.dicom_seg_reading import read_dicom_seg
from cxw_monai.service import answers
from cxw_monai.service.answers import Answerer, Refused
from cxw_monai.service.folders import answer_folder
from cxw_monai.weights.segmenter import new_segmenter, save_segmenter, segmenter_settings
from tests.helpers.dicom_files import write_dicom
from tests.helpers.small_classifier import CLASSES, save_classifier
from tests.helpers.small_landmarker import save_landmarker


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A tiny segmenter and a tiny classifier."""
    folder = tmp_path_factory.mktemp("models")
    settings = segmenter_settings(("lung_left", "heart"), 32, "tiny", 16, "linear", 4)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_segmenter(new_segmenter(settings), settings, folder / "segmenter.pt")
    return str(folder / "segmenter.pt"), str(save_classifier(folder / "classifier.pt"))


@pytest.fixture
def path(tmp_path, film):
    (tmp_path / "key.dcm").write_bytes(film(1))
    return tmp_path / "key.dcm"


@pytest.fixture
def any_film(monkeypatch):
    """Noise passes for a chest film that is mirrored."""
    monkeypatch.setattr(answers, "film_doubts", lambda film: ["looks mirrored"])


def test_results_are_those_of_the_bundles(models, path, tmp_path, any_film):
    found = Answerer(models).answer(path, tmp_path / "out")
    assert [name.rpartition("/")[2] for name in found.results] == [
        "measurements.dcm",
        "segmentation.dcm",
        "classification.dcm",
    ]
    assert "left lung: the network is unsure of it" in found.reasons[0] and found.reasons[1] == "looks mirrored"
    segmented = load(models[0]).segment(path, on_implausible="keep")
    read = read_dicom_seg(tmp_path / "out" / found.results[1], (24, 16))
    assert all(np.array_equal(read[name], mask) for name, mask in segmented.items())
    report = hd.sr.srread(tmp_path / "out" / found.results[2])
    shares = [group.get_measurements()[0].value / 100 for group in report.content.get_image_measurement_groups()]
    classified = load(models[1]).classify(path, on_implausible="keep")
    assert report.SeriesDescription == "IMPLAUSIBLE, look at it. Classification"
    assert shares == pytest.approx([classified[name] for name in CLASSES])


@pytest.mark.parametrize("least", [0.0, 1.0])
def test_landmarks_are_answered_and_none_is_said(path, tmp_path, any_film, monkeypatch, least):
    monkeypatch.setattr(answers, "LocateSettings", partial(LocateSettings, min_confidence=least))
    found = Answerer([str(save_landmarker(tmp_path / "landmarks.pt"))]).answer(path, tmp_path / "out")
    if least:
        assert found.results == () and "no landmark on the film" in found.reasons
    else:
        assert found.results == ("1_landmarks/key/landmarks.dcm",)
        assert hd.sr.srread(tmp_path / "out" / found.results[0]).SeriesDescription.endswith("Landmarks")


def test_a_whole_answer_is_not_made_again_and_a_half_one_is(models, path, tmp_path, any_film):
    answerer, folder = Answerer(models[:1]), tmp_path / "out"
    first = answerer.answer(path, folder)
    before = [pydicom.dcmread(folder / name).SOPInstanceUID for name in first.results]
    times = [(folder / name).stat().st_mtime_ns for name in first.results]
    assert answerer.answer(path, folder) == first
    assert [(folder / name).stat().st_mtime_ns for name in first.results] == times
    (folder / "answer.json").unlink()  # as if it had been killed before that
    (folder / first.results[0]).write_bytes(b"half")
    assert answerer.answer(path, folder) == first
    assert [pydicom.dcmread(folder / name).SOPInstanceUID for name in first.results] == before


def test_a_film_that_is_no_chest_is_refused(models, path, tmp_path):
    identity = {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.3", "SOPInstanceUID": "1.4"}
    flat = np.random.default_rng(0).integers(30_000, 30_100, (64, 64), dtype=np.uint16)
    write_dicom(path, flat, **identity)
    with pytest.raises(Refused, match="hardly any contrast"):
        Answerer(models).answer(path, tmp_path / "out")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    write_dicom(path, noise, **identity)
    with pytest.raises(Refused, match="not a frontal chest film"):
        Answerer(models).answer(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(RadiographError, match="truncated|incomplete|short"):
        Answerer(models).answer(path, tmp_path / "out")


def test_models_that_cannot_answer():
    with pytest.raises(ValueError, match="at least one --model"):
        Answerer([])
    with pytest.raises(ValueError, match="embeddings have no DICOM result"):
        Answerer(["chexworld_pretraining"])
    with pytest.raises(ValueError, match="nothing"):
        Answerer(["chexworld_classification:nothing"])


def test_a_folder_is_answered_film_by_film(models, path, tmp_path, monkeypatch):
    monkeypatch.setattr(
        answers, "film_doubts", lambda film: [] if film.shape[1] == 24 else ["not a frontal chest film"]
    )
    folder = tmp_path / "films"
    (folder / "below").mkdir(parents=True)
    path.rename(folder / "below" / "a.dcm")
    (folder / "b.dcm").write_bytes(bytes(128) + b"DICM" + bytes(20))
    write_dicom(folder / "c.dcm", np.arange(4096, dtype=np.uint16).reshape(64, 64))
    a, b, c = sorted(answer_folder(Answerer(models), folder, tmp_path / "out"), key=lambda one: one["film"][-5:])
    assert (a["film"], a["state"], len(a["results"])) == ("below/a.dcm", "done", 3)
    assert all((tmp_path / "out" / name).is_file() for name in a["results"])
    assert (b["state"], c["state"]) == ("failed", "refused") and c["reasons"] == ["not a frontal chest film"]
    with pytest.raises(ValueError, match="no film in it"):
        answer_folder(Answerer(models), tmp_path / "out" / "below", tmp_path / "none")
