"""The command line in this process."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cxw_monai.cli import main


@pytest.fixture
def run_verb(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs `cxw-monai` with arguments; gives its exit status, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stop:  # argparse
            status = int(stop.code or 0)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run
