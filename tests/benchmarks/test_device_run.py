"""The run over a device's checks: it resumes, tells what failed, and needs little that is installed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.device import __main__, run, speed
from benchmarks.device.outcome import CheckFailedError, NotApplicableError
from benchmarks.device.speed import Figure
from cxw_monai.networks import VIT_SIZES

CPU = torch.device("cpu")
PROJECT = Path(__file__).parents[2]


@pytest.fixture
def stand_ins(monkeypatch):
    """Checks and measurements that do nothing but count: a list of what was done, and which checks are broken."""
    done, broken = [], set()

    def check(name):
        def made():
            done.append(name)
            if name in broken:
                raise CheckFailedError("it is broken")
            if name == "idle":
                raise NotApplicableError("nothing to do")
            return "fine"

        return made

    def measured(name):
        return lambda *args, **kwargs: done.append(name) or [Figure(name, 2.0, "x")]

    names = ("first", "second", "idle")
    monkeypatch.setattr(run, "right_checks", lambda device, compiling: {name: check(name) for name in names})
    for name in ("matrix_peak", "steps", "loading", "films_per_second"):
        monkeypatch.setattr(run.speed, name, measured(name))
    return done, broken


def command(folder, *options):
    return __main__.main(["--device", "cpu", "--output", str(folder), *options])


def test_what_is_done_is_not_repeated_and_what_failed_is(stand_ins, tmp_path, capsys):
    done, broken = stand_ins
    broken.add("second")
    assert command(tmp_path) == 1
    assert done == ["first", "second", "idle", "matrix_peak", "steps", "loading", "loading", "films_per_second"]
    assert "failed         second                       it is broken" in capsys.readouterr().out
    done.clear()
    broken.clear()
    assert command(tmp_path) == 0
    assert done == ["second"]
    report = json.loads((tmp_path / "report.json").read_text())
    assert [one["status"] for one in report["results"]][:3] == ["passed", "passed", "not applicable"]
    assert report["results"][3]["figures"] == [{"name": "matrix_peak", "value": 2.0, "unit": "x"}]
    assert report["torch"] == torch.__version__


def test_other_versions_begin_anew(stand_ins, tmp_path, monkeypatch):
    done, _ = stand_ins
    assert command(tmp_path) == 0
    done.clear()
    monkeypatch.setattr(torch, "__version__", "99.0")
    assert command(tmp_path) == 0
    assert len(done) == 8


def test_an_unexpected_error_fails_its_check_alone(stand_ins, tmp_path, monkeypatch, capsys):
    def check():
        raise RuntimeError("CUDA error: an illegal memory access")

    monkeypatch.setattr(run, "right_checks", lambda *_: {"broken": check, "whole": lambda: "fine"})
    assert command(tmp_path) == 1
    printed = capsys.readouterr().out
    assert "RuntimeError: CUDA error" in printed and "passed         whole" in printed


def test_a_batch_that_does_not_fit_is_said_and_is_no_fault(stand_ins, tmp_path, monkeypatch, capsys):
    def steps(*args, **kwargs):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(run.speed, "steps", steps)
    assert command(tmp_path) == 0
    assert "not applicable steps of tiny, batch 2: does not fit" in capsys.readouterr().out


def test_a_measurement_that_fails_is_said_and_leaves_what_is_right_right(stand_ins, tmp_path, monkeypatch, capsys):
    def loading(*args, **kwargs):
        raise RuntimeError("DataLoader worker is killed by signal: Bus error.")

    monkeypatch.setattr(run.speed, "loading", loading)
    assert command(tmp_path) == 0
    assert "failed loading, crops in the loader: RuntimeError: DataLoader worker is killed" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_device_that_is_not_here_is_refused(tmp_path, capsys):
    assert __main__.main(["--device", "cuda", "--output", str(tmp_path / "out")]) == 2
    assert "PyTorch sees 0 CUDA devices; try --device cpu" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("device", ["tpu", "meta"])
def test_a_device_that_is_none_is_refused(device):
    with pytest.raises(SystemExit) as stop:
        __main__.main(["--device", device])
    assert stop.value.code == 2


def test_an_output_that_cannot_be_written_is_refused(stand_ins, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert command(tmp_path / "file") == 2
    assert "error: " in capsys.readouterr().err


ABSENT = ("itk", "highdicom", "onnx", "matplotlib", "pydicom", "nibabel", "nrrd", "scipy", "sklearn", "skimage",
          "pandas", "PIL", "tensorboard", "pydantic", "fire", "yaml", "jinja2")  # fmt: skip
WITHOUT = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {ABSENT}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Absent())
import benchmarks.device.run, benchmarks.device.__main__
"""


def test_it_needs_torch_monai_and_ignite_alone():
    """MONAI takes what else it finds, so that the others must be absent."""
    ended = subprocess.run([sys.executable, "-c", WITHOUT], cwd=PROJECT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_steps_are_measured_beside_the_plain_loop():
    found = {figure.name: figure for figure in speed.steps(CPU, "tiny", 2, 0.0, peak=0.5, most=2)}
    name = "step tiny 96 px batch 2"
    ours, plain = found[f"{name}, package, images/s"].value, found[f"{name}, plain loop, images/s"].value
    assert found[f"{name}, speed over plain"].value == pytest.approx(ours / plain)
    flops = speed.step_flops("tiny", 2, 96) / 2 * ours / 1e12
    assert found[f"{name}, package, TFLOP/s"].value == pytest.approx(flops, rel=0.3)  # other masks
    share = found[f"{name}, package, share of the peak"].value
    assert share == pytest.approx(100 * found[f"{name}, package, TFLOP/s"].value / 0.5)


def test_operations_of_a_step_lie_between_what_must_and_what_can_be_computed():
    tokens, (dim, depth) = 36, (VIT_SIZES["tiny"]["embed_dim"], VIT_SIZES["tiny"]["depth"])

    def blocks(count, width, number):
        return number * count * (24 * width**2 + 4 * count * width)

    target = 2 * blocks(tokens, dim, depth)  # two views, forward only
    most = target + 3 * 2 * blocks(tokens, dim, depth) + 3 * 4 * blocks(2 * tokens, 384, 6)
    found = speed.step_flops("tiny", 1, 96)
    assert 1.5 * target < found < 1.1 * most
    assert speed.step_flops("tiny", 4, 96) == pytest.approx(4 * found)
