"""The annotator's journey through the real MONAI Label server, where its environment has been made."""

import os
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
ENVIRONMENT = Path(os.environ.get("CXW_MONAILABEL_ENV", PROJECT / ".venv-monailabel"))


@pytest.mark.slow
def test_the_journey_through_the_server():
    if not (ENVIRONMENT / "cxw_monai.stamp").is_file():
        pytest.skip(
            f"no MONAI Label environment at {ENVIRONMENT}: bash scripts/monailabel.sh --selftest makes it (3 GB)"
        )
    command = ["bash", str(PROJECT / "scripts" / "monailabel.sh"), "--selftest"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=900)
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    assert "0 failed" in done.stdout
