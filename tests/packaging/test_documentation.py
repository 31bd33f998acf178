"""The code in docs/deployment.md runs as it stands, and says what the package says."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from pydicom.data import get_testdata_file

import cxw_monai
from cxw_monai.io import read_radiograph
from cxw_monai.weights.bundles import extract_bundle

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "deployment.md"
SECTIONS = [section.partition("\n") for section in GUIDE.read_text(encoding="utf-8").split("\n## ")[1:]]
BLOCKS = [(title, text.split("```python\n")[1].split("```")[0]) for title, _, text in SECTIONS if "```python" in text]


@pytest.fixture
def elsewhere(package, tmp_path, monkeypatch) -> Path:
    """A folder with a film and the unpacked package."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(get_testdata_file("RG1_UNCR.dcm", download=False), "film.dcm")
    return extract_bundle(package, tmp_path / "bundles")


def test_every_block_is_tried():
    tried = ["Three lines", "MONAI", "TorchScript", "ONNX", "A film's pixels without this package"]
    assert [title for title, _ in BLOCKS] == tried
    assert GUIDE.read_text(encoding="utf-8").count("```python") == len(BLOCKS)


def run(title: str, **names: object) -> dict[str, object]:
    """A section's code; `names` replace the lines that say `yours`."""
    code = dict(BLOCKS)[title]
    for name, value in names.items():
        code, count = re.subn(rf"^{name} = .*# yours.*$", f"{name} = _given", code, flags=re.M)
        assert count == 1
        names = {"_given": value}
    exec(compile(code, f"deployment.md: {title}", "exec"), names)
    return names


def test_three_lines(elsewhere):
    masks = run("Three lines")["masks"]
    assert masks["heart"].shape == read_radiograph("film.dcm").array.shape[1:] and masks["heart"].any()


def test_monai(elsewhere):
    run("MONAI")
    assert len(list(Path("results/film/masks").glob("*.png"))) == 6
    assert Path("results/film/segmentation.dcm").is_file()


def test_a_film_read_by_hand_through_torchscript_and_onnx(elsewhere):
    film = run("A film's pixels without this package")["film"]
    np.testing.assert_allclose(film[0], read_radiograph("film.dcm").array, atol=1e-6)
    import torch

    expected = np.stack(list(cxw_monai.load(elsewhere).probabilities("film.dcm").values()))
    script = run("TorchScript", film=torch.from_numpy(film))
    np.testing.assert_allclose(script["probabilities"][0].numpy(), expected, atol=1e-4, rtol=0)
    assert script["mask"].shape == expected.shape[1:]
    onnx = run("ONNX", film=film)
    np.testing.assert_allclose(onnx["probabilities"][0], expected, atol=1e-4, rtol=0)
