"""Radiographs in, results out."""

from typing import Any

from .radiograph import Radiograph, RadiographError, read_radiograph

__all__ = ["LoadRadiographd", "Radiograph", "RadiographError", "RadiographReader", "read_radiograph"]


def __getattr__(name: str) -> Any:
    # MONAI takes seconds to import: what needs it is imported when it is asked for.
    if name in ("LoadRadiographd", "RadiographReader"):
        from . import reader

        return getattr(reader, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
