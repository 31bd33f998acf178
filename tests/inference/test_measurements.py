"""Areas and the cardiothoracic ratio on shapes whose numbers are known."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image

from cxw_monai.inference.measurements import describe_columns, diameter_lines, measure, measurement_columns

STRUCTURES = ("lung_right", "left_lung", "heart")


def _rectangles(rows: int = 100, columns: int = 200) -> np.ndarray:
    """Right lung columns 20-79, left lung 110-189 (rows 10-59), heart 70-129 (rows 40-69)."""
    masks = np.zeros((3, rows, columns), dtype=bool)
    masks[0, 10:60, 20:80] = True
    masks[1, 10:60, 110:190] = True
    masks[2, 40:70, 70:130] = True
    return masks


def test_rectangles_by_hand():
    found = measure(_rectangles(), STRUCTURES, (0.5, 0.2))
    assert list(found) == measurement_columns(STRUCTURES)
    assert found == pytest.approx({
        "area_px_lung_right": 3000, "area_mm2_lung_right": 300.0,
        "area_px_left_lung": 4000, "area_mm2_left_lung": 400.0,
        "area_px_heart": 1800, "area_mm2_heart": 180.0,
        "cardiothoracic_ratio": 60 / 170,
        "heart_diameter_px": 60, "heart_diameter_mm": 12.0, "heart_first_column": 70, "heart_last_column": 129,
        "thorax_diameter_px": 170, "thorax_diameter_mm": 34.0,
        "thorax_first_column": 20, "thorax_last_column": 189,
        "lung_left_right_area_ratio": 4 / 3, "lung_field_left_right_area_ratio": None,
        "costophrenic_angle_left_deg": 90.0, "costophrenic_angle_right_deg": 90.0,
    })  # fmt: skip


def test_without_a_spacing_millimetres_are_empty_and_ratios_stay():
    found = measure(_rectangles(), STRUCTURES, None)
    assert [name for name, value in found.items() if value is None] == [
        "area_mm2_lung_right", "area_mm2_left_lung", "area_mm2_heart", "heart_diameter_mm", "thorax_diameter_mm",
        "lung_field_left_right_area_ratio",
    ]  # fmt: skip
    assert found["cardiothoracic_ratio"] == 60 / 170


def test_heart_and_thorax_count_their_ends_in_whatever_rows():
    masks = np.zeros((3, 60, 100), dtype=bool)
    masks[0, 10:30, 10:30], masks[0, 30:50, 5:30] = True, True  # right lung, wider below
    masks[1, 10:30, 60:95], masks[1, 30:50, 60:80] = True, True  # left lung, wider above: no row has 5 and 94
    masks[2, 20:25, 30:50], masks[2, 25:40, 45:75] = True, True  # heart: 30 to 74 over two levels
    found = measure(masks, STRUCTURES, None)
    assert (found["thorax_first_column"], found["thorax_last_column"], found["thorax_diameter_px"]) == (5, 94, 90)
    assert (found["heart_diameter_px"], found["cardiothoracic_ratio"]) == (45, 0.5)


BOTH = ("lung_left", "lung_right", "heart", "lung_field_left", "lung_field_right")


def _both_kinds() -> np.ndarray:
    """Lungs as in :func:`_rectangles`, the left one behind the heart from column 100; fields without the heart."""
    right, left, heart = _rectangles()
    left[10:60, 100:110] = True  # 50 x 90
    right[10:60, 15:20] = True  # 50 x 65, 5 columns wider than the field
    field = right & ~heart
    field[:, 15:20] = False  # 50 x 60, less 20 x 10 of the heart
    return np.stack([left, right, heart, left & ~heart, field])


def test_lung_fields_are_measured_beside_whole_lungs_and_give_the_thorax():
    found = measure(_both_kinds(), BOTH, (0.5, 0.2))
    assert (found["area_px_lung_left"], found["area_px_lung_right"]) == (50 * 90, 50 * 65)
    assert (found["area_px_lung_field_left"], found["area_px_lung_field_right"]) == (
        50 * 90 - 20 * 30,
        50 * 60 - 20 * 10,
    )
    assert found["area_mm2_lung_field_left"] == pytest.approx(390.0)
    assert found["lung_left_right_area_ratio"] == 4500 / 3250
    assert found["lung_field_left_right_area_ratio"] == 3900 / 2800
    assert (found["thorax_first_column"], found["thorax_last_column"]) == (20, 189)
    assert found["cardiothoracic_ratio"] == 60 / 170


def test_lines_run_from_edge_to_edge_halfway_between_the_ends():
    heart, lung = np.zeros((2, 30, 40), bool)
    heart[10:12, 8:20] = heart[11:17, 20:26] = True  # ends: column 8 in rows 10 and 11, column 25 in rows 11 to 16
    heart[2, 1] = True  # a stray pixel
    lung[5:25, 4:30] = True
    lines = diameter_lines(np.stack([lung, heart]), ("lungs", "heart"))
    assert list(lines) == ["heart", "thorax"]
    # middles of the ends: 11 and 14 from the upper edge, and 15 for both ends of the lungs
    assert lines["heart"].tolist() == [[12.5, 8], [12.5, 26]]
    assert lines["thorax"].tolist() == [[15, 4], [15, 30]]
    assert diameter_lines(np.zeros((1, 5, 5), bool), ("heart",)) == {}


@pytest.mark.parametrize("missing", [3, 4])
def test_whole_lungs_give_the_thorax_where_a_field_is_missing(missing):
    masks = _both_kinds()
    masks[missing] = False
    found = measure(masks, BOTH, None)
    assert found["cardiothoracic_ratio"] == 60 / 175 and found["lung_field_left_right_area_ratio"] is None


@pytest.mark.parametrize("lungs", ["lung", "lung_field"])
def test_either_lung_alone_gives_the_ratio(lungs):
    found = measure(_rectangles(), (f"{lungs}_right", f"{lungs}_left", "heart"), None)
    assert found["cardiothoracic_ratio"] == 60 / 170 and found[f"{lungs}_left_right_area_ratio"] == 4 / 3


def test_columns_say_which_lung_they_are_of():
    about = describe_columns(BOTH)
    assert list(about) == measurement_columns(BOTH) and all(about.values())
    assert "visible part of the lung" in about["area_px_lung_field_left"]
    assert "behind heart and mediastinum" in about["area_mm2_lung_left"] and "mm2" in about["area_mm2_lung_left"]
    assert describe_columns(["my_finding"])["area_px_my_finding"] == "Area in pixels of the film."


def test_the_ratio_is_that_of_published_manual_masks(shared_data):
    """Dong 2018: `label_...` is the published ratio, `ctr_of_masks` that of the same masks at 512 px, to 4 decimals."""
    folder = shared_data / "wingspan_heart_lungs"
    away = []
    with (folder / "manifest.csv").open(newline="") as stream:
        for row in csv.DictReader(stream):
            files = [row["mask_left_lung"], row["mask_right_lung"], row["mask_heart"]]
            masks = np.stack([np.asarray(Image.open(folder / file)) > 0 for file in files])
            ratio = measure(masks, ("lung_field_left", "lung_field_right", "heart"), None)["cardiothoracic_ratio"]
            assert ratio == pytest.approx(float(row["ctr_of_masks"]), abs=5.1e-5), row["id"]
            if published := row["label_cardiothoracic_ratio"]:
                away.append(abs(ratio - float(published)))
    assert len(away) == 152 and np.mean(away) < 0.0015 and max(away) < 0.0055


def test_stray_pixels_move_no_diameter_but_count_as_area():
    masks = _rectangles()
    masks[:, 30, 0], masks[:, 30, 199] = True, True
    clean, found = measure(_rectangles(), STRUCTURES, None), measure(masks, STRUCTURES, None)
    assert found["cardiothoracic_ratio"] == clean["cardiothoracic_ratio"]
    assert found["area_px_heart"] == clean["area_px_heart"] + 2


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_structure_without_pixels_leaves_the_ratio_empty(missing):
    masks = _rectangles()
    masks[missing] = False
    found = measure(masks, STRUCTURES, (1, 1))
    assert found["cardiothoracic_ratio"] is None and found[f"area_px_{STRUCTURES[missing]}"] == 0
    assert (found["heart_diameter_px"] is None) == (missing == 2)
    assert (found["thorax_diameter_px"] is None) == (found["lung_left_right_area_ratio"] is None) == (missing < 2)


def test_lungs_that_share_no_row_have_no_thorax():
    masks = _rectangles()
    masks[1] = False
    masks[1, 70:90, 110:190] = True
    assert measure(masks, STRUCTURES, None)["thorax_diameter_px"] is None


def test_one_mask_of_both_lungs():
    masks = _rectangles()
    masks = np.stack([masks[0] | masks[1], masks[2]])
    masks[0, 90, 199] = True  # a stray pixel
    found = measure(masks, ("lungs", "heart"), None)
    assert found["cardiothoracic_ratio"] == 60 / 170 and found["lung_left_right_area_ratio"] is None
    assert measure(masks, ("abdomen", "mediastinum"), None)["cardiothoracic_ratio"] is None


def _ellipse(shape: tuple[int, int], centre: tuple[float, float], radii: tuple[float, float], spacing) -> np.ndarray:
    """An ellipse given in mm on a grid of some spacing."""
    row, column = ((np.arange(size) + 0.5) * step for size, step in zip(shape, spacing, strict=True))
    return ((row[:, None] - centre[0]) / radii[0]) ** 2 + ((column - centre[1]) / radii[1]) ** 2 <= 1


@pytest.mark.parametrize("spacing", [(0.5, 0.5), (1.0, 1.0), (0.5, 1.25)])
def test_millimetres_do_not_depend_on_the_grid(spacing):
    shape = (round(400 / spacing[0]), round(400 / spacing[1]))
    ellipses = [((180, 110), (120, 60)), ((180, 290), (120, 60)), ((230, 220), (50, 70))]  # (centre, radii), mm
    masks = np.stack([_ellipse(shape, centre, radii, spacing) for centre, radii in ellipses])
    found = measure(masks, STRUCTURES, spacing)
    assert found["area_mm2_lung_right"] == pytest.approx(np.pi * 120 * 60, rel=0.005)
    assert found["area_mm2_heart"] == pytest.approx(np.pi * 50 * 70, rel=0.005)
    assert found["heart_diameter_mm"] == pytest.approx(140, abs=2 * spacing[1])
    assert found["thorax_diameter_mm"] == pytest.approx(300, abs=2 * spacing[1])
    assert found["cardiothoracic_ratio"] == pytest.approx(140 / 300, abs=0.01)


def test_masks_of_another_form_are_refused():
    with pytest.raises(ValueError, match=r"masks must be bool \[2, H, W\], got uint8"):
        measure(np.zeros((2, 5, 5), np.uint8), ("heart", "lungs"), None)
