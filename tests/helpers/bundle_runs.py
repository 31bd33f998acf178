"""Runs of a bundle with small settings, as a user makes them or in the test's process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jsonschema
import pytest
from monai.bundle import ConfigWorkflow

from tests.helpers.forks import run_python, start_python

BUNDLES = Path(__file__).parents[2] / "bundles"


class BundleRuns:
    """A bundle, and settings that all its runs get."""

    def __init__(self, name: str, **small: Any) -> None:
        self.folder, self.small = BUNDLES / name, small
        self.configs = self.folder / "configs"

    def arguments(self, run_id: str, configs: Sequence[str], **settings: Any) -> list[str]:
        """What follows `python` to run the bundle."""
        listed = ",".join(f"'configs/{name}'" for name in configs)
        options = [f"--{name}={value}" for name, value in {**self.small, **settings}.items()]
        return ["-m", "monai.bundle", "run", run_id, "--config_file", f"[{listed}]", *options]

    def run(
        self, run_id: str, configs: Sequence[str], processes: int = 1, **settings: Any
    ) -> subprocess.CompletedProcess[str]:
        """A finished run in a process of its own, or in several as torchrun starts them."""
        return run_python(self.arguments(run_id, configs, **settings), processes=processes, cwd=self.folder)

    def run_from_the_start(self, *arguments: Any, **settings: Any) -> subprocess.CompletedProcess[str]:
        """The same in an interpreter that has imported nothing yet, as a user starts it: seconds more.

        Standard error also names each module that it imports.
        """
        command = [sys.executable, "-X", "importtime", *self.arguments(*arguments, **settings)]
        one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, cwd=self.folder, env=one_thread, capture_output=True, text=True, timeout=900)

    def kill_after(self, checkpoint: int, output_dir: Path, **settings: Any) -> None:
        """Train until a checkpoint is there, then kill the process and its workers."""
        arguments = self.arguments("training", ["train.json"], output_dir=output_dir, **settings)
        with TemporaryDirectory() as streams:
            process = start_python(arguments, Path(streams), cwd=self.folder)
            deadline = time.monotonic() + 600
            while not (output_dir / f"checkpoint_epoch={checkpoint}.pt").exists():
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.02)
            os.killpg(process.pid, signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL

    def workflow(self, kind: str, configs: Sequence[str], **settings: Any) -> ConfigWorkflow:
        """The bundle in this process, initialised."""
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            flow = ConfigWorkflow(
                config_file=[str(self.configs / name) for name in configs],
                meta_file=str(self.configs / "metadata.json"),
                logging_file=False,
                workflow_type=kind,
                **{**self.small, **settings},
            )
            flow.initialize()
        return flow

    def checked_metadata(self) -> dict[str, Any]:
        """The bundle's metadata, after a check of the keys that MONAI's published schema makes mandatory."""
        metadata = json.loads((self.configs / "metadata.json").read_text())
        texts = ("version", "monai_version", "pytorch_version", "numpy_version", "task", "description", "authors",
                 "copyright")  # fmt: skip
        schema = {
            "type": "object",
            "properties": {
                **dict.fromkeys(texts, {"type": "string"}),
                "required_packages_version": {"type": "object"},
                "network_data_format": {"type": "object", "required": ["inputs", "outputs"]},
            },
            "required": [*texts, "required_packages_version", "network_data_format"],
        }
        jsonschema.validate(metadata, schema)
        assert metadata["version"] in metadata["changelog"]
        return metadata


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """What a process said last: its error."""
    return done.stderr.strip().splitlines()[-1]


def innermost(error: BaseException) -> BaseException:
    """The first error of a chain."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error
