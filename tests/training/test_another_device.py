"""Steps of all tasks on a device without values: nothing is mixed with the CPU, and only scalars are waited for."""

from __future__ import annotations

import json

import pytest

from tests.helpers.device_steps import FAULTS
from tests.helpers.forks import run_python

SIGREG = {"regulariser": "sigreg", "regulariser_weight": 0.02}
SPREAD = {"regulariser": "variance_covariance", "regulariser_weight": 0.1}
STEPS = [
    ("pretraining", {"checkpoint": True}),
    ("pretraining", {"cut": False, "unified": False, "targets": "pixels"}),
    ("pretraining", {"cut": False, "targets": "both", "objectives": ["local", "global", "domain", "pooled"], **SIGREG}),
    ("pretraining", {"targets": "hog", "target_layers": 2, **SPREAD}),
    ("pretraining", {"target": "online", **SIGREG}),
    *(("segmentation", {"decoder": name}) for name in ("unet", "linear", "hybrid")),
    ("classification", {}),
    ("classification", {"head": "attentive", "head_layers": 2, "tokens": True}),
    ("landmarks", {}),
]
NOTICED = ("FakeTensorDeviceMismatchError", "DataDependentOutputException", "DynamicOutputShapeException", "WaitError")


@pytest.fixture(scope="module")
def outcomes():
    """What went wrong with each case; one process makes all, for its first step takes seconds."""
    cases = [*STEPS, *(("segmentation", {"fault": fault}) for fault in FAULTS)]
    done = run_python(["-m", "tests.helpers.device_steps", json.dumps(cases)])
    assert done.returncode == 0, done.stderr
    return dict(zip(map(str, cases), json.loads(done.stdout.splitlines()[-1]), strict=True))


@pytest.mark.parametrize("case", STEPS, ids=str)
def test_a_step_stays_on_its_device(outcomes, case):
    assert outcomes[str(case)] == ""


@pytest.mark.parametrize("fault", FAULTS)
def test_what_would_go_wrong_on_a_device_is_noticed(outcomes, fault):
    assert outcomes[str(("segmentation", {"fault": fault}))].startswith(NOTICED)
