"""Projector and cone-beam geometry against lengths and places worked out by hand."""

import math

import numpy as np
import pytest
import torch

from cxw_monai.rendering.geometry import ConeBeam, default_beam
from cxw_monai.rendering.projector import project_volumes

VOXEL = 2.0
CENTRE = (40 - 1) / 2  # of a grid of 40 voxels


def grid_index(points):
    """Room mm to indices of a 40^3 grid of 2 mm voxels whose middle is the isocentre."""
    return points / VOXEL + CENTRE


def grid(*boxes):
    """[40, 40, 40, 1] grid that holds 1 in the given index boxes."""
    volume = torch.zeros(40, 40, 40, 1)
    for box in boxes:
        volume[box] = 1.0
    return volume


def parallel_like(view, size=65, pitch=1.0):
    """A beam from very far away: rays are parallel to within 1e-5."""
    return ConeBeam(view, 1e7 + 100, 1e7, pitch, size, size)


@pytest.mark.parametrize(("view", "length"), [("PA", 40.0), ("AP", 40.0), ("LAT", 60.0)])
def test_box_integral_is_value_times_length(view, length):
    box = (slice(5, 35), slice(10, 30), slice(12, 28))  # 60 mm in x, 40 in y, 32 in z
    path = project_volumes([grid(box) * 0.02], parallel_like(view), grid_index, (-50, 50), step_mm=1.0)
    assert path.shape == (1, 65, 65)
    assert path[0, 32, 32].item() == pytest.approx(0.02 * length, rel=2e-3)
    assert path[0, 32 - 20, 32].item() == 0.0  # 20 mm above the middle; the box ends at 16


def test_oblique_ray_is_longer_by_its_slope():
    beam = ConeBeam("PA", 200.0, 150.0, 2.0, 41, 41)
    slab = grid((slice(0, 40), slice(15, 25), slice(0, 40)))  # 20 mm thick in y, wide in x and z
    path = project_volumes([slab], beam, grid_index, (-30, 30), step_mm=0.25)[0]
    u = 20 * 2.0  # mm beside the middle of the detector
    assert path[20, 20].item() == pytest.approx(20.0, rel=5e-3)
    assert path[20, 40].item() == pytest.approx(20.0 * math.hypot(1, u / 200.0), rel=4e-3)


@pytest.mark.parametrize(("view", "forward"), [("PA", 1), ("AP", -1)])
@pytest.mark.parametrize("offset", [-20, 0, 20])
def test_magnification_of_a_thin_object(view, forward, offset):
    """A 40 mm wide plate at depth d is 40 * SDD / (SOD + d) wide on the detector."""
    beam = ConeBeam(view, 300.0, 200.0, 0.5, 3, 401)
    y = 20 + offset // 2  # plate of 2 mm at y = offset + 1 mm
    path = project_volumes([grid((slice(10, 30), slice(y, y + 1), slice(0, 40)))], beam, grid_index, (-39, 39), 0.5)
    width_mm = (path[0, 1] > path[0, 1].max() / 2).sum().item() * 0.5
    assert width_mm == pytest.approx(40.0 * 300.0 / (200.0 + forward * (offset + 1)), abs=1.5)


def test_default_magnification_and_field_of_view():
    beam = default_beam("PA", 256, 300.0)
    assert beam.magnification == pytest.approx(1830 / 1660)
    edges = beam.project(np.array([[150.0, 0, 0], [-150.0, 0, 0]]))  # right and left edge of the field
    np.testing.assert_allclose(edges[:, 0], [-0.5, 255.5])  # patient's right at image left


@pytest.mark.parametrize("view", ["PA", "AP", "LAT"])
def test_points_and_project_are_inverse(view):
    beam = ConeBeam(view, 1800.0, 1600.0, 1.3, 20, 30)
    rows, columns = np.array([0.0, 7.5, 19.0]), np.array([2.0, 28.0])
    points = beam.points(rows, columns, np.array([-80.0, 0.0, 90.0]))  # [3, 2, 3, 3]
    pixels = beam.project(points)
    np.testing.assert_allclose(pixels[..., 0], np.broadcast_to(columns[None, :, None], (3, 2, 3)), atol=1e-9)
    np.testing.assert_allclose(pixels[..., 1], np.broadcast_to(rows[:, None, None], (3, 2, 3)), atol=1e-9)


@pytest.mark.parametrize(
    ("view", "point", "where"),
    [
        ("PA", (50, 0, 0), "left"),  # the patient's right
        ("AP", (50, 0, 0), "left"),
        ("LAT", (0, 50, 0), "left"),  # the patient's front
        ("PA", (0, 0, 50), "top"),
        ("AP", (0, 0, 50), "top"),
        ("LAT", (0, 0, 50), "top"),
    ],
)
def test_sides_of_the_picture(view, point, where):
    column, row = default_beam(view, 64, 200.0).project(np.array(point, dtype=float))
    assert (column < 20 and row == 31.5) if where == "left" else (row < 20 and column == 31.5)


def test_nearer_the_detector_is_smaller():
    """The heart lies in front: PA (detector in front) shows it smaller than AP."""
    front = np.array([[30.0, 60.0, 0.0]])
    beams = [ConeBeam(v, 1800.0, 1600.0, 1.0, 100, 100) for v in ("PA", "AP")]
    pa, ap = (abs(b.project(front)[0, 0] - 49.5) for b in beams)
    assert pa == pytest.approx(30 * 1800 / 1660)
    assert ap == pytest.approx(30 * 1800 / 1540)


def test_channels_are_independent_and_chunks_join(monkeypatch):
    torch.manual_seed(0)
    volumes = [torch.rand(12, 14, 16, c) for c in (1, 3)]
    beam = ConeBeam("PA", 300.0, 200.0, 1.5, 17, 23)

    def mapped(p):
        return p / 3.0 + np.array([5.5, 6.5, 7.5])

    whole = project_volumes(volumes, beam, mapped, (-20, 20))
    monkeypatch.setattr("cxw_monai.rendering.projector._SAMPLES_PER_CHUNK", 1)
    by_rows = project_volumes(volumes, beam, mapped, (-20, 20))
    single = project_volumes([volumes[1][..., 1:2].contiguous()], beam, mapped, (-20, 20))
    assert whole.shape == (4, 17, 23)
    torch.testing.assert_close(by_rows, whole)
    torch.testing.assert_close(single[0], whole[2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("XX", 300.0, 200.0, 1.0, 8, 8), "view must be one of"),
        (("PA", 200.0, 300.0, 1.0, 8, 8), "between source and detector"),
        (("PA", 300.0, 200.0, 0.0, 8, 8), "pitch_mm > 0"),
    ],
)
def test_impossible_geometry(arguments, message):
    with pytest.raises(ValueError, match=message):
        ConeBeam(*arguments)


def test_volumes_on_different_grids():
    with pytest.raises(ValueError, match="on one grid"):
        project_volumes([torch.zeros(4, 4, 4, 1), torch.zeros(4, 4, 5, 1)], parallel_like("PA"), grid_index, (-1, 1))
