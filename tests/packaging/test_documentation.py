"""The documentation's commands, links and code are those of the package; docs/deployment.md runs as it stands."""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import textwrap
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from pydicom.data import get_testdata_file

import cxw_monai
from cxw_monai.cli import build_parser
from cxw_monai.io import read_radiograph
from cxw_monai.settings.source import settings_classes
from cxw_monai.weights.bundles import extract_bundle

PROJECT = Path(__file__).resolve().parents[2]
GUIDE = PROJECT / "docs" / "deployment.md"
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
    assert len(list(Path("results/film/masks").glob("*.png"))) == 8
    assert Path("results/film/segmentation.dcm").is_file()


def test_a_film_read_by_hand_through_torchscript_and_onnx(elsewhere):
    film = run("A film's pixels without this package")["film"]
    np.testing.assert_allclose(film[0], read_radiograph("film.dcm").array, atol=1e-6)
    import torch

    expected = np.stack(list(cxw_monai.load(elsewhere, amp="none").probabilities("film.dcm").values()))
    script = run("TorchScript", film=torch.from_numpy(film))
    np.testing.assert_allclose(script["probabilities"][0].numpy(), expected, atol=1e-4, rtol=0)
    assert script["mask"].shape == expected.shape[1:]
    onnx = run("ONNX", film=film)
    np.testing.assert_allclose(onnx["probabilities"][0], expected, atol=1e-4, rtol=0)


PAGES = [
    *(PROJECT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((PROJECT / "docs").glob("*.md")),
    *sorted((PROJECT / "bundles").glob("*/docs/*.md")),
]
"""What is written for people: the site's pages and the README."""


def pages(language: str) -> list[tuple[str, str]]:
    """Each code block of a language, with the page's path."""
    pattern = rf"^( *)```{language}\n(.*?)^\1```"
    return [
        (page.relative_to(PROJECT).as_posix(), textwrap.dedent(match[2]))
        for page in PAGES
        for match in re.finditer(pattern, page.read_text(encoding="utf-8"), flags=re.M | re.S)
    ]


def commands() -> list[tuple[str, list[str]]]:
    """Each command of the pages' shell blocks as words, with the page's path."""
    found = []
    for page, block in pages("bash"):
        for line in block.replace("\\\n", " ").splitlines():
            line = re.sub(r'"?\$\((.*)\)"?', r"x", line) if "=" not in line.split(" ")[0] else line
            words = shlex.split(line, comments=True)
            found += [(page, words)] if words else []
    return found


def written(*first: str) -> list[tuple[str, list[str]]]:
    """The pages' commands that begin with these words, the rest of each."""
    return [(page, words[len(first) :]) for page, words in commands() if tuple(words[: len(first)]) == first]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(PROJECT).as_posix())
def test_links_lead_to_files(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    assert not [link for link in links if "://" not in link and not (page.parent / link).is_file()]


def test_the_readme_is_short():
    assert len((PROJECT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize(("page", "words"), written("cxw-monai"), ids=str)
def test_commands_are_those_of_the_program(page, words, capsys):
    try:
        build_parser().parse_args(words)
    except SystemExit as end:
        assert end.code == 0, f"{page}: cxw-monai {' '.join(words)}\n{capsys.readouterr().err}"


@pytest.mark.parametrize(("page", "words"), written("python", "-m", "monai.bundle", "run"), ids=str)
def test_commands_of_bundles_name_files_and_settings_that_exist(page, words):
    run_id, *options = words
    given = dict(zip(options[::2], options[1::2], strict=True))
    files = yaml.safe_load(given.pop("--config_file"))
    files = [files] if isinstance(files, str) else files
    bundles = [bundle for bundle in sorted((PROJECT / "bundles").glob("*")) if of_bundle(bundle, files)]
    assert bundles, f"{page}: no bundle has {files}"
    assert run_id in ("training", "evaluating", "evaluating_world", "calibrating", "inference")
    given.pop("--bundle_root", None)
    assert any(set(given) <= {f"--{name}" for name in setting_names(bundle)} for bundle in bundles), f"{page}: {given}"


def of_bundle(bundle: Path, files: list[str]) -> bool:
    """Whether a bundle has these files."""
    return all((bundle / file.removeprefix("x/").removeprefix("$bundle/")).is_file() for file in files)


def setting_names(bundle: Path) -> set[str]:
    """The top-level names of a bundle's configs, and its settings."""
    configs = [json.loads(file.read_text(encoding="utf-8")) for file in bundle.glob("configs/*.json")]
    fields = {name for kind in settings_classes(configs) for name in kind.model_fields}
    return fields | {name for config in configs for name in config}


@pytest.mark.parametrize(
    ("page", "words"), [found for found in commands() if found[1][0] in ("python", "bash")], ids=str
)
def test_modules_and_scripts_exist(page, words):
    if words[1] == "-m":
        assert find_spec(words[2]), f"{page}: python -m {words[2]}"
    else:
        assert any((folder / words[1]).is_file() for folder in (PROJECT, PROJECT / "bundles" / "x")), f"{page}: {words}"


@pytest.mark.parametrize(("page", "code"), pages("python"), ids=str)
def test_python_of_the_pages_names_what_exists(page, code):
    """Every import of this package works; the code itself is executed where a test below says so."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cxw_monai") and not node.level:
            module = import_module(node.module)
            assert not [name.name for name in node.names if not hasattr(module, name.name)], page


@pytest.mark.parametrize("page", ["docs/films.md", "docs/inference.md"])
def test_python_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(get_testdata_file("RG1_UNCR.dcm", download=False), "film.dcm")
    names: dict[str, Any] = {}
    for code in (code for name, code in pages("python") if name == page):
        exec(compile(code, page, "exec"), names)
    film = names.get("film") or read_radiograph("film.dcm")
    assert film.array.ndim == 3
    if page == "docs/inference.md":
        assert names["masks"]["heart"].shape == film.array.shape[1:] and names["vector"].shape == (192,)


def test_the_tutorial_is_stored_without_results():
    notebook = json.loads((PROJECT / "docs" / "tutorial.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) > 5 and not any(cell["outputs"] or cell["execution_count"] for cell in cells)
