"""The wheel and the sdist: all modules, data and bundles, nothing else; the README's code works in the wheel alone."""

from __future__ import annotations

import os
import re
import shutil
import site
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
import setuptools
from PIL import Image
from pydicom.data import get_testdata_file

PROJECT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(
    int(setuptools.__version__.split(".")[0]) < 77,
    reason=f"setuptools {setuptools.__version__} is too old to build this package: pip install 'setuptools>=77'",
)


LEFTOVERS = (
    "bundles/chexworld_segmentation/output/metrics.csv",
    "bundles/chexworld_segmentation/models/own.pt",
    "bundles/chexworld_segmentation/configs/.hidden.json",
    "bundles/scratch/notes.json",
    "build/lib/cxw_monai/removed.py",
)
"""What work in a checkout may leave behind."""


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A copy of what a build needs, so that no build leaves anything in the project, and of what it doesn't need."""
    folder = tmp_path_factory.mktemp("source")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(PROJECT / "cxw_monai", folder / "cxw_monai", ignore=ignored)
    shutil.copytree(PROJECT / "tests" / "packaging", folder / "tests" / "packaging", ignore=ignored)
    shutil.copytree(PROJECT / "benchmarks", folder / "benchmarks", ignore=ignored)
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, folder)
    for file in bundle_files():
        place = folder / file.relative_to(PROJECT)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place)
    for name in LEFTOVERS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("left")
    return folder


WEIGHTS = ("model", "shenzhen_tuberculosis", "view_position")


def bundle_files() -> list[Path]:
    """Every file that belongs to a bundle."""
    parts = ("LICENSE", "configs/**/*", "docs/**/*", "models/README.md", *(f"models/{name}.pt" for name in WEIGHTS))
    found = [file for part in parts for file in sorted((PROJECT / "bundles").glob(f"*/{part}"))]
    return [file for file in found if file.is_file() and not file.name.startswith(".")]


def build(source: Path, kind: str) -> Path:
    """Build with the backend itself: no network."""
    code = f"from setuptools import build_meta; print(build_meta.build_{kind}('dist'))"
    (source / "dist").mkdir(exist_ok=True)
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return source / "dist" / done.stdout.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(source) -> Path:
    return build(source, "wheel")


def expected(source: Path) -> set[str]:
    """Every file of the package: modules, templates, numbers, schemas; and the bundles."""
    own = {path.relative_to(source).as_posix() for path in (source / "cxw_monai").rglob("*") if path.is_file()}
    return own | {f"cxw_monai/{file.relative_to(PROJECT).as_posix()}" for file in bundle_files()}


def test_the_wheel_holds_the_package_and_its_data(source, wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        notices = [name for name in archive.namelist() if name.endswith("licenses/LICENSE")]
    assert names == expected(source)
    assert len(notices) == 1
    assert wheel.stat().st_size < 80e6  # weights are 72 MB
    assert sum(name.endswith(".pt") for name in names) == 5
    assert {name.partition("/")[0] for name in names} == {"cxw_monai"}  # no benchmarks, no tests
    data = {"py.typed", "quality/film_model.npz", "packaging/metadata_schema.json"}
    assert {f"cxw_monai/{name}" for name in data} <= names
    pages = {path.relative_to(PROJECT).as_posix() for path in (PROJECT / "cxw_monai").rglob("*.j2")}
    assert {name for name in names if name.endswith(".j2")} == pages


def test_the_sdist_builds_the_same_wheel(source, wheel, tmp_path):
    with tarfile.open(build(source, "sdist")) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    assert not [name for name in LEFTOVERS if (folder / name).exists()]
    again = build(folder, "wheel")
    assert again.name == wheel.name
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(again) as second:
        names = [name for name in first.namelist() if not name.endswith("RECORD")]
        assert sorted(first.namelist()) == sorted(second.namelist())
        assert all(first.read(name) == second.read(name) for name in names)


def install(wheel: Path, folder: Path) -> Path:
    """The Python of an environment with a wheel and the libraries of this one, without checkout or editable install."""
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    own = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(own)
    # Folders that a .pth file names are searched, but their own .pth files, such as an editable install's, don't count.
    libraries = dict.fromkeys([*site.getsitepackages(), str(Path(np.__file__).parents[1])])
    (own / "libraries.pth").write_text("\n".join(libraries))
    return python


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    return install(wheel, tmp_path_factory.mktemp("environment"))


def run(python: Path, *arguments: str | Path, cwd: Path) -> str:
    """What a program printed; its own folder and `PYTHONPATH` are not searched."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [python, *arguments], cwd=cwd, env=environment | {"PYTHONSAFEPATH": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture
def films(tmp_path) -> Path:
    """A folder with `film.dcm` and a smaller film."""
    shutil.copy(get_testdata_file("RG1_UNCR.dcm", download=False), tmp_path / "film.dcm")
    Image.fromarray(np.tile(np.arange(96, dtype=np.uint8), (80, 1))).save(tmp_path / "small.png")
    return tmp_path


BLOCKS = re.findall(r"```python\n(.*?)```", (PROJECT / "README.md").read_text(encoding="utf-8"), flags=re.S)


def test_the_readmes_python_works_with_the_wheel_alone(installed, films):
    assert len(BLOCKS) == 2
    checks = """
import sys, cxw_monai
from pathlib import Path
from cxw_monai.quality.film_model import default_model
home = Path(cxw_monai.__file__)
assert home.is_relative_to(sys.prefix), home
assert not [name for name in sys.path if Path(name, "bundles").is_dir()], sys.path
assert film.array.ndim == 3
assert len(masks) == 8 and masks["heart"].any() and masks["heart"].shape == film.array.shape[1:]
assert cxw_monai.load("chexworld_pretraining").embed("film.dcm").shape == (192,)
default_model()
print("all of it")
"""
    assert run(installed, "-c", "".join(BLOCKS) + checks, cwd=films).splitlines()[-1] == "all of it"


def test_the_bundles_of_a_wheel_run(installed, films):
    """As the README says: from anywhere, and from the bundle's folder as in a checkout; training finds its encoder."""
    bundle = Path(run(installed, "-m", "cxw_monai.weights.bundles", "chexworld_segmentation", cwd=films).strip())
    old = run(installed, "-m", "cxw_monai.bundle_files", "chexworld_segmentation", cwd=films)  # of version 0.1
    assert Path(old.strip()) == bundle
    assert bundle.is_relative_to(installed.parents[1])
    code = f"""
import os
from monai.bundle import run
from cxw_monai.weights.segmenter import segmenter_settings
own = {{"input": {str(films / "small.png")!r}, "formats": ["png"]}}
run("inference", config_file="{bundle}/configs/inference.json", bundle_root="{bundle}", output="there", **own)
for folder in (".", "{bundle}"):  # by its name, and beside it
    os.chdir(folder)
    assert segmenter_settings(["lung"], 160, encoder_ckpt="./../chexworld_pretraining").encoder_image_size == (160, 160)
run("inference", config_file="configs/inference.json", output={str(films / "here")!r}, **own)
"""
    run(installed, "-c", code, cwd=films)
    for name in ("there", "here"):
        assert len(list((films / name).rglob("masks/*.png"))) == 8


def test_an_editable_install_finds_the_bundles_of_the_checkout(source, tmp_path):
    link = build(source, "editable")
    assert link.stat().st_size < 1e6  # no second copy
    python = install(link, tmp_path)
    assert Path(run(python, "-m", "cxw_monai.weights.bundles", "chexworld_segmentation", cwd=tmp_path).strip()) == (
        source / "bundles" / "chexworld_segmentation"
    )
