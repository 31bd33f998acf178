"""Relative geometry of two crops: hand-computed values and refusals."""

from __future__ import annotations

import pytest
import torch

from cxw_monai.transforms.geometry import CropBox, relative_coordinates, relative_geometry


@pytest.mark.parametrize(
    ("source", "target", "width", "expected"),
    [
        # shift down by half a crop, left by a quarter; (150 - 30 - 10) / 80 = 1.375
        (CropBox(10, 30, 40, 80), CropBox(30, 10, 40, 80), 150, (0.5, -0.25, 0.0, 1.375)),
        (CropBox(30, 10, 40, 80), CropBox(10, 30, 40, 80), 150, (-0.5, 0.25, 0.0, 1.375)),
        (CropBox(0, 0, 50, 50, True), CropBox(0, 50, 50, 50, False), 100, (0.0, 1.0, 1.0, 1.0)),
        (CropBox(0, 0, 50, 50, False), CropBox(0, 50, 50, 50, True), 100, (0.0, 1.0, 1.0, 1.0)),
        (CropBox(0, 0, 50, 50, True), CropBox(0, 50, 50, 50, True), 100, (0.0, 1.0, 0.0, 1.0)),
    ],
)
def test_relative_geometry_by_hand(source, target, width, expected):
    assert relative_geometry(source, target, width) == pytest.approx(expected)


def test_relative_geometry_refuses_crops_of_different_size():
    with pytest.raises(ValueError, match="same height and width, got 4x5 and 4x6"):
        relative_geometry(CropBox(0, 0, 4, 5), CropBox(0, 0, 4, 6), 10)


@pytest.mark.parametrize(
    "boxes", [(CropBox(0, 6, 4, 5), CropBox(0, 0, 4, 5)), (CropBox(0, 0, 4, 5), CropBox(0, 6, 4, 5))]
)
def test_relative_geometry_refuses_a_crop_outside_the_image(boxes):
    with pytest.raises(ValueError, match="image_width is 10 px.*ends at column 11"):
        relative_geometry(*boxes, 10)


def test_mirrored_box():
    box = CropBox(3, 10, 20, 30)
    assert box.mirrored(100) == CropBox(3, 60, 20, 30, True)
    assert box.mirrored(100).mirrored(100) == box
    with pytest.raises(ValueError, match="image_width is 39 px"):
        box.mirrored(39)


@pytest.mark.parametrize(("field", "value"), [("top", -1), ("left", -2), ("height", 0), ("width", 0)])
def test_crop_box_refuses(field, value):
    values = {"top": 0, "left": 0, "height": 2, "width": 2, field: value}
    with pytest.raises(ValueError, match=f"CropBox {field} .* got {value}"):
        CropBox(**values)


@pytest.mark.parametrize(
    ("rel", "grid", "token", "rho", "gamma"),
    [
        ((0.3, -0.2, 1.0, 0.7), (14, 14), 0, 4.2, 8.8),
        ((0.3, -0.2, 0.0, 0.7), (14, 14), 0, 4.2, -2.8),
        ((0.3, -0.2, 0.0, 0.7), (14, 14), 15, 5.2, -1.8),  # cell (1, 1)
        ((0.3, -0.2, 1.0, 0.7), (14, 14), 15, 5.2, 7.8),
        ((0.0, 0.0, 0.0, 0.0), (3, 5), 7, 1.0, 2.0),  # cell (1, 2)
        ((0.5, 0.2, 0.0, 0.0), (4, 10), 13, 3.0, 5.0),  # cell (1, 3): 4 * 0.5 rows down, 10 * 0.2 columns right
        ((0.5, 0.2, 1.0, 1.0), (4, 10), 13, 3.0, 6.0),  # -(3 + 0.5) + 10 * 1 - 0.5
    ],
)
def test_relative_coordinates_by_hand(rel, grid, token, rho, gamma):
    rows, columns = relative_coordinates(torch.tensor([rel], dtype=torch.float64), grid)
    assert rows.shape == columns.shape == (1, grid[0] * grid[1])
    assert rows[0, token].item() == pytest.approx(rho, abs=1e-12)
    assert columns[0, token].item() == pytest.approx(gamma, abs=1e-12)


def test_zero_geometry_is_the_row_major_token_grid():
    rho, gamma = relative_coordinates(torch.zeros(2, 4), (2, 3))
    assert rho.tolist() == [[0, 0, 0, 1, 1, 1]] * 2
    assert gamma.tolist() == [[0, 1, 2, 0, 1, 2]] * 2


def test_mirror_image_of_a_crop_of_the_full_width_reverses_its_columns():
    full, mirrored = CropBox(0, 0, 8, 8), CropBox(0, 0, 8, 8, True)
    rho, gamma = relative_coordinates(torch.tensor([relative_geometry(full, mirrored, 8)]), (2, 4))
    assert rho.tolist() == [[0, 0, 0, 0, 1, 1, 1, 1]]
    assert gamma.tolist() == [[3, 2, 1, 0, 3, 2, 1, 0]]


def test_samples_of_a_batch_are_independent_and_keep_their_dtype():
    rel = torch.tensor([[0.3, -0.2, 1, 0.7], [0.1, 0.4, 0, 0.2], [0, 0, 1, 1]], dtype=torch.float64)
    rho, gamma = relative_coordinates(rel, (5, 3))
    assert rho.dtype == gamma.dtype == torch.float64
    for i in range(3):
        one_rho, one_gamma = relative_coordinates(rel[i : i + 1], (5, 3))
        assert torch.equal(rho[i], one_rho[0])
        assert torch.equal(gamma[i], one_gamma[0])


@pytest.mark.parametrize(
    ("rel", "grid", "message"),
    [
        (torch.zeros(4), (14, 14), r"rel must be a floating \[B, 4\]"),
        (torch.zeros(2, 5), (14, 14), r"rel must be a floating \[B, 4\]"),
        (torch.zeros(2, 4, dtype=torch.int64), (14, 14), "torch.int64"),
        (torch.zeros(2, 4), (0, 14), "grid must be two numbers"),
        (torch.zeros(2, 4), (14,), "grid must be two numbers"),
    ],
)
def test_relative_coordinates_refuses(rel, grid, message):
    with pytest.raises(ValueError, match=message):
        relative_coordinates(rel, grid)
