"""Encoders side by side: one that sees a label and one that doesn't, on films made here."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from cxw_monai.cli import main
from cxw_monai.tasks import compare_encoders as module
from cxw_monai.tasks.compare_encoders import compare_encoders

FILMS = 48
MODULE = """
import torch
from torch.nn import functional as F

def level():
    return lambda x: F.avg_pool2d(x, 8)

def stripes():
    return lambda x: torch.cat([F.avg_pool2d(x, 8), F.avg_pool2d((x - x.roll(4, 3)).abs(), 8)], dim=1)

def vector():
    return lambda x: x.mean(dim=(2, 3))
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Films of random shades, every other one with stripes, which label_stripes tells; label_rare is of two films."""
    folder = tmp_path_factory.mktemp("study")
    rng, lines = np.random.default_rng(0), ["image,patient_id,label_stripes,label_rare,sex"]
    for n in range(FILMS):
        film = rng.uniform(0.3, 0.7) + 0.1 * rng.standard_normal((32, 32))
        film += 0.15 * np.where(np.arange(32) // 4 % 2, 1, -1) * (n % 2)
        Image.fromarray(np.rint(255 * film.clip(0, 1)).astype(np.uint8)).save(folder / f"{n}.png")
        lines.append(f"{n}.png,p{n},{n % 2},{int(n < 2)},{'MF'[int(rng.integers(2))]}")
    (folder / "films.csv").write_text("\n".join(lines) + "\n")
    (folder / "encoders_of_the_study.py").write_text(MODULE)
    return folder


@pytest.fixture
def spec(study, monkeypatch):
    monkeypatch.chdir(study)
    monkeypatch.syspath_prepend(str(study))
    return lambda name: f"python:encoders_of_the_study:{name},size=32"


def one(rows, encoder, *key):
    (found,) = [
        row for row in rows if (row["encoder"], row["test"], row["measure"], row["condition"]) == (encoder, *key)
    ]
    return found


def test_an_encoder_that_sees_more_is_ahead_by_a_paired_interval(study, spec, tmp_path):
    rows = compare_encoders(
        [spec("stripes"), spec("vector")], study / "films.csv", tmp_path, ours=spec("level"), world_count=12
    )
    better = one(rows, spec("stripes"), "labels", "AUROC", "label_stripes")
    assert better["value"] > 0.95 and better["difference_low"] > 0.1
    nothing = one(rows, spec("stripes"), "labels", "AUROC", "sex")
    assert nothing["difference_low"] < 0 < nothing["difference_high"]
    mean = one(rows, spec("stripes"), "labels", "AUROC", "mean of the labels")
    assert mean["value"] == pytest.approx((better["value"] + nothing["value"]) / 2)
    ours = one(rows, spec("level"), "labels", "AUROC", "label_stripes")
    assert ours["difference"] is None and better["difference"] == pytest.approx(better["value"] - ours["value"])
    assert not any(row["condition"] == "label_rare" for row in rows)
    tests = {name: {row["test"] for row in rows if row["encoder"] == spec(name)} for name in ("stripes", "vector")}
    assert tests["stripes"] - tests["vector"] == {"correspondence, same film", "position"}  # a vector has no places
    pixels = one(rows, spec("stripes"), "localizability", "accuracy of the place", "16 x 16 pixels")
    assert pixels["value"] is not None and pixels["difference"] is None  # a control: no encoder is asked
    rank = one(rows, spec("stripes"), "spread", "effective rank", "tokens")
    assert rank["low"] is None and rank["difference_low"] is None
    with (tmp_path / "comparison.csv").open(newline="") as stream:
        assert len(list(csv.DictReader(stream))) == len(rows)
    facts = json.loads((tmp_path / "comparison.json").read_text())
    assert facts["encoders"][1]["preprocessing"] == "32 x 32 px, 1 channel, grey values 0 to 1, mean 0, std 1"
    assert facts["labels_left_out"] == {"label_rare": "2 patients with the rarer value, 15 are needed"}
    for name in ("comparison.md", "comparison.html"):
        text = (tmp_path / name).read_text()
        assert (
            "32 x 32 px, 1 channel" in text and f"{better['difference']:+.3f} [{better['difference_low']:+.3f}" in text
        )


def test_the_same_encoder_differs_by_nothing_and_is_kept(study, tmp_path, monkeypatch):
    for name, gain in (("a", 1.0), ("b", 1.0), ("c", 2.0)):
        torch.jit.script(torch.nn.AvgPool2d(8) if gain == 1 else torch.nn.MaxPool2d(8)).save(tmp_path / f"{name}.ts")
    specs = {name: f"torchscript:{tmp_path / name}.ts,size=32" for name in "abc"}

    def run(*names, **given):
        return compare_encoders(
            [specs[n] for n in names], study / "films.csv", tmp_path / "out", specs["a"], world_count=8, **given
        )

    rows = run("b")
    differences = [row["difference"] for row in rows if row["encoder"] == specs["b"] and row["difference"] is not None]
    assert len(differences) > 10 and all(gap == pytest.approx(0, abs=1e-12) for gap in differences)
    measured = []
    monkeypatch.setattr(module, "_measure", lambda encoder, *rest: measured.append(encoder.name) or [])
    assert run("b") == rows and not measured
    with pytest.raises(ValueError):
        run("c")  # measured nothing, which is what it would keep
    assert measured == [specs["c"]]
    torch.jit.script(torch.nn.MaxPool2d(8)).save(tmp_path / "b.ts")  # another network in the same file
    with pytest.raises(ValueError):
        run("b")
    assert measured == [specs["c"], specs["b"]]


def test_the_command(study, spec, tmp_path, capsys):
    given = [str(study / "films.csv"), "--ours", spec("level"), "--world-count", "8", "--output", str(tmp_path)]
    assert main(["compare-encoders", *given, "--encoder", spec("vector"), "--labels", "sex"]) == 0
    assert "| labels | AUROC | sex |" in capsys.readouterr().out
    assert main(["compare-encoders", *given, "--encoder", spec("vector"), "--labels", "sax"]) == 2
    assert (
        "films.csv: no column 'sax' for labels, did you mean sex? It has image, patient_id" in capsys.readouterr().err
    )
    assert main(["compare-encoders", *given, "--encoder", "resnet50"]) == 2
    assert "an encoder is one of ours:..., timm:" in capsys.readouterr().err
    assert main(["compare-encoders", *given, "--encoder", spec("vector"), "--count", "-1"]) == 2
    assert "--count must be 0 or more, got -1" in capsys.readouterr().err
