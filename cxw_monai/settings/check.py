"""The one check of a bundle's settings, before any work."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any
from weakref import WeakSet

import torch
from monai.bundle import ConfigParser
from monai.bundle.config_item import ConfigItem

from cxw_monai.training.errors import install_error_hook

from .kinds import Kind, SettingError, Text
from .names import check_names, nearest, without_effect
from .schema import kind_of
from .source import Source, calling_source

__all__ = ["check_settings"]

logger = logging.getLogger(__name__)

_DASHES = "\N{EN DASH}\N{EM DASH}\N{HYPHEN}\N{MINUS SIGN}\N{NON-BREAKING HYPHEN}\N{FIGURE DASH}"
_PROGRAM = ("$", "@", "%")
_checked: WeakSet[ConfigParser] = WeakSet()


def check_settings(unless_done: bool = False) -> None:
    """Check all settings of the config that calls this in its `initialize`, and put their values in order.

    Unknown names are refused (`check_names`). A value that is a number, path, flag or list in another dress (`5e-4` in
    YAML, a folder called `2024_01_02`) becomes what is meant; see `schema`.

    Args:
        unless_done: not again; for `run`, since MONAI leaves out an `initialize` that it is given another name for, as
            by a stray word on the command line.

    Raises:
        SettingError: a setting is unknown, or not what it must be.
    """
    source = calling_source()
    if unless_done and source.parser in _checked:
        return
    if sys.excepthook is sys.__excepthook__:
        install_error_hook()
    _check_command_line(source)
    check_names(source)
    _check_values(source)
    _check_ids(source)
    for name in without_effect(source):
        logger.warning("--%s has no effect on this run: nothing in its config files refers to it.", name)
    _checked.add(source.parser)


def defaults(source: Source) -> dict[str, Any]:
    """The bundle's own value of each entry; of the given files' first, where several have it."""
    names = [path.name for path in source.files if path.name in source.base]
    merged: dict[str, Any] = {}
    for name in (*names, *source.base):
        merged = {**source.base[name], **merged}
    return merged


def _check_command_line(source: Source) -> None:
    """What Fire takes without a word: options without a value, and arguments that are no options.

    Raises:
        SettingError: there is such a one.
    """
    known = defaults(source)
    for name in source.command.bare:
        flag = kind_of(name, known.get(name))
        if flag is not None and _takes_true(flag) and name[:2] != "no":  # Fire reads --normalise as false for rmalise
            continue
        opposite = kind_of(name[2:], known.get(name[2:])) if name[:2] == "no" and name not in known else None
        if opposite is not None and _takes_true(opposite):  # --noresume
            continue
        if "::" in name and name in source.parser:
            continue
        unknown = "." if name in known else f", and the bundle has no such setting{nearest(name, known)}"
        raise SettingError(
            f"--{name} has no value{unknown} Give --NAME VALUE, or --NAME=VALUE where the value begins with a hyphen."
        )
    for text in source.command.positional[1:]:
        if text in source.parser or Path(text).is_file():  # MONAI's own: ids to initialise and finalise, files
            continue
        name = text.strip(_DASHES + "-").partition("=")[0].replace("-", "_")
        option = f" (it begins with {text[0]!r}, which is no hyphen)" if text[0] in _DASHES else ""
        raise SettingError(
            f"{text!r} on the command line is no option{option}{nearest(name, known)} Give settings as --NAME VALUE."
        )


def _takes_true(kind: Any) -> bool:
    try:
        return kind.read("", True) is True
    except SettingError:
        return False


def _check_values(source: Source) -> None:
    """Hold each plain value to its kind, and put what is meant in its place.

    Raises:
        SettingError: a value isn't of its kind.
    """
    known = defaults(source)
    for name, value in list(source.config.items()):
        kind = kind_of(name, known.get(name))
        written = _written(source, name, value, kind)
        if _is_program(written):
            continue
        if kind is None and _is_component(known.get(name)) and isinstance(written, (str, int, float)):
            plain = [one for one, default in known.items() if kind_of(one, default) is not None]
            longer = [one for one in plain if one.startswith(name)]
            raise SettingError(
                f"{name} (given {source.origin(name)}) is a component of the program, for which {written!r} can't "
                f"stand{nearest(name, longer or plain)}"
            )
        if name == "device":
            meant = _device(written)
        elif kind is not None:
            meant = kind.read(name, written)
        else:
            continue
        if type(meant) is not type(value) or meant != value:
            _put(source.parser, name, meant)


def _written(source: Source, name: str, value: Any, kind: Kind | None) -> Any:
    """A value as it was written, where parsing may have lost that: texts, and lists of texts of a file."""
    text = source.text(name)
    if kind is None or name in source.command.bare or (isinstance(text, str) and text.startswith(_PROGRAM)):
        return value
    if isinstance(value, (list, tuple, dict)) and not isinstance(kind, Text):  # the text of a list says no more
        whole = isinstance(text, list) and len(text) == len(value) and all(isinstance(one, str) for one in text)
        return text if whole else value
    return text if isinstance(text, str) else value


def _is_program(value: Any) -> bool:
    """Whether a value is a part of the program rather than a plain one: an expression, a component, a list of such."""
    if isinstance(value, dict):
        return "_target_" in value or any(map(_is_program, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(_is_program, value))
    return isinstance(value, str) and value.startswith(_PROGRAM)


def _is_component(default: Any) -> bool:
    return isinstance(default, dict) and "_target_" in default


def _device(value: Any) -> torch.device:
    with suppress(RuntimeError, TypeError):
        return torch.device(value)
    raise SettingError(f"device must be a device of torch, such as cpu or cuda:0, got {value!r}.")


def _put(parser: ConfigParser, name: str, value: Any) -> None:
    """Set an entry of a parsed config to a plain value, as resolved: what MONAI resolves has `::` for each `#`."""
    parser.get()[name] = value
    items = parser.ref_resolver.items
    for id in [id for id in items if id == name or id.startswith(f"{name}::")]:
        del items[id]
        parser.ref_resolver.remove_resolved_content(id)
    parts = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ()
    for id, part in ((name, value), *((f"{name}::{key}", part) for key, part in parts)):
        parser.ref_resolver.add_item(ConfigItem(config=part, id=id))
        parser.ref_resolver.resolved_content[id] = part


def _check_ids(source: Source) -> None:
    """What MONAI is to run must be there, and be something to run.

    Raises:
        SettingError: it isn't.
    """
    workflow = source.workflow
    if workflow is None or workflow.run_id in source.parser:
        return
    places = [name for name, entries in source.base.items() if workflow.run_id in entries]
    hint = f"; configs/{places[0]} has it." if places else nearest(workflow.run_id, _runnable(source))
    raise SettingError(f"nothing called {workflow.run_id!r} to run in the config files that were given{hint}")


def _runnable(source: Source) -> list[str]:
    """Names of what can be run in the bundle's files."""
    return [name for entries in source.base.values() for name, value in entries.items() if value == "%run"]
