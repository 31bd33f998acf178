"""The settings that a run's numbers depend on, as its checkpoints keep them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from .base import Settings
from .source import calling_source

__all__ = ["settings_of_run"]


def settings_of_run(settings: Settings, films: Iterable[Mapping[str, Any]] = ()) -> dict[str, dict[str, Any]]:
    """Settings of a run in plain values; for an entry of its config.

    No path is among them, and of the films nothing but a number and a hash.

    Args:
        settings: the run's.
        films: the training items, with `image`.

    Returns:
        By name, `fixed` ones, without which the run's state means nothing (with `optimizer`, its class), and `others`
        (with `training_films`); see `setting`.
    """
    marks = {
        name: cast(dict[str, Any], field.json_schema_extra)["resume"]
        for name, field in type(settings).model_fields.items()
    }
    fixed, others = (
        settings.model_dump(mode="json", include={name for name, mark in marks.items() if mark == kept})
        for kept in ("fixed", "logged")
    )
    source = calling_source()
    optimizer = source.config.get("optimizer")
    if isinstance(optimizer, Mapping) and isinstance(optimizer.get("_target_"), str):
        fixed["optimizer"] = optimizer["_target_"]
    paths = [str(item["image"]) for item in films]
    if paths:
        shared = os.path.commonpath({os.path.dirname(path) for path in paths})
        names = sorted(Path(os.path.relpath(path, shared)).as_posix() for path in paths)
        digest = hashlib.sha256("\0".join(names).encode("utf-8", "surrogateescape")).hexdigest()
        others["training_films"] = f"{len(names)} (hash {digest[:12]})"
    return {"fixed": fixed, "others": others}
