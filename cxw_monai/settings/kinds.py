"""Kinds of values that settings have, and which texts mean them."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

__all__ = ["AnyOf", "Choice", "Flag", "Kind", "Names", "Number", "Numbers", "SettingError", "Table", "Text", "is_null"]

_FLAGS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_NULLS = ("", "null", "~")
_NOT_OF_THIS_KIND = (TypeError, ValueError, OverflowError)


class SettingError(ValueError):
    """A setting that cannot be used; names it, its value, and what is expected."""

    exit_status = 2  # of a program that ends with it: nothing was done


def is_null(value: Any) -> bool:
    """Whether a value, or its text in YAML or on the command line, means that nothing is set."""
    return value is None or (isinstance(value, str) and value.lower() in _NULLS)


@dataclass(frozen=True)
class Kind:
    """What a setting's value must be.

    Attributes:
        optional: null is allowed.
    """

    optional: bool = False

    def read(self, name: str, value: Any) -> Any:
        """The value that is meant.

        Args:
            name: the setting, for the error.
            value: as parsed, or its text.

        Raises:
            SettingError: it is not of this kind.
        """
        if is_null(value) and self.optional:
            return None
        with suppress(*_NOT_OF_THIS_KIND):
            return self._read(value)
        if self.optional and value == "None":  # as Python has it; to a path or a text it is a name
            return None
        null = ", or null" if self.optional else ""
        raise SettingError(f"{name} must {self.expected}{null}, got {value!r}.")

    @property
    def expected(self) -> str:
        """What follows 'must'."""
        raise NotImplementedError

    def _read(self, value: Any) -> Any:
        """The value that is meant; a `ValueError` or `TypeError` says that there is none."""
        raise NotImplementedError


@dataclass(frozen=True)
class Number(Kind):
    """A finite number, or a text of one.

    Attributes:
        within: interval in mathematical notation, such as `(0, 1]` or `[0, inf)`.
        whole: no fraction.
    """

    within: str = "(-inf, inf)"
    whole: bool = False

    @property
    def expected(self) -> str:
        low, high = self._bounds
        kind = "be a whole number" if self.whole else "be a number"
        if high == math.inf:
            least = f"of at least {low:g}" if self.within[0] == "[" else f"above {low:g}"
            return f"{kind} {least}" if low > -math.inf else kind
        return f"{'be a whole number that lies' if self.whole else 'lie'} in {self.within}"

    @property
    def _bounds(self) -> tuple[float, float]:
        low, high = (float(part) for part in self.within[1:-1].split(","))
        return low, high

    def _read(self, value: Any) -> int | float:
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise TypeError
        number = value if isinstance(value, (int, float)) else _number(value)
        low, high = self._bounds
        above = number >= low if self.within[0] == "[" else number > low
        below = number <= high if self.within[-1] == "]" else number < high
        if not math.isfinite(number) or not above or not below or (self.whole and number != int(number)):
            raise ValueError
        return int(number) if self.whole else number


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)


@dataclass(frozen=True)
class Numbers(Kind):
    """A list of numbers.

    Attributes:
        count: how many; None for any.
        each: what each of them must be.
    """

    count: int | None = 2
    each: Number = Number()

    @property
    def expected(self) -> str:
        many = "numbers" if self.count is None else f"{self.count} numbers"
        return f"be a list of {many}" + ("" if self.each == Number() else f" which each must {self.each.expected}")

    def _read(self, value: Any) -> list[int | float]:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise TypeError
        if self.count not in (None, len(value)):
            raise ValueError
        return [self.each._read(one) for one in value]


@dataclass(frozen=True)
class Flag(Kind):
    """True or false, or a text of one."""

    expected = "be true or false"

    def _read(self, value: Any) -> bool:
        if isinstance(value, bool):
            return value
        if not isinstance(value, (str, int)) or str(value).lower() not in _FLAGS:
            raise ValueError
        return _FLAGS[str(value).lower()]


@dataclass(frozen=True)
class Text(Kind):
    """A text or path, taken as it was written.

    Attributes:
        what: what the text is, for the error.
    """

    what: str = "a text"

    @property
    def expected(self) -> str:
        return f"be {self.what} (what YAML reads as something else needs quotes there)"

    def _read(self, value: Any) -> str:
        if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
            raise TypeError
        text = os.fspath(value)
        if not isinstance(text, str) or "\0" in text:
            raise ValueError
        return text


@dataclass(frozen=True)
class Choice(Kind):
    """One of some words."""

    words: tuple[str, ...] = ()

    @property
    def expected(self) -> str:
        return f"be one of {', '.join(self.words)}"

    def _read(self, value: Any) -> str:
        word = str(value).lower()
        if word not in self.words:
            raise ValueError
        return word


@dataclass(frozen=True)
class Names(Kind):
    """A list of names, or one text of them with commas."""

    expected = "be a list of names, each once"

    def _read(self, value: Any) -> list[str]:
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, Sequence) or not parts or not all(isinstance(part, str) for part in parts):
            raise TypeError
        names = [part.strip() for part in parts]
        if not all(names) or len(set(names)) != len(names):
            raise ValueError
        return names


@dataclass(frozen=True)
class Table(Kind):
    """A dictionary."""

    expected = "be a dictionary, such as \"{'a': 'b'}\""

    def _read(self, value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            raise TypeError
        return dict(value)


@dataclass(frozen=True)
class AnyOf(Kind):
    """The first of some kinds that the value is of."""

    kinds: tuple[Kind, ...] = ()

    @property
    def expected(self) -> str:
        return " or ".join(kind.expected for kind in self.kinds)

    def _read(self, value: Any) -> Any:
        for kind in self.kinds:
            with suppress(*_NOT_OF_THIS_KIND):
                return kind._read(value)
        raise ValueError
