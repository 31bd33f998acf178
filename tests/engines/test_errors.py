import subprocess
import sys

import pytest
import torch

from cxw_monai.engines.errors import plain_message, root_cause
from cxw_monai.io import RadiographError

AS_COMMAND = (
    "import importlib.machinery, __main__; "
    "__main__.__spec__ = importlib.machinery.ModuleSpec('monai.bundle.__main__', None); "
)


def chained():
    try:
        try:
            raise RadiographError("film.png", "truncated", "export it again")
        except RadiographError as error:
            raise RuntimeError("Failed to instantiate component") from error
    except RuntimeError as error:
        return error


def test_the_first_error_of_a_chain_is_the_cause():
    assert str(root_cause(chained())) == "film.png: truncated; export it again"
    assert str(root_cause(ValueError("alone"))) == "alone"


@pytest.mark.parametrize(
    ("raised", "traceback"),
    [
        ("raise RadiographError('film.png', 'truncated', 'export it again')", False),
        ("CosineSchedule(1.0, 0.0, total=0)", False),
        ("int('seven')", True),
    ],
)
def test_a_program_ends_with_one_clear_line(raised, traceback):
    program = (
        f"{AS_COMMAND}\nfrom cxw_monai.engines import CosineSchedule, install_error_hook\n"
        "from cxw_monai.io import RadiographError\n"
        f"install_error_hook()\ntry:\n    {raised}\n"
        "except ValueError as e:\n    raise RuntimeError('wrapped') from e"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert ("Traceback" in done.stderr) == traceback
    assert "wrapped" not in done.stderr.strip().splitlines()[-1]


def test_a_program_that_loads_a_bundle_keeps_its_own_hook():
    program = (
        "import sys; from cxw_monai.engines import install_error_hook; "
        "from cxw_monai.evaluation.segment import install_exit_hook; own = sys.excepthook; "
        "install_error_hook(); install_exit_hook(); assert sys.excepthook is own"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("error", ["ConnectionResetError(104, 'Connection reset by peer')", "EOFError()"])
def test_a_worker_killed_while_it_hands_over_a_batch_is_told_like_any_other(error):
    """The loader then meets a closed connection before it looks whether its workers live."""
    found = {}
    for name, file in (("loader", torch.utils.data.dataloader.__file__), ("elsewhere", "client.py")):
        with pytest.raises((ConnectionError, EOFError)) as raised:
            exec(compile(f"raise {error}", file, "exec"))
        found[name] = plain_message(raised.value)
    assert found["loader"].startswith("DataLoader worker exited unexpectedly (")
    assert "killed, often for lack of memory. Lower num_workers" in found["loader"]
    assert found["elsewhere"] is None
