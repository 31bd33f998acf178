"""Where a run's settings come from: the workflow that is being initialised, its files, and the texts in them."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from pydoc import locate
from typing import Any

import yaml
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.bundle.scripts import create_workflow, run
from monai.utils import ensure_tuple

from cxw_monai.training.errors import runs_bundle_command

from .command_line import CommandLine, typed

__all__ = ["Source", "calling_source", "settings_classes"]


_COMMANDS = (create_workflow.__code__, run.__code__)
"""MONAI's functions that know the files and overrides of a workflow."""


@dataclass
class Source:
    """Settings of a run and where they come from.

    Attributes:
        parser: the parsed config, all files and overrides merged.
        workflow: whose it is, if any.
        files: the config files, in their order, where they are known.
        args_file: MONAI's file of default arguments, if any.
        overrides: what the command line, the `args_file` or a program gave beside the files.
        command: the command line, of `python -m monai.bundle` alone.
    """

    parser: ConfigParser
    workflow: ConfigWorkflow | None = None
    files: tuple[Path, ...] = ()
    args_file: Path | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    command: CommandLine = field(default_factory=lambda: CommandLine({}, (), ()))

    @property
    def config(self) -> dict[str, Any]:
        """The merged config's top-level entries."""
        return self.parser.get()

    @cached_property
    def base(self) -> dict[str, dict[str, Any]]:
        """The bundle's own config files by name: the JSON files beside the first one given, but for its metadata."""
        folder = None if self.workflow is None else Path(self.workflow.config_root_path)
        found = sorted(folder.glob("*.json")) if folder is not None else []
        read = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in found}
        configs = {name: content for name, content in read.items() if isinstance(content, dict)}
        return {name: content for name, content in configs.items() if "monai_version" not in content}

    @property
    def kinds(self) -> list[Any]:
        """Settings classes of all the bundle's commands."""
        return settings_classes(self.base.values())

    @cached_property
    def given(self) -> dict[Path, dict[str, Any]]:
        """The given files' entries as their texts."""
        return {path: texts_of(path) for path in self.files}

    def text(self, name: str) -> Any:
        """The text of a setting as it was written, or a list of texts; None where it isn't known."""
        if name in self.command.values:
            return self.command.values[name]
        if self.args_file is not None and name in (written := texts_of(self.args_file)):
            return written[name]
        if name in self.overrides:  # a program's, which needs no text
            return None
        return next((entries[name] for entries in reversed(self.given.values()) if name in entries), None)

    def origin(self, name: str) -> str:
        """Where a top-level entry was given, for an error."""
        options = (*self.command.values, *self.command.bare)
        if any(option.split("::")[0] == name for option in options):
            return "on the command line"
        for path in (*(() if self.args_file is None else (self.args_file,)), *reversed(self.files)):
            if any(root(entry) == name for entry in (self.given.get(path) or texts_of(path))):
                return f"in {path}"
        return "in the settings"


def settings_classes(configs: Iterable[Mapping[str, Any]]) -> list[Any]:
    """The classes that configs' `settings` entries name, each once."""
    entries = [content.get("settings") for content in configs]
    targets = [entry.get("_target_") for entry in entries if isinstance(entry, dict)]
    classes = [locate(target.removesuffix(".of_config")) for target in targets if isinstance(target, str)]
    return [one for one in dict.fromkeys(classes) if hasattr(one, "model_fields")]


def root(entry: Any) -> str:
    """The top-level name that an entry of a file belongs to: `validate` of `validate#cache` or `+validate`."""
    return str(entry).removeprefix("+").replace("#", "::").split("::")[0]


def texts_of(path: Path) -> dict[str, Any]:
    """A YAML or JSON file's entries, all scalars but JSON's true, false and null as their texts."""
    if path.suffix.lower() == ".json":
        return json.loads(path.read_text(encoding="utf-8"), parse_int=str, parse_float=str, parse_constant=str)
    return yaml.BaseLoader(path.read_text(encoding="utf-8")).get_single_data() or {}


def calling_source() -> Source:
    """The source of the config that is being evaluated: of one of its expressions, this is called.

    MONAI hands its expressions neither the parser nor the workflow; both are found on the stack of calls.

    Raises:
        RuntimeError: no config is being evaluated.
    """
    parser = workflow = None
    made: dict[str, Any] = {}
    for place, function in _calls():
        own = place.get("self")
        if parser is None and isinstance(own, ConfigParser):
            parser = own
        elif workflow is None and isinstance(own, ConfigWorkflow) and own.parser is parser:
            workflow = own
        elif function in _COMMANDS and not made:
            made = place
    if parser is None:
        raise RuntimeError("no bundle's config is being evaluated")
    args_file = made.get("args_file")
    return Source(
        parser,
        workflow,
        tuple(Path(path) for path in _listed(made.get("config_file"))),
        Path(args_file) if isinstance(args_file, str) else None,
        dict(made.get("_args") or made.get("override") or {}),
        typed() if runs_bundle_command() else CommandLine({}, (), ()),
    )


def _listed(config_file: Any) -> tuple[str, ...]:
    """Paths as `ConfigParser.load_config_files` takes them."""
    if isinstance(config_file, str) and not Path(config_file).is_file() and "," in config_file:
        return tuple(config_file.split(","))
    return () if config_file is None or isinstance(config_file, dict) else tuple(map(str, ensure_tuple(config_file)))


def _calls() -> Iterator[tuple[dict[str, Any], Any]]:
    """Local names and code of the calls that led here, from the inside out."""
    frame = inspect.currentframe()
    while frame is not None:
        yield frame.f_locals, frame.f_code
        frame = frame.f_back
