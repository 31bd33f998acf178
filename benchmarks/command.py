"""What the benchmarks that train have in common: a bundle's training, and how their commands end."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow

from cxw_monai.io.files.printable import printable
from cxw_monai.training.errors import plain_message, root_cause

__all__ = ["ended", "training_workflow"]

_FOLDER = Path(__file__).parent


def ended(work: Callable[[], None]) -> int:
    """Does the work and returns the exit status: 2, and one line, for an error that a user can mend."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        work()
    except (OSError, ValueError, RuntimeError) as error:  # MONAI's RuntimeError around what a bundle raises
        cause = root_cause(error)
        message = plain_message(cause)
        if message is None and not _raised_here(cause):
            raise
        print(f"error: {printable(message or cause)}", file=sys.stderr)
        return 2
    return 0


def _raised_here(error: BaseException) -> bool:
    """Whether a benchmark raised it on purpose."""
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1] if isinstance(error, ValueError) and frames else None
    return last is not None and Path(last.filename).is_relative_to(_FOLDER) and (last.line or "").startswith("raise ")


def training_workflow(bundle: Path, presets: Sequence[str], output_dir: Path, **settings: Any) -> ConfigWorkflow:
    """A bundle's training in this process, not yet initialised.

    Args:
        bundle: its folder.
        presets: names of its presets, in order.
        output_dir: of the run.
        settings: overrides.
    """
    configs = bundle.resolve() / "configs"
    return ConfigWorkflow(
        config_file=[str(configs / "train.json"), *(str(configs / "presets" / f"{name}.yaml") for name in presets)],
        meta_file=str(configs / "metadata.json"),
        logging_file=False,
        workflow_type="train",
        bundle_root=str(bundle.resolve()),
        output_dir=str(output_dir.resolve()),
        **settings,
    )
