"""Values as errors show them."""

from __future__ import annotations

from reprlib import Repr
from typing import Any

__all__ = ["shown"]

_short = Repr()
_short.maxstring, _short.maxother, _short.maxlong, _short.maxlevel = 60, 60, 40, 3
_short.maxlist = _short.maxtuple = _short.maxdict = 6


def shown(value: Any) -> str:
    """A value as an error shows it: about 60 characters of each text in it, on one line, control characters escaped."""
    return _short.repr(value)
