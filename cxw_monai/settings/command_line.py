"""What was typed after `python -m monai.bundle run`, before it was parsed.

Python Fire reads values as Python: `2024_01_02` becomes a number, `a,b` a tuple, `None` nothing at all, and what
follows a `#` is lost. Here are the texts.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["CommandLine", "typed"]

_FLAG = re.compile(r"--|-[a-zA-Z]")


@dataclass(frozen=True)
class CommandLine:
    """A command line by Fire's rules.

    Attributes:
        values: texts by option, the last one where it was given twice; underscores for hyphens in the names.
        bare: options without a value.
        positional: the rest, without the action (`run`) itself.
    """

    values: Mapping[str, str]
    bare: Sequence[str]
    positional: Sequence[str]


def typed(arguments: Sequence[str] | None = None) -> CommandLine:
    """The command line of this program.

    Args:
        arguments: those after the program's name; `sys.argv` by default.
    """
    left = list(sys.argv[1:] if arguments is None else arguments)
    if "--" in left:  # what follows is for Fire itself
        del left[len(left) - 1 - left[::-1].index("--") :]
    left = left[1:]
    values: dict[str, str] = {}
    bare: list[str] = []
    positional: list[str] = []
    while left:
        token = left.pop(0)
        if not _FLAG.match(token):
            positional.append(token)
            continue
        name, equals, text = token.lstrip("-").partition("=")
        name = name.replace("-", "_").replace("#", "::")
        if equals:
            values[name] = _unquoted(text)
        elif left and not _FLAG.match(left[0]):
            values[name] = _unquoted(left.pop(0))
        else:
            bare.append(name)
    return CommandLine(values, bare, positional)


def _unquoted(text: str) -> str:
    """The text that is meant by one in quotes of its own, as in `--dataset_dir "'007'"`."""
    if text[:1] in "'\"" and text[-1:] == text[:1]:
        try:
            return str(ast.literal_eval(text))
        except (ValueError, SyntaxError):
            return text
    return text
