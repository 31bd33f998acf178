"""Exported models in processes that have nothing of this package: the package's own answer on a film."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import load_net_with_metadata
from pydicom.data import get_testdata_file

import cxw_monai
from cxw_monai.io import read_radiograph
from cxw_monai.networks import RadiographEmbedder, radiograph_vit
from cxw_monai.packaging.export import export_onnx, export_torchscript

BLOCKER = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {refused}:
            raise ImportError("not installed here: " + name)
sys.meta_path.insert(0, Refuse())
"""
OURS = {"cxw_monai", "monai", "ignite", "scipy", "pydicom", "safetensors", "PIL"}
TORCH_ONLY = """
import numpy as np, torch
model = torch.jit.load(sys.argv[1]).eval()
with torch.no_grad():
    answers = [model(torch.from_numpy(films)).numpy() for films in np.load(sys.argv[2]).values()]
np.savez(sys.argv[3], *answers)
"""
ONNX_ONLY = """
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
answers = [session.run(None, {"image": films})[0] for films in np.load(sys.argv[2]).values()]
np.savez(sys.argv[3], *answers)
"""


def elsewhere(code: str, refused: set[str], model: Path, batches: list[np.ndarray], folder: Path) -> list[np.ndarray]:
    """Run an exported model on batches of films in a process that refuses to import some packages."""
    np.savez(folder / "films.npz", *batches)
    files = [str(model), str(folder / "films.npz"), str(folder / "answers.npz")]
    script = BLOCKER.format(refused=refused) + code
    done = subprocess.run([sys.executable, "-I", "-c", script, *files], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr[-2000:]
    return list(np.load(folder / "answers.npz").values())


@pytest.fixture(scope="module")
def film() -> np.ndarray:
    """Every sixth pixel of a real film, float32 `[1, H, W]`."""
    path = get_testdata_file("RG1_UNCR.dcm", download=False)
    return np.ascontiguousarray(read_radiograph(path).array[:, ::6, ::6])


@pytest.fixture(scope="module")
def encoder_weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("encoder") / "encoder.pt"
    torch.manual_seed(0)
    torch.save(RadiographEmbedder(radiograph_vit("tiny", image_size=96)).state_dict(), path)
    return path


@pytest.fixture(scope="module", params=["segmentation", "embeddings"])
def exported(request, film, encoder_weights, tmp_path_factory):
    """Folder with both files, and what the package answers to a film."""
    segments = request.param == "segmentation"
    model = cxw_monai.load("chexworld_segmentation" if segments else encoder_weights, amp="none")
    folder = tmp_path_factory.mktemp(request.param)
    export_torchscript(model.film_model(), folder / "model.ts", {"version": "1.2.3"})
    export_onnx(model.film_model(), folder / "model.onnx", {"version": "1.2.3"})

    def answer(array: np.ndarray) -> np.ndarray:
        return np.stack(list(model.probabilities(array).values())) if segments else model.embed(array)

    return folder, answer


@pytest.mark.parametrize(
    ("file", "code", "refused"),
    [("model.ts", TORCH_ONLY, OURS), ("model.onnx", ONNX_ONLY, OURS | {"torch", "onnx"})],
)
def test_the_packages_own_answer_on_films_of_any_size(exported, film, file, code, refused, tmp_path):
    folder, answer = exported
    batches = [film[None], film[None, :, : film.shape[1] // 2, 5:], np.stack([film, 1 - film, film])]
    found = elsewhere(code, refused, folder / file, batches, tmp_path)
    for films, answers in zip(batches, found, strict=True):
        assert len(answers) == len(films)
        for one, its_answer in zip(films[:2], answers, strict=False):
            np.testing.assert_allclose(its_answer, answer(one), atol=1e-4, rtol=0)
    assert np.abs(found[2][0] - found[2][1]).max() > 1e-2


def test_the_blocker_refuses(tmp_path):
    with pytest.raises(AssertionError, match="not installed here: monai"):
        elsewhere("import monai", OURS, tmp_path / "no.ts", [], tmp_path)


def test_nothing_tells_where_they_were_made(exported):
    home = str(Path(cxw_monai.__file__).parents[1]).encode()
    for name in ("model.ts", "model.onnx"):
        assert home not in (exported[0] / name).read_bytes()


def test_the_metadata_are_inside(exported):
    onnx = pytest.importorskip("onnx")
    folder, _ = exported
    assert load_net_with_metadata(str(folder / "model.ts"))[1]["version"] == "1.2.3"
    model = onnx.load(folder / "model.onnx")
    onnx.checker.check_model(model)
    (entry,) = [each for each in model.metadata_props if each.key == "metadata"]
    assert json.loads(entry.value)["version"] == "1.2.3"
