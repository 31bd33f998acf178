"""Jobs of continuous integration are left out by name only, and the end of the output says so."""

import os
import subprocess
from pathlib import Path

import pytest

JOBS = ("checks", "docs", "tests", "monailabel-selftest")
CI = Path(__file__).resolve().parents[2] / ".ci" / "run"


def run(*jobs: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "CXW_SKIP"} | variables
    return subprocess.run(["bash", CI, *jobs], env=environment, capture_output=True, text=True, timeout=60)


def test_what_is_left_out_is_said_last():
    done = run(CXW_SKIP=",".join(JOBS))
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        f"SKIPPED: {name} (named in CXW_SKIP). To run it: bash .ci/run {name}" for name in JOBS
    ]


@pytest.mark.parametrize(("jobs", "skipped"), [(["selftest"], "tests"), ([], "tests monailabel")])
def test_other_names_are_refused(jobs, skipped):
    done = run(*jobs, CXW_SKIP=skipped)
    assert done.returncode == 2 and f"there are: {' '.join(JOBS)}" in done.stderr and done.stdout == ""
