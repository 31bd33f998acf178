"""Self-supervised world models of radiographs as MONAI bundles."""

from typing import Any

from .io.printable import escape_log_records

__version__ = "0.1.0"

escape_log_records()


def __getattr__(name: str) -> Any:
    if name == "load":  # torch and MONAI take seconds to import: when they are needed
        from .loading import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
