"""The grey-scale pipeline against highdicom's own, an implementation by others of the same parts of the standard."""

from __future__ import annotations

import highdicom as hd
import numpy as np
import pytest

from cxw_monai.io import read_radiograph
from tests.helpers import dicom_files

pytestmark = pytest.mark.skipif(not hasattr(hd, "imread"), reason="highdicom before 0.24 transforms no pixels")

_BY_HIGHDICOM = {"apply_voi_transform": True, "apply_presentation_lut": True}  # and a Modality LUT if there is one


def _rising(count: int) -> list[int]:
    return [round(65535 * at / (count - 1)) for at in range(count)]


_EXACT = {"VOILUTFunction": "LINEAR_EXACT"}
CASES = {
    "LINEAR": {"WindowCenter": 2000, "WindowWidth": 1500},
    "LINEAR_EXACT": {"WindowCenter": 2000.5, "WindowWidth": 900.25, **_EXACT},
    "SIGMOID": {"WindowCenter": 1800, "WindowWidth": 1200, "VOILUTFunction": "SIGMOID"},
    # highdicom applies LINEAR's half a step to codes, the standard to rescaled values: only the others can be compared
    "rescale": {"RescaleSlope": 0.5, "RescaleIntercept": -1024, "WindowCenter": 100, "WindowWidth": 600, **_EXACT},
    "intercept": {"RescaleSlope": 1, "RescaleIntercept": -1024, "WindowCenter": 100, "WindowWidth": 600},
    "Modality LUT": {
        "ModalityLUTSequence": dicom_files.lut_sequence([8 * code for code in range(4096)], 0, 16),
        "WindowCenter": 16000,
        "WindowWidth": 9000,
    },
    # highdicom refuses LUTs of other depths than 8 and 16, and scales by the least and greatest entry: 0 and 65535 here
    "VOI LUT": {"VOILUTSequence": dicom_files.lut_sequence(_rising(4096)[::-1], 0, 16)},
    "VOI LUT of some codes": {"VOILUTSequence": dicom_files.lut_sequence(_rising(2048), 1000, 16)},
    "rescale and VOI LUT": {
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
        "VOILUTSequence": dicom_files.lut_sequence(_rising(2048), 0, 16),
    },
}


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("case", CASES)
def test_the_same_grey_values(tmp_path, case, photometric):
    codes = np.random.default_rng(0).permutation(4096).astype(np.uint16).reshape(64, 64)
    path = dicom_files.write_dicom(tmp_path / "a.dcm", codes, bits=12, photometric=photometric, **CASES[case])
    expected = hd.imread(path).get_frame(1, **_BY_HIGHDICOM)  # [64, 64] in [0, 1]
    np.testing.assert_allclose(read_radiograph(path).array[0], expected, atol=2e-6)


@pytest.mark.parametrize("signed", [False, True])
def test_the_same_place_in_the_window_for_signed_codes(tmp_path, signed):
    codes = np.arange(-2048, 2048).reshape(64, 64) if signed else np.arange(4096).reshape(64, 64)
    codes = codes.astype(np.int16 if signed else np.uint16)
    path = dicom_files.write_dicom(tmp_path / "a.dcm", codes, bits=12, WindowCenter=300, WindowWidth=800)
    expected = hd.imread(path).get_frame(1, **_BY_HIGHDICOM)
    np.testing.assert_allclose(read_radiograph(path).array[0], expected, atol=2e-6)
