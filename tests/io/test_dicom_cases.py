"""The shared DICOM cases: files that were read wrong, or refused with a remedy that didn't help."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from cxw_monai.io import RadiographError, read_radiograph

CASES = Path(__file__).parents[3] / "shared" / "cases" / "dicom"
NAMES = sorted(json.loads((CASES / "cases.json").read_text())) if CASES.is_dir() else []


@pytest.mark.skipif(not NAMES, reason="needs ../shared/cases/dicom")
@pytest.mark.parametrize("name", NAMES or ["none"])
def test_case(name):
    case = json.loads((CASES / "cases.json").read_text())[name]
    truth = np.load(CASES / "truth.npy")
    try:
        film = read_radiograph(CASES / name)
    except RadiographError as error:
        assert case["expect"] == "truth_or_refused"
        assert not re.search(r"damaged|\w+Error\b", str(error))
        return
    np.testing.assert_allclose(film.array[0], truth, atol=case.get("tolerance", 1e-3))
    if case["expect"] == "spacing":
        assert film.meta["spacing_mm"] == pytest.approx((case["spacing"],) * 2, abs=1e-3)
        assert "EstimatedRadiographicMagnificationFactor" in film.meta["spacing_from"]
