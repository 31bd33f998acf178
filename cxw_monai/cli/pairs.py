"""Arguments of the form NAME=VALUE."""

from __future__ import annotations

import argparse

__all__ = ["name_and_value"]


def name_and_value(text: str) -> tuple[str, str]:
    """A ``type`` for argparse."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    return name, value
