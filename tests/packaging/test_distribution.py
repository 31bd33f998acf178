"""The wheel and the sdist of the package: all of its modules and data, nothing else, and it imports alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import setuptools

PROJECT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(
    int(setuptools.__version__.split(".")[0]) < 77,
    reason=f"setuptools {setuptools.__version__} is too old to build this package: pip install 'setuptools>=77'",
)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A copy of what a build needs, so that no build leaves anything in the project."""
    folder = tmp_path_factory.mktemp("source")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(PROJECT / "cxw_monai", folder / "cxw_monai", ignore=ignored)
    shutil.copytree(PROJECT / "tests" / "packaging", folder / "tests", ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, folder)
    return folder


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
    """Every file of the package: modules, templates, numbers, schemas."""
    return {path.relative_to(source).as_posix() for path in (source / "cxw_monai").rglob("*") if path.is_file()}


def test_the_wheel_holds_the_package_and_its_data(source, wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        notices = [name for name in archive.namelist() if name.endswith("licenses/LICENSE")]
    assert names == expected(source)
    assert len(notices) == 1
    assert {"cxw_monai/quality/film_model.npz", "cxw_monai/packaging/metadata_schema.json"} <= names
    assert sum(name.endswith(".j2") for name in names) == 2


def test_the_sdist_builds_the_same_wheel(source, wheel, tmp_path):
    with tarfile.open(build(source, "sdist")) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    again = build(folder, "wheel")
    assert again.name == wheel.name
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(again) as second:
        names = [name for name in first.namelist() if not name.endswith("RECORD")]
        assert sorted(first.namelist()) == sorted(second.namelist())
        assert all(first.read(name) == second.read(name) for name in names)


def test_it_imports_from_the_wheel_alone(wheel, tmp_path):
    """Unpacked in front of everything: the modules and data that are used are those of the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import cxw_monai; "
        "from cxw_monai.quality.film_model import default_model; default_model(); print(cxw_monai.__file__)"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith(str(tmp_path / "cxw_monai"))
