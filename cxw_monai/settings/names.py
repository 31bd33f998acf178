"""Names that a bundle does not know: misspelt settings, arguments and blocks."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Set
from difflib import get_close_matches
from pydoc import locate
from typing import Any

from monai.bundle import ConfigComponent, ConfigParser
from monai.bundle.reference_resolver import ReferenceResolver
from monai.bundle.utils import DEFAULT_EXP_MGMT_SETTINGS

from .source import Source, root
from .types import SettingError

__all__ = ["check_names", "nearest", "without_effect"]

_MANAGEMENT: dict[str, Any] = DEFAULT_EXP_MGMT_SETTINGS
_TRACKING = {name for settings in _MANAGEMENT.values() for name in settings["configs"]}
_MONAI = {"initialize", "run", "finalize", "run_id", "init_id", "final_id", "imports", "bundle_root", *_TRACKING}


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence: `, did you mean ...?`, or a full stop where no known name is near."""
    lower = {one.lower(): one for one in known}
    found = get_close_matches(name.lower(), lower, n=1, cutoff=0.6)
    return f", did you mean {lower[found[0]]}?" if found else "."


def _texts(value: Any) -> Iterator[str]:
    """All texts in a part of a config."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list, tuple)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


def _references(source: Source) -> dict[str, set[str]]:
    """By top-level entry, the ids that it refers to."""
    return {
        str(name): {id for text in _texts(value) for id in ReferenceResolver.match_refs_pattern(text)}
        for name, value in source.config.items()
    }


def _referred(used: Mapping[str, set[str]]) -> set[str]:
    """Top-level entries that another one refers to."""
    return {root(id) for name, ids in used.items() for id in ids if root(id) != name}


def _macros(source: Source) -> set[str]:
    """Top-level entries that a given file copies with `%`; MONAI has put the copies in their places."""
    return {root(text[1:]) for entries in source.given.values() for text in _texts(entries) if text.startswith("%")}


def check_names(source: Source, fields: Set[str]) -> None:
    """Refuse names that mean nothing.

    Known are the settings, the entries of the bundle's own files, MONAI's, what another entry refers to (`@`, `%`), and
    comments (`_desc_`). In the blocks (`train`, `validate`) the same holds one level down, and a component takes the
    arguments that its function has.

    Args:
        source: where they come from.
        fields: names of the settings, of all the bundle's commands.

    Raises:
        SettingError: with the nearest known name.
    """
    if not source.base:
        return
    known = {root(entry) for content in source.base.values() for entry in content} | fields
    used = _references(source)
    referred = _referred(used) | _macros(source)
    for name in map(str, source.config):
        if name not in known | referred | _MONAI and not _is_comment(name):
            raise SettingError(
                f"{name} (given {source.origin(name)}): the bundle has no such setting{nearest(name, known)} An entry "
                "of your own must be referred to by another one."
            )
    _check_blocks(source, {id for ids in used.values() for id in ids})
    _check_arguments(source.parser)


def _is_comment(name: str) -> bool:
    return len(name) > 2 and name[0] == name[-1] == "_"


def _check_blocks(source: Source, referred: set[str]) -> None:
    """Entries of blocks that are no components."""
    for block, content in source.config.items():
        if not _is_block(content):
            continue
        known: set[str] = set()
        for entries in source.base.values():
            known |= set(entries[block]) if _is_block(entries.get(block)) else set()
            paths = [str(entry).replace("#", "::").split("::") for entry in entries]
            known |= {path[1] for path in paths if path[0] == block and len(path) > 1}
        if not known:  # a setting that is a dictionary, or a block of the user's own
            continue
        for name in map(str, content):
            used = any(id == f"{block}::{name}" or id.startswith(f"{block}::{name}::") for id in referred)
            if name not in known and not used and not _is_comment(name):
                raise SettingError(
                    f"{block}::{name} (given {source.origin(block)}): {block} has no such entry{nearest(name, known)}"
                )


def _is_block(content: Any) -> bool:
    return isinstance(content, dict) and not ConfigComponent.is_instantiable(content)


def _check_arguments(parser: ConfigParser) -> None:
    """Arguments of components."""
    for id, item in parser.ref_resolver.items.items():
        if not isinstance(item, ConfigComponent) or id.startswith(f"{ConfigParser.meta_key}::"):
            continue
        target = item.resolve_module_name()
        made = locate(target) if isinstance(target, str) and not target.startswith("$") else target
        if not callable(made):  # MONAI says what it can't find
            continue
        try:
            parameters = inspect.signature(made).parameters
        except (ValueError, TypeError):  # of a builtin
            continue
        if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values()):
            continue
        for name in item.resolve_args():
            if name not in parameters:
                raise SettingError(f"{id}::{name}: {target} has no such argument{nearest(str(name), parameters)}")


def without_effect(source: Source, others: Set[str]) -> list[str]:
    """Options that are settings of other commands (`others`) alone, and to which nothing in this run refers."""
    return [name for name in source.command.values if name in others - _referred(_references(source))]
