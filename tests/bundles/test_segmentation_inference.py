"""The segmentation bundle's inference as a user runs it: exit status, files, and what a killed run leaves."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from monai.bundle import ConfigWorkflow
from PIL import Image

from cxw_monai.io.results.folders import LOCK, output_lock
from cxw_monai.weights.segmenter import new_segmenter, save_segmenter, segmenter_settings
from tests.helpers import dicom_files as _files
from tests.helpers.forks import run_python, start_python

BUNDLE = Path(__file__).parents[2] / "bundles" / "chexworld_segmentation"
STRUCTURES = ["lung_left", "lung_right", "heart"]


def arguments(**settings):
    options = [f"--{name}={value}" for name, value in settings.items()]
    return ["-m", "monai.bundle", "run", "--config_file", "configs/inference.json", *options]


def infer(bundle=BUNDLE, **settings):
    return run_python(arguments(**settings), cwd=bundle)


def rows(path):
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small segmenter with random weights."""
    path = tmp_path_factory.mktemp("model") / "model.pt"
    torch.manual_seed(0)
    settings = segmenter_settings(STRUCTURES, image_size=64, size="tiny", base_channels=4)
    save_segmenter(new_segmenter(settings).eval(), settings, path)
    return path


def film(path, shape=(120, 90), seed=0, **attributes):
    """A film of smooth noise."""
    small = np.random.default_rng(seed).integers(0, 4096, (8, 8)).astype(np.float32)
    grey = np.asarray(Image.fromarray(small).resize(shape[::-1], Image.Resampling.BILINEAR)).astype(np.uint16)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".dcm":
        uids = {"StudyInstanceUID": "1.2.3.4", "SeriesInstanceUID": "1.2.3.4.5", "StudyDate": "20010203"}
        return _files.write_dicom(path, grey, bits=12, **{**uids, **attributes})
    if path.suffix == ".gz":
        nib.save(nib.Nifti1Image(np.ascontiguousarray(grey.T[:, :, None]), np.diag([0.2, 0.4, 1.0, 1.0])), path)
    else:
        Image.fromarray(grey).save(path)
    return path


def test_a_folder_with_bad_films_is_segmented_and_ends_with_1(model, tmp_path):
    films, output = tmp_path / "films", tmp_path / "out"
    film(films / "first.png")
    film(films / "sub" / "second.dcm", (64, 110), seed=1, PixelSpacing=[0.4, 0.2])
    film(films / "third.nii.gz", (100, 70), seed=2)
    cut = film(films / "sub" / "cut.dcm", (64, 110), seed=3)
    cut.write_bytes(cut.read_bytes()[:3000])
    (films / "text.png").write_text("no picture")
    command = [sys.executable, *arguments(input=films, output=output, ckpt=model)]  # from its start, as a user
    done = subprocess.run(command, cwd=BUNDLE, capture_output=True, text=True, timeout=900)
    assert done.returncode == 1, done.stderr[-3000:]
    assert done.stderr.strip().splitlines()[-1] == f"error: 2 of 5 films were not segmented; see {output}/failures.csv"
    assert "Traceback" not in done.stderr and "segmenting: 100%" in done.stderr
    shapes = {"first": (120, 90), "sub/second": (64, 110), "third": None}
    for name in shapes:
        picture = np.stack([np.asarray(Image.open(output / name / "masks" / f"{one}.png")) for one in STRUCTURES])
        assert set(np.unique(picture)) <= {0, 255} and (output / name / "overlay.png").is_file()
        assert shapes[name] in (None, picture.shape[1:])
    assert nib.load(output / "third" / "nifti" / "heart.nii.gz").shape == (70, 100, 1)  # as the film's file
    seg = pydicom.dcmread(output / "sub" / "second" / "segmentation.dcm")
    png = [np.asarray(Image.open(output / "sub" / "second" / "masks" / f"{one}.png")) > 0 for one in STRUCTURES]
    np.testing.assert_array_equal(seg.pixel_array.astype(bool), png)
    assert str(seg.PatientName) == "Secret^Name"  # there it belongs, and nowhere else
    table = {row["image"]: row for row in rows(output / "measurements.csv")}
    assert set(table) == {"first.png", "sub/second.dcm", "third.nii.gz"}
    failures = {row["path"]: row for row in rows(output / "failures.csv")}
    assert set(failures) == {"sub/cut.dcm", "text.png"} and all(r["reason"] and r["remedy"] for r in failures.values())
    settings = json.loads((output / "settings.json").read_text())
    assert (settings["threshold"], settings["structures"], len(settings["model_sha256"])) == (0.5, STRUCTURES, 64)
    texts = [path.read_text() for path in output.rglob("*") if path.suffix in (".csv", ".json")]
    paths = [str(path) for path in output.rglob("*")]
    assert not re.search("Secret|20010203", "".join([*texts, *paths, done.stdout, done.stderr]))


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_with_0(model, tmp_path):
    films, output = tmp_path / "films", tmp_path / "out"
    for number in range(40):
        film(films / f"{number:02d}.png", (400, 300), seed=number)
    settings = {"input": films, "output": output, "ckpt": model}
    victim = start_python(arguments(**settings), tmp_path, cwd=BUNDLE)
    table, deadline = output / "measurements.csv", time.monotonic() + 600
    while not (table.is_file() and table.read_bytes().count(b"\n") > 3):
        assert victim.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(victim.pid, signal.SIGKILL)
    assert victim.wait() == -signal.SIGKILL
    before = {row["folder"]: os.stat(output / row["folder"] / "overlay.png").st_mtime_ns for row in rows(table)}
    assert 3 <= len(before) < 40
    done = infer(**settings, resume="true", batch_size=1)
    assert done.returncode == 0, done.stderr[-3000:]
    after = [row["folder"] for row in rows(table)]
    assert sorted(after) == [f"{number:02d}" for number in range(40)]
    assert all(os.stat(output / name / "overlay.png").st_mtime_ns == time_ns for name, time_ns in before.items())
    for name in after:
        for one in STRUCTURES:
            assert Image.open(output / name / "masks" / f"{one}.png").size == (300, 400)
    assert rows(output / "failures.csv") == [] and not list(output.rglob("*.part"))


@pytest.mark.parametrize("bundle", ["chexworld_segmentation", "chexworld_pretraining"])
def test_a_second_run_ends_with_2_and_touches_nothing(model, tmp_path, bundle):
    output = tmp_path / "out"
    shutil.copy(film(tmp_path / "films" / "a.png"), tmp_path / "films" / "b.png")
    ours = {"input": tmp_path / "films", "output": output, "ckpt": model}
    if bundle == "chexworld_pretraining":
        ours = {"dataset_dir": tmp_path / "films", "output_dir": output}
    with output_lock(output):
        done = infer(BUNDLE.parent / bundle, **ours)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    expected = f"error: {output}: another run is writing there; wait for its end, or give another output folder"
    assert done.stderr.strip().splitlines()[-1] == expected
    assert os.listdir(output) == [LOCK]


def test_without_a_model_nothing_is_done_and_the_status_is_2(tmp_path):
    done = infer(input=film(tmp_path / "a.png"), output=tmp_path / "out", ckpt=tmp_path / "none.pt")
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1] == f"error: {tmp_path}/none.pt: no such file; check the path"
    assert "Traceback" not in done.stderr and not (tmp_path / "out").exists()


def test_a_misspelt_setting_ends_with_2_before_anything_is_done(model, tmp_path):
    done = infer(input=film(tmp_path / "a.png"), output=tmp_path / "out", ckpt=model, treshold=0.9)
    assert done.returncode == 2 and "Traceback" not in done.stderr and not (tmp_path / "out").exists()
    assert (
        "error: treshold (given on the command line): the bundle has no such setting, did you mean threshold?"
        in (done.stderr.strip().splitlines()[-1])
    )


def test_the_config_has_what_monai_asks_of_an_inference_bundle(model, tmp_path, monkeypatch):
    monkeypatch.chdir(BUNDLE)
    hook = sys.excepthook
    flow = ConfigWorkflow(
        str(BUNDLE / "configs" / "inference.json"),
        workflow_type="infer",
        logging_file=False,
        input=str(film(tmp_path / "a.png", (80, 200))),
        output=str(tmp_path / "out"),
        ckpt=str(model),
        formats=["png"],
        sliding_window=64,
        device="cpu",
    )
    try:
        flow.initialize()
        assert flow.check_properties() == []
        flow.run()
    finally:
        monkeypatch.setattr(sys, "excepthook", hook)
    assert Image.open(tmp_path / "out" / "a" / "masks" / "heart.png").size == (200, 80)
    assert json.loads((tmp_path / "out" / "settings.json").read_text())["sliding_window"] == 64
