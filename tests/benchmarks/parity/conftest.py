"""Golden files as the reference network makes them, by a plain re-implementation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from benchmarks.parity.reimplementation import reference_outputs, write_golden


@pytest.fixture(name="reference_outputs", scope="session")
def the_reimplementation() -> Callable[..., dict[str, Tensor]]:
    """State dict, configuration, batch and dtype to outputs by name."""
    return reference_outputs


@pytest.fixture(name="write_golden", scope="session")
def the_writer() -> Callable[..., Path]:
    """Path, sizes and flags to a golden npz with its json."""
    return write_golden


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return write_golden(tmp_path_factory.mktemp("golden") / "made.npz")
