"""Types that settings are made of: which texts mean which values, which numbers are allowed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any

import torch
from pydantic import BeforeValidator, Field

__all__ = [
    "AtLeast0", "Count", "Device", "Lower", "Names", "Number", "OneOrMore", "Pair", "Percent", "Positive",
    "SettingError", "Share", "Size", "Table", "Text", "Whole", "is_null", "setting",
]  # fmt: skip

_NULLS = ("", "null", "~")


class SettingError(ValueError):
    """A setting that cannot be used; names it, its value, and what is expected."""


def setting(default: Any, doc: str, *, resume: str = "logged", **limits: Any) -> Any:
    """A field of a settings class.

    Args:
        default: its value; a function of the fields before it (a dictionary) computes one.
        doc: what it is, with unit and range, for errors and readers.
        resume: what a resumed run may do: `fixed` (refused where it differs, for the run's state means nothing with
            another), `logged` (a change is named in the log), or `free` (no number of the run depends on it).
        limits: of `pydantic.Field`.
    """
    given = {"default_factory": default} if callable(default) else {"default": default}
    return Field(**given, description=doc, json_schema_extra={"resume": resume}, **limits)


def is_null(value: Any) -> bool:
    """Whether a value, or its text in YAML or on the command line, means that nothing is set."""
    return value is None or (isinstance(value, str) and value.lower() in _NULLS)


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("Input should be a number")
    if isinstance(value, str):
        for read in (int, float):
            with suppress(ValueError):
                return read(value)
    return value


def _text(value: Any) -> str:
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str) or not text or "\0" in text:
        raise ValueError("Input should be a text or path (what YAML reads as something else needs quotes there)")
    return text


def _names(value: Any) -> list[str]:
    parts = value.split(",") if isinstance(value, str) else value
    names = [part.strip() for part in parts] if isinstance(parts, (list, tuple)) and all(map(_is_text, parts)) else []
    if not names or not all(names) or len(set(names)) != len(names):
        raise ValueError("Input should be a list of names, each once")
    return names


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _device(value: Any) -> torch.device:
    with suppress(RuntimeError, TypeError):
        return torch.device(value)
    raise ValueError("Input should be a device of torch, such as cpu or cuda:0")


def _table(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(map(_is_text, value)):
        raise ValueError("Input should be a dictionary, such as \"{'a': 'b'}\"")
    return dict(value)


Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
AtLeast0 = Annotated[Number, Field(ge=0)]
Positive = Annotated[Number, Field(gt=0)]
Share = Annotated[Number, Field(ge=0, le=1)]
Percent = Annotated[Number, Field(ge=0, le=100)]
Whole = Annotated[int, BeforeValidator(_number), Field(ge=0)]
Count = Annotated[int, BeforeValidator(_number), Field(ge=1)]
Pair = Annotated[list[AtLeast0], Field(min_length=2, max_length=2)]
"""Low and high, or height and width."""
Size = Annotated[Count | Annotated[list[Count], Field(min_length=2, max_length=2)], Field(union_mode="left_to_right")]
OneOrMore = Annotated[AtLeast0 | list[AtLeast0], Field(union_mode="left_to_right")]
"""A number, or one per channel."""
Text = Annotated[str, BeforeValidator(_text)]
Names = Annotated[list[str], BeforeValidator(_names)]
Table = Annotated[dict[str, Any], BeforeValidator(_table)]
Device = Annotated[torch.device, BeforeValidator(_device)]
Lower = BeforeValidator(lambda value: str(value).lower())
"""For one of some words, however they are written."""
