"""The command itself: help, completion, old names, and the verbs that run a bundle."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cxw_monai
from cxw_monai.cli import VERBS, bundle_command, probe
from cxw_monai.metrics.probes import READINGS
from cxw_monai.weights.bundles import named_bundle
from tests.helpers.forks import run_python

PROJECT = Path(__file__).resolve().parents[2]
OLD_NAMES = {
    "check_radiographs": "check",
    "prepare_dataset": "prepare",
    "make_drr": "render",
    "import_checkpoint": "import-weights",
    "pseudo_label": "pseudo-label",
    "build_index": "index",
    "search_images": "search",
    "probe": "probe",
    "package_bundle": "package",
}


def test_help_names_every_verb_and_the_exit_statuses(run_verb):
    status, out, _ = run_verb("--help")
    assert status == 0 and "exit status:" in out and "cxw-monai segment film.dcm" in out
    assert [line.split()[0] for line in out.splitlines() if line.startswith("    ") and line[4] != " "] == list(VERBS)


def test_help_needs_no_torch_and_no_numpy():
    code = "import sys, cxw_monai.cli as cli; cli.build_parser(()); print({'torch', 'numpy', 'monai'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_shows_an_example(run_verb, verb):
    status, out, _ = run_verb(verb, "--help")
    assert status == 0 and f"cxw-monai {verb}" in out.replace(f"usage: cxw-monai {verb}", "")


def test_module_and_version(run_verb):
    done = subprocess.run([sys.executable, "-m", "cxw_monai", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, cxw_monai.__version__)


@pytest.mark.parametrize("arguments", [(), ("nothing",), ("check", "films", "--unknown")])
def test_wrong_arguments_exit_with_2(run_verb, arguments):
    status, out, err = run_verb(*arguments)
    assert (status, out) == (2, "") and "error: " in err


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_completion_is_a_script_of_bash_that_knows_verbs_and_options(run_verb, tmp_path):
    pytest.importorskip("shtab")
    status, script, _ = run_verb("--print-completion", "bash")
    assert status == 0
    ask = (
        'COMP_WORDS=(cxw-monai $1 $2); COMP_CWORD=$(($# ? $# : 1)); _shtab_cxw_monai; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    for words, wanted in ((["pseu"], "pseudo-label"), (["check", "--near"], "--near-distance")):
        done = subprocess.run(["bash", "-c", f"{script}\n{ask}", "-", *words], capture_output=True, text=True)
        assert done.stdout.split() == [wanted]


@pytest.mark.parametrize(("old", "verb"), OLD_NAMES.items())
def test_an_old_script_is_its_verb(old, verb):
    code = (PROJECT / "scripts" / f"{old}.py").read_text()
    assert f'main(["{verb}", *sys.argv[1:]])' in code and len(code.splitlines()) < 10


def test_bundle_prints_a_folder(run_verb):
    status, out, _ = run_verb("bundle", "chexworld_segmentation")
    assert status == 0 and (Path(out.strip()) / "configs" / "metadata.json").is_file()
    status, out, err = run_verb("bundle", "nothing")
    assert (status, out) == (2, "") and err.startswith("error: nothing: no such file")


def test_the_readings_offered_are_those_there_are():
    assert list(probe.READINGS) == list(READINGS)


@pytest.fixture
def commands(monkeypatch):
    """Commands that would have been run, each of which ends with 7."""
    found = []

    def run(command):
        found.append([str(word) for word in command])
        return 7

    monkeypatch.setattr(bundle_command, "run_command", run)
    return found


@pytest.mark.parametrize(("verb", "run_id"), [("report", "reporting"), ("explore", "exploring")])
def test_report_and_explore_are_commands_of_the_pretraining_bundle(run_verb, commands, tmp_path, verb, run_id):
    weights, bundle = tmp_path / "m.pt", named_bundle("chexworld_pretraining").resolve()
    weights.touch()
    assert run_verb(verb, weights, str(tmp_path), "out", "--preset", "demo", "--set", "world_films=40")[0] == 7
    [command] = commands
    assert command[:5] == [sys.executable, "-m", "monai.bundle", "run", run_id]
    given = dict(zip(command[5::2], command[6::2], strict=True))
    configs = [f"{bundle}/configs/{name}" for name in ("train.json", "presets/demo.yaml", f"{verb}.json")]
    assert given.pop("--config_file") == "[" + ",".join(f"'{path}'" for path in configs) + "]"
    assert all(Path(path).is_file() for path in configs)
    assert given == {
        "--bundle_root": str(bundle),
        "--dataset_dir": str(tmp_path.resolve()),
        "--ckpt": str(weights.resolve()),
        "--output_dir": str(Path("out").resolve()),
        "--amp": "none",
        "--world_films": "40",
    }
    (tmp_path / "films.csv").write_text("image")
    run_verb(verb, "chexworld_pretraining", str(tmp_path / "films.csv"), "out")
    assert str((tmp_path / "films.csv").resolve()) == commands[1][commands[1].index("--datalist") + 1]
    assert commands[1][commands[1].index("--ckpt") + 1] == str(bundle)
    status, out, err = run_verb(verb, "no_such.pt", tmp_path, "out")
    assert (status, out, len(commands)) == (2, "", 2) and err.startswith("error: no_such.pt: no such file")


@pytest.mark.parametrize("verb", ["report", "explore"])
def test_report_and_explore_refuse_wrong_files_before_they_begin(run_verb, monkeypatch, tmp_path, verb):
    found = []

    def run(command):
        found.append(run_python(command[1:]))
        return found[-1].returncode

    monkeypatch.setattr(bundle_command, "run_command", run)
    films, weights = tmp_path / "films", tmp_path / "broken.pt"
    films.mkdir()
    Image.fromarray(np.full((64, 64), 90, np.uint8)).save(films / "a.png")
    weights.write_bytes(b"none")
    refused = {
        "broken.pt: ": (weights, films),
        "no.csv: ": ("chexworld_pretraining", tmp_path / "no.csv"),
        "weights of kind 'segmentation'": ("chexworld_segmentation", films),
    }
    if verb == "explore" and find_spec("gradio") is None:
        refused['needs Gradio: pip install "cxw-monai[explore]"'] = ("chexworld_pretraining", films)
    for said, (ckpt, data) in refused.items():
        assert run_verb(verb, ckpt, data, tmp_path / "out", "--set", "device=cpu")[0] == 2
        [line] = [one for one in found[-1].stderr.splitlines() if one.startswith("error: ")]
        assert said in line and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("verb", "name", "setting"),
    [
        ("segment", "chexworld_segmentation", "threshold"),
        ("classify", "chexworld_classification", "batch_size"),
        ("locate", "chexworld_landmarks", "min_confidence"),
    ],
)
def test_a_verb_is_its_bundles_inference(run_verb, commands, verb, name, setting):
    assert run_verb(verb, "a.dcm", "--output", "o", "--ckpt", "m.pt", "--set", f"{setting}=0.4")[0] == 7
    bundle = named_bundle(name).resolve()
    [command] = commands
    assert command[:5] == [sys.executable, "-m", "monai.bundle", "run", "inference"]
    given = dict(zip(command[5::2], command[6::2], strict=True))
    assert given == {
        "--config_file": f"['{bundle}/configs/inference.json']",
        "--bundle_root": str(bundle),
        "--input": "a.dcm",
        "--output": "o",
        "--ckpt": "m.pt",
        f"--{setting}": "0.4",
    }


def test_embed_takes_a_folder_or_a_manifest_and_a_preset(run_verb, commands, tmp_path):
    run_verb("embed", tmp_path, "--output", "o")
    run_verb("embed", "films.csv", "--output", "o", "--preset", "cpu_tiny")
    folder, manifest = (dict(zip(command[5::2], command[6::2], strict=True)) for command in commands)
    assert folder["--dataset_dir"] == str(tmp_path) and "--datalist" not in folder
    assert manifest["--datalist"] == "films.csv" and manifest["--config_file"].endswith("presets/cpu_tiny.yaml']")


def test_a_setting_without_a_value_is_refused(run_verb, commands):
    status, _, err = run_verb("segment", "a.dcm", "--output", "o", "--set", "threshold")
    assert status == 2 and "expected NAME=VALUE" in err and commands == []


@pytest.mark.slow
def test_segment_and_embed_write_their_results(tmp_path, monkeypatch, run_verb):
    found = []

    def run(command):
        found.append(run_python(command[1:]))
        return found[-1].returncode

    monkeypatch.setattr(bundle_command, "run_command", run)
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    (tmp_path / "films").mkdir()
    for name in ("a", "b"):
        Image.fromarray(rng.integers(0, 256, (200, 180), dtype=np.uint8)).save(tmp_path / "films" / f"{name}.png")
    (tmp_path / "films" / "c.png").write_bytes(b"no film")

    assert run_verb("segment", "films", "--output", "masks", "--set", "formats=['png']")[0] == 1
    assert "1 of 3 films were not segmented" in found[-1].stderr
    assert (tmp_path / "masks" / "a" / "masks" / "heart.png").is_file()
    assert run_verb("segment", "films", "--output", "masks", "--set", "treshold=0.4")[0] == 2
    assert "did you mean threshold" in found[-1].stderr
    assert run_verb("embed", "films", "--output", "vectors")[0] == 0, found[-1].stderr
    with np.load(tmp_path / "vectors" / "embeddings.npz", allow_pickle=False) as file:
        assert file["embeddings"].shape == (2, 192)


@pytest.mark.slow
def test_export_writes_a_module_that_needs_only_torch(run_verb, tmp_path):
    status, out, err = run_verb("export", "chexworld_pretraining", "--output", tmp_path / "out", "--formats", "ts")
    assert status == 0, err
    assert out.split() == [str(tmp_path / "out" / "model.ts")]
    extra = {"metadata.json": ""}
    module = torch.jit.load(tmp_path / "out" / "model.ts", _extra_files=extra)
    assert json.loads(extra["metadata.json"])["version"]
    film = torch.rand(1, 1, 96, 80)
    expected = cxw_monai.load("chexworld_pretraining").film_model()(film)
    torch.testing.assert_close(module(film), expected)


def test_shipped_weights_have_names(run_verb, commands):
    assert run_verb("classify", "a.dcm", "--output", "o", "--ckpt", "view_position")[0] == 7
    [command] = commands
    assert command[command.index("--ckpt") + 1].endswith("models/view_position.pt")
    status, _, err = run_verb("classify", "a.dcm", "--output", "o", "--ckpt", "view")
    assert status == 2 and "model, shenzhen_tuberculosis, view_position" in err


def test_a_verb_that_is_ended_ends_its_bundle(tmp_path):
    """The command tells by a file that it has begun, and by another that it was ended too."""
    child = "import signal, sys, time; from pathlib import Path; place = Path(sys.argv[1]); "
    child += "signal.signal(signal.SIGTERM, lambda *_: (place / 'ended').touch() or sys.exit(3)); "
    child += "(place / 'begun').touch(); time.sleep(60)"
    parent = "import sys; from cxw_monai.cli.bundle_command import run_command; sys.exit(run_command(sys.argv[1:]))"
    process = subprocess.Popen([sys.executable, "-c", parent, sys.executable, "-c", child, str(tmp_path)])
    deadline = time.monotonic() + 60
    while not (tmp_path / "begun").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.terminate()
    assert process.wait(60) == 3 and (tmp_path / "ended").exists()
