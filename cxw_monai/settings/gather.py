"""The settings of a run gathered out of its parsed config, and the one check of them before any work."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from monai.bundle import ConfigComponent, ConfigParser
from monai.bundle.config_item import ConfigItem
from pydantic import ValidationError

from cxw_monai.training.errors import install_error_hook

from .names import check_names, nearest, without_effect
from .source import Source, calling_source
from .types import SettingError

if TYPE_CHECKING:
    from .base import Settings

__all__ = ["gather"]

logger = logging.getLogger(__name__)

Kind = TypeVar("Kind", bound="Settings")
Owners = Mapping[str, "type[Settings]"]
"""By the name of a setting, the class that has it; the run's own where several have."""

_DASHES = "\N{EN DASH}\N{EM DASH}\N{HYPHEN}\N{MINUS SIGN}\N{NON-BREAKING HYPHEN}\N{FIGURE DASH}"
_PROGRAM = ("$", "@", "%")
_SUBJECT = re.compile(r"^(Value error, )?(Input|List|Dictionary|String|Value) should ")
_gathering: set[int] = set()
"""Parsers whose settings are being made."""


def gather(kind: type[Kind]) -> Kind:
    """Settings of the config that is being evaluated, whose `settings` entry calls this.

    Top-level entries that are fields of the class are checked, and their meanings put in their places, so that other
    entries may refer to them (`@lr`), also to those that no file names. Names that mean nothing are refused.

    Args:
        kind: the class of the run's settings.

    Raises:
        SettingError: a setting is unknown, or not what it must be.
    """
    source = calling_source()
    if id(source.parser) in _gathering:
        raise SettingError("a setting refers to @settings, which is made of it")
    if sys.excepthook is sys.__excepthook__:
        install_error_hook()
    _gathering.add(id(source.parser))
    try:
        owners = {name: one for one in (*source.kinds, kind) for name in one.model_fields}
        _check_command_line(source, owners)
        check_names(source, owners.keys())
        settings = _values(source, kind, owners)
        _check_run_id(source)
    finally:
        _gathering.discard(id(source.parser))
    for name in without_effect(source, owners.keys() - kind.model_fields.keys()):
        logger.warning("--%s has no effect on this run: nothing in its config files refers to it.", name)
    return settings


def _values(source: Source, kind: type[Kind], owners: Owners) -> Kind:
    """The settings, their values also in the parsed config.

    Raises:
        SettingError: a value is not what it must be.
    """
    lost = [name for name in source.command.values if name in owners and name not in source.config]  # --save_steps None
    plain = {name: _written(source, owners, name) for name in (*source.config, *lost)}
    plain = {name: value for name, value in plain.items() if not _is_program(value)}
    _check_components(source, owners, plain)
    for one in dict.fromkeys(owners.values()):
        given = {name: value for name, value in plain.items() if owners.get(name) is one}
        checked = _read(source, one, given)
        for name in given:
            _put(source.parser, name, getattr(checked, name))
            plain[name] = getattr(checked, name)
    own = {name: value for name, value in plain.items() if name in kind.model_fields}
    own |= {
        name: source.parser.get_parsed_content(name)
        for name in list(source.config)
        if name in kind.model_fields and name not in own
    }
    settings = _read(source, kind, own)
    for name in kind.model_fields:
        if name not in plain:
            _resolve(source.parser, name, getattr(settings, name))
    return settings


def _read(source: Source, kind: type[Kind], values: Mapping[str, Any]) -> Kind:
    try:
        return kind(**values)
    except ValidationError as error:
        refusal = _refusal(source, kind, values, error)
    raise SettingError(refusal)


def _refusal(source: Source, kind: type[Settings], values: Mapping[str, Any], error: ValidationError) -> str:
    """What is wrong with each refused setting: its value, what it must be, where it was given, what it is."""
    expected: dict[str, list[str]] = {}
    for detail in error.errors(include_url=False, include_context=False):
        if detail["type"] == "default_factory_not_called":  # of a default that is computed from the refused one
            continue
        place = [str(part) for part in detail["loc"][1:] if isinstance(part, int)]
        at = f"[{']['.join(place)}]" if place else ""
        phrase = _SUBJECT.sub("must ", detail["msg"])
        phrases = expected.setdefault(str(detail["loc"][0]), [])
        phrases += [text for text in [f"{at} {phrase}"] if text not in phrases]
    sentences = []
    for name, phrases in expected.items():
        optional = ", or null" if type(None) in get_args(kind.model_fields[name].annotation) else ""
        sentences.append(
            f"{name}{', or '.join(phrases)}{optional}, got {values.get(name)!r} (given {source.origin(name)}). "
            f"It is: {kind.model_fields[name].description}."
        )
    return " ".join(sentences)


def _takes_true(owners: Owners, name: str) -> bool:
    """Whether an option may stand without a value."""
    try:
        return name in owners and getattr(owners[name](**{name: True}), name) is True
    except ValidationError:
        return False


def _check_command_line(source: Source, owners: Owners) -> None:
    """What Fire takes without a word: options without a value, and arguments that are no options.

    Raises:
        SettingError: there is such a one.
    """
    known = owners.keys() | {name for content in source.base.values() for name in content}
    for name in source.command.bare:
        if name[:2] != "no" and _takes_true(owners, name):  # Fire reads --normalise as false for rmalise
            continue
        if name[:2] == "no" and name not in known and _takes_true(owners, name[2:]):  # --noresume
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


def _check_components(source: Source, owners: Owners, plain: Mapping[str, Any]) -> None:
    """Refuse a plain value where the bundle has a component.

    Raises:
        SettingError: with the setting that was meant.
    """
    entries = [entry for content in source.base.values() for entry in content.items()]
    components = {name for name, value in entries if ConfigComponent.is_instantiable(value)}
    for name, value in plain.items():
        if name in components and name not in owners and isinstance(value, (str, int, float)):
            longer = [one for one in owners if one.startswith(name)]
            raise SettingError(
                f"{name} (given {source.origin(name)}) is a component of the program, for which {value!r} can't "
                f"stand{nearest(name, longer or owners)}"
            )


def _written(source: Source, owners: Owners, name: str) -> Any:
    """A value as it was written, where parsing may have lost that: texts, and lists of texts of a file."""
    value, text = source.config.get(name), source.text(name)
    if name not in owners or name in source.command.bare or (isinstance(text, str) and text.startswith(_PROGRAM)):
        return value
    holds_parts = any(word in str(owners[name].model_fields[name].annotation) for word in ("list", "dict"))
    if isinstance(value, (list, tuple, dict)) and holds_parts:  # the text of a list says no more
        whole = isinstance(text, list) and len(text) == len(value) and all(isinstance(one, str) for one in text)
        return text if whole else list(value) if isinstance(value, tuple) else value
    return text if isinstance(text, str) else value


def _is_program(value: Any) -> bool:
    """Whether a value is a part of the program rather than a plain one: an expression, a component, a list of such."""
    if isinstance(value, dict):
        return ConfigComponent.is_instantiable(value) or any(map(_is_program, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(_is_program, value))
    return isinstance(value, str) and value.startswith(_PROGRAM)


def _put(parser: ConfigParser, name: str, value: Any) -> None:
    """Set an entry of a parsed config to a plain value."""
    parser.get()[name] = value
    _resolve(parser, name, value)


def _resolve(parser: ConfigParser, name: str, value: Any) -> None:
    """Let references to a name and its parts give a plain value; what MONAI resolves has `::` for each `#`."""
    items = parser.ref_resolver.items
    for id in [id for id in items if id == name or id.startswith(f"{name}::")]:
        del items[id]
        parser.ref_resolver.remove_resolved_content(id)
    parts = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ()
    for id, part in ((name, value), *((f"{name}::{key}", part) for key, part in parts)):
        parser.ref_resolver.add_item(ConfigItem(config=part, id=id))
        parser.ref_resolver.resolved_content[id] = part


def _check_run_id(source: Source) -> None:
    """What MONAI is to run must be there.

    Raises:
        SettingError: it isn't.
    """
    workflow = source.workflow
    if workflow is None or workflow.run_id in source.parser:
        return
    places = [name for name, entries in source.base.items() if workflow.run_id in entries]
    runnable = [name for entries in source.base.values() for name, value in entries.items() if value == "%run"]
    hint = f"; configs/{places[0]} has it." if places else nearest(workflow.run_id, runnable)
    raise SettingError(f"nothing called {workflow.run_id!r} to run in the config files that were given{hint}")
