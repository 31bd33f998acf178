"""Trachea, rotation and costophrenic angles on shapes whose numbers are known."""

import math

import numpy as np
import pytest

from cxw_monai.inference.chest_geometry import costophrenic_angle, describe_geometry, measure_geometry


def box(top, bottom, left, right, shape=(100, 200)):
    """A mask of rows `top` to `bottom` and columns `left` to `right`, both included."""
    mask = np.zeros(shape, dtype=bool)
    mask[top : bottom + 1, left : right + 1] = True
    return mask


def chest():
    """Spine columns 90-110 (middle 100); the left clavicle ends 14 px and the right one 6 px from it; the trachea is
    5 px to the patient's right."""
    return {
        "vertebrae": box(0, 99, 90, 110),
        "clavicle_left": box(10, 12, 114, 160),
        "clavicle_right": box(10, 12, 40, 94),
        "trachea": box(20, 40, 93, 97),
    }


def test_trachea_and_rotation_of_masks_by_hand():
    found = measure_geometry(chest(), spacing_mm=(0.5, 0.4))
    assert found == {"trachea_deviation_px": -5.0, "trachea_deviation_mm": -2.0, "clavicle_rotation": (14 - 6) / 20}
    assert list(found) == list(describe_geometry(list(chest()), ()))
    straight = measure_geometry({**chest(), "clavicle_left": box(10, 12, 106, 160)})
    assert straight["clavicle_rotation"] == 0 and straight["trachea_deviation_mm"] is None


def test_a_bent_spine_is_read_at_the_height_of_what_is_measured():
    masks = chest()
    masks["vertebrae"] = box(0, 15, 90, 110) | box(16, 99, 100, 120)
    found = measure_geometry(masks)
    assert found["trachea_deviation_px"] == 95 - 110 and found["clavicle_rotation"] == 0.4
    masks["vertebrae"] = box(60, 99, 100, 120)  # not at these heights: its nearest row
    assert measure_geometry(masks)["trachea_deviation_px"] == 95 - 110


def test_without_a_spine_the_midline_is_halfway_between_the_clavicles():
    masks = {name: mask for name, mask in chest().items() if name != "vertebrae"}
    found = measure_geometry(masks)
    assert found == {"trachea_deviation_px": 95 - (114 + 94) / 2, "trachea_deviation_mm": None}  # no rotation


def test_landmarks_do_where_there_are_no_masks():
    points = {"carina": (97.0, 45.0), "clavicle_medial_left": (112.0, 11.0), "clavicle_medial_right": (90.0, 13.0)}
    assert measure_geometry({}, points, (0.2, 0.5)) == {"trachea_deviation_px": -4.0, "trachea_deviation_mm": -2.0}
    found = measure_geometry({}, {**points, "spinous_process": (100.0, 12.0)})
    assert found["trachea_deviation_px"] == -3 and found["clavicle_rotation"] == pytest.approx((12 - 10) / 22)
    assert describe_geometry((), ["sella", "nasion"]) == {} == measure_geometry({}, {"sella": (1.0, 2.0)})


def test_what_is_missing_on_a_film_is_none():
    empty = {**chest(), "trachea": box(0, -1, 0, 0), "clavicle_left": box(0, -1, 0, 0)}
    found = measure_geometry(empty)
    assert set(found.values()) == {None} and "clavicle_rotation" in found


def lung(slope, shape=(120, 100)):
    """A left lung (at image right): a straight lateral edge at column 89, and a floor that rises by `slope` px a column
    towards the middle, from row 109 on."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return (columns <= 89) & (columns >= 20) & (rows >= 10) & (rows <= 109 - slope * (89 - columns))


@pytest.mark.parametrize("slope", [0.0, 0.5, 1.0, 2.0])
def test_a_costophrenic_angle_is_that_between_wall_and_floor(slope):
    """The floor rises by `slope`: the angle to the vertical wall is 90 degrees less its own."""
    expected = 90 - math.degrees(math.atan(slope))
    assert costophrenic_angle(lung(slope), "left") == pytest.approx(expected, abs=2)
    assert costophrenic_angle(lung(slope)[:, ::-1], "right") == pytest.approx(expected, abs=2)
    if slope:
        assert costophrenic_angle(lung(slope)[:, ::-1], "left") != pytest.approx(expected, abs=2)


def test_a_costophrenic_angle_is_that_of_the_body_not_of_stretched_pixels():
    """Rows of 0.5 mm and columns of 0.25 mm: a floor of 1 px a column rises by 2 in the body."""
    expected = 90 - math.degrees(math.atan(2.0))
    assert costophrenic_angle(lung(1.0), "left", (0.5, 0.25)) == pytest.approx(expected, abs=2)


def test_stray_pixels_move_no_corner_and_a_lung_without_one_has_no_angle():
    stray = lung(1.0) | box(117, 118, 96, 98, (120, 100))
    assert costophrenic_angle(stray, "left") == costophrenic_angle(lung(1.0), "left")
    assert costophrenic_angle(np.zeros((5, 5), dtype=bool), "left") is None
    assert costophrenic_angle(box(0, 50, 0, 3, (60, 60)), "left") is None  # narrower than an arm is long
