"""Which room may import which: the structure of the package, read from its source."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import cxw_monai

ROOT = Path(cxw_monai.__file__).parent

ORDER = (
    *("io", "data", "losses", "transforms", "networks", "weights", "quality", "training", "settings", "inference"),
    *("metrics", "tasks", "retrieval", "packaging"),
)
"""A room may import those before it."""

ALONE = {
    "datasets": {"io", "data"},
    "rendering": {"io", "data"},
    "label": {*ORDER} - {"packaging"},
    "service": {*ORDER} - {"packaging"},
}
"""Rooms that only the command line imports, and what they may import."""

ENTRANCES = ("__init__", "__main__", "cli")
"""What may import every room, and is imported by none."""

FOR_ALL = ("_moved",)
"""What every room may import."""

ALLOWED = {room: set(ORDER[:place]) for place, room in enumerate(ORDER)} | ALONE


def room_of(path: Path) -> str:
    """The folder below the package, or the module's own name."""
    if path.name == "__main__.py":
        return "__main__"
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def nodes(tree: ast.AST, lazy: bool) -> Iterator[ast.AST]:
    """All nodes but those under ``if TYPE_CHECKING``, and in functions only with ``lazy``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if lazy or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node
            yield from nodes(node, lazy)


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split(".")[1:])
    return path.is_dir() or path.with_suffix(".py").is_file()


def imports(path: Path, lazy: bool = True) -> Iterator[tuple[int, str]]:
    """Line and full name of every module of this package that a file imports."""
    package = ("cxw_monai", *path.relative_to(ROOT).parts[:-1])
    for node in nodes(ast.parse(path.read_text(encoding="utf-8")), lazy):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *filter(None, [node.module])))
            whole = [f"{module}.{alias.name}" for alias in node.names]
            names = [name if is_module(name) else module for name in whole] if module.startswith("cxw_monai") else []
        yield from ((node.lineno, name) for name in dict.fromkeys(names) if name.startswith("cxw_monai."))


FILES = sorted(ROOT.rglob("*.py"))


def test_every_room_has_its_place():
    rooms = {room_of(path) for path in FILES}
    assert rooms - {*ENTRANCES, *FOR_ALL} == set(ALLOWED)


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_what_lies_below_it(room):
    """So there is no circle of rooms either: the order is one line."""
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in FILES
        if room_of(path) == room
        for line, name in imports(path)
        if name.split(".")[1] not in {room, *FOR_ALL, *ALLOWED[room]}
    ]
    assert not wrong, f"{room} may import {', '.join(sorted(ALLOWED[room])) or 'no other room'}: {'; '.join(wrong)}"


def test_no_module_imports_itself_through_others():
    names = {".".join(("cxw_monai", *path.relative_to(ROOT).with_suffix("").parts)): path for path in FILES}
    graph = {
        name.removesuffix(".__init__"): {other for _, other in imports(path, lazy=False)}
        for name, path in names.items()
    }
    try:
        graphlib.TopologicalSorter({name: needs - {name} for name, needs in graph.items()}).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"modules import each other in a circle: {' <- '.join(error.args[1])}")
