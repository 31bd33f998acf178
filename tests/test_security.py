"""Files from strangers: nothing in them runs, the refusal names the file, and no header decides on a path.

Checkpoints of every kind of pickle: `test_checkpoints.py`. Zips that lead out of their folder: `test_bundle_files.py`.
"""

from __future__ import annotations

import ast
import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
import torch
from monai.bundle import load as monai_load
from monai.inferers import SimpleInferer
from monai.transforms import Activationsd

import cxw_monai
from cxw_monai.data.cache import build_cache
from cxw_monai.data.store import CacheError, RadiographCache
from cxw_monai.inference.pseudo_labels import Committee
from cxw_monai.inference.run import FilmSegmenter
from cxw_monai.io import read_radiograph
from cxw_monai.metrics.descriptors import load_descriptors
from cxw_monai.packaging.contents import stage_bundle
from cxw_monai.training.checkpoint_files import CheckpointFiles, read_checkpoint
from cxw_monai.transforms.whole_film import WholeFilmd
from cxw_monai.weights.encoder import load_encoder
from cxw_monai.weights.segmenter import load_segmenter, new_segmenter, read_settings, segmenter_settings
from tests.helpers import dicom_files as _files

PROJECT = Path(__file__).resolve().parents[1]
SEGMENTATION = PROJECT / "bundles" / "chexworld_segmentation"


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return exec, (f"open({str(self.marker)!r}, 'w').close()",)


def as_bundle(path: Path) -> Path:
    """A bundle's folder whose weights are this file."""
    bundle = path.parent / "chexworld_segmentation"
    shutil.copytree(SEGMENTATION / "configs", bundle / "configs")
    (bundle / "models").mkdir()
    shutil.copy(path, bundle / "models" / "model.pt")
    return bundle


def load_zip(path: Path) -> None:
    bundle = as_bundle(path)
    shutil.make_archive(str(path.parent / "model"), "zip", bundle.parent, bundle.name)
    cxw_monai.load(path.parent / "model.zip")


def resume(path: Path) -> None:
    shutil.copy(path, path.parent / "checkpoint_epoch=1.pt")
    CheckpointFiles(path.parent).newest()


PLACES: dict[str, Callable[[Path], object]] = {
    "segmenter": load_segmenter,
    "segmenter's settings": read_settings,
    "encoder of a segmentation": lambda path: segmenter_settings(["lung"], encoder_ckpt=path),
    "encoder to embed": load_encoder,
    "pseudo-labels": lambda path: Committee([path]),
    "API, a file": cxw_monai.load,
    "API, a folder": lambda path: cxw_monai.load(as_bundle(path)),
    "API, a zip": load_zip,
    "package": lambda path: stage_bundle(SEGMENTATION, path.parent / "staged", path),
    "resume from a file": read_checkpoint,
    "resume from a folder": resume,
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["torch", "legacy", "pickle", "safetensors"])
def test_a_malicious_checkpoint_is_refused_by_name(tmp_path, place, kind):
    marker = tmp_path / "it_ran"
    content = {"model": {"encoder.patch_embed.proj.weight": Bomb(marker)}, "settings": Bomb(marker)}
    path = tmp_path / ("model.safetensors" if kind == "safetensors" else "model.pt")
    if kind in ("torch", "legacy"):
        torch.save(content, path, _use_new_zipfile_serialization=kind == "torch")
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError) as raised:
        PLACES[place](path)
    assert not marker.exists()
    message = str(raised.value)
    assert "\n" not in message
    assert any(name in message for name in ("model.pt: ", "model.safetensors: ", "checkpoint_epoch=1.pt: ")), message


def test_the_bomb_is_one(tmp_path):
    torch.save({"model": Bomb(tmp_path / "it_ran")}, tmp_path / "model.pt")
    torch.load(tmp_path / "model.pt", weights_only=False)
    assert (tmp_path / "it_ran").exists()


def test_monai_refuses_it_too(tmp_path):
    """`monai.bundle.load` reads the weights by itself."""
    torch.save({"model": Bomb(tmp_path / "it_ran")}, tmp_path / "model.pt")
    bundle = as_bundle(tmp_path / "model.pt")
    with pytest.raises(pickle.UnpicklingError):
        monai_load(bundle.name, bundle_dir=tmp_path, workflow_type="inference", device="cpu")
    assert not (tmp_path / "it_ran").exists()


def test_arrays_of_objects_are_refused_by_name(tmp_path):
    path = tmp_path / "embeddings.npz"
    bombs = np.array([Bomb(tmp_path / "it_ran")], dtype=object)
    np.savez(path, embeddings=bombs, image=bombs)
    with pytest.raises(ValueError, match=r"embeddings.npz: .*allow_pickle"):
        load_descriptors(path)
    assert not (tmp_path / "it_ran").exists()


def test_a_cache_of_pickles_is_refused_by_name(tmp_path, radiograph_folder):
    items = [{"image": str(path)} for path in sorted(radiograph_folder.glob("*.png"))]
    folder = build_cache(items, tmp_path / "cache", size=64).folder
    for path in [each for each in folder.iterdir() if each.is_file()]:
        whole = path.read_bytes()
        path.write_bytes(pickle.dumps(Bomb(tmp_path / "it_ran")))
        with pytest.raises(CacheError, match=folder.name):
            RadiographCache(folder).verify()
        path.write_bytes(whole)
    RadiographCache(folder).verify()
    assert not (tmp_path / "it_ran").exists()


def test_a_pickle_is_no_film(tmp_path):
    (tmp_path / "film.dcm").write_bytes(pickle.dumps(Bomb(tmp_path / "it_ran")))
    with pytest.raises(ValueError, match="film.dcm"):
        read_radiograph(tmp_path / "film.dcm")
    assert not (tmp_path / "it_ran").exists()


def calls(tree: ast.AST) -> Iterator[tuple[str, dict[str, ast.expr]]]:
    """Each call's dotted name and its keywords."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {keyword.arg or "": keyword.value for keyword in node.keywords}


def unsafe(name: str, keywords: dict[str, ast.expr]) -> bool:
    """Whether a call may run what a file says."""
    last = name.rsplit(".", 1)[-1]
    if name == "torch.load":
        return ast.unparse(keywords.get("weights_only", ast.Constant(None))) != "True"
    if name in ("np.load", "numpy.load"):
        return ast.unparse(keywords.get("allow_pickle", ast.Constant(None))) != "False"
    return name in (
        *("eval", "exec", "compile", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "marshal.loads"),
        *("pickle.load", "pickle.loads", "joblib.load", "cloudpickle.loads", "shelve.open", "__import__"),
    ) or (last == "extractall" or keywords.get("shell") is not None)


@pytest.mark.parametrize("part", ["cxw_monai", "scripts"])
def test_no_code_unpickles_evaluates_or_unpacks(part):
    files = sorted((PROJECT / part).rglob("*.py"))
    assert files
    found = [
        f"{path.relative_to(PROJECT)}: {name}"
        for path in files
        for name, keywords in calls(ast.parse(path.read_text(encoding="utf-8")))
        if unsafe(name, keywords)
    ]
    assert found == []


@pytest.mark.parametrize(
    "call",
    [
        *("torch.load(p)", "torch.load(p, weights_only=False)", "np.load(p)", "np.load(p, allow_pickle=True)"),
        *("pickle.load(f)", "z.extractall(p)", "run(c, shell=True)"),
    ],
)
def test_that_search_finds_them(call):
    assert [unsafe(name, keywords) for name, keywords in calls(ast.parse(call))] == [True]


def test_no_path_comes_from_a_header(tmp_path):
    """Names in a header that would lead out of the output, or name a patient, are in no path that is written."""
    way_out = "../../escaped"
    film = np.tile(np.arange(64, dtype=np.uint16) * 50, (64, 1))
    absolute = Path(tempfile.gettempdir()) / f"escaped_{uuid4().hex}"
    headers = {"PatientName": way_out, "PatientID": str(absolute), "SeriesDescription": way_out, "StudyID": "../.."}
    uids = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4", "Modality": "DX"}
    (tmp_path / "films").mkdir()
    path = _files.write_dicom(tmp_path / "films" / "film.dcm", film, bits=12, **uids, **headers)
    torch.manual_seed(0)
    settings = segmenter_settings(["lung_left", "lung_right", "heart"], image_size=64, size="tiny", base_channels=4)
    FilmSegmenter(
        [str(path)],
        path,
        tmp_path / "a" / "b" / "out",
        network=new_segmenter(settings).eval(),
        structures=settings.structures,
        preprocessing=WholeFilmd(64),
        inferer=SimpleInferer(),
        postprocessing=Activationsd("pred", sigmoid=True),
    ).run()
    written = [each.relative_to(tmp_path).as_posix() for each in tmp_path.rglob("*") if each.is_file()]
    assert {name for name in written if not name.startswith("a/b/out/")} == {"films/film.dcm"}
    assert "a/b/out/film/segmentation.dcm" in written and not [name for name in written if "escaped" in name]
    assert not list(absolute.parent.glob(f"{absolute.name}*"))
