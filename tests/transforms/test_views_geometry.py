"""The relative geometry agrees with the pixels: images whose value is their own coordinate go through the transform."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from cxw_monai.transforms import RandWorldViewPaird
from cxw_monai.transforms.geometry import relative_coordinates

GRID, PATCH = (14, 12), 16
TOLERANCE = 0.05  # of a cell


def cell_centres(view: torch.Tensor) -> np.ndarray:
    """Value at the centre of every cell, ``[G_h, G_w]``: mean of the four pixels around it."""
    cells = view[0].reshape(GRID[0], PATCH, GRID[1], PATCH)
    middle = slice(PATCH // 2 - 1, PATCH // 2 + 1)
    return cells[:, middle, :, middle].mean(dim=(1, 3)).double().numpy()


def render(transform: RandWorldViewPaird, seed: int, height: int, width: int) -> tuple[dict, dict]:
    """The same views of an image that shows its row and of one that shows its column, both in [0, 1]."""
    rows = np.broadcast_to((np.arange(height)[:, None] + 0.5) / height, (1, height, width))
    columns = np.broadcast_to((np.arange(width) + 0.5) / width, (1, height, width))
    samples = []
    for image in (rows, columns):
        transform.set_random_state(seed)
        samples.append(transform({"image": image.astype(np.float32)}))
    assert torch.equal(samples[0]["box2"], samples[1]["box2"])
    return samples[0], samples[1]


def error_in_cells(source: np.ndarray, target: np.ndarray, coordinate: np.ndarray, axis: int) -> float:
    """Largest distance between where the target's cells are in the source's frame and where they are said to be.

    The source view itself tells its frame: the value seen at its cell number k is linear in k.
    """
    profile = source.mean(axis=1 - axis)
    slope, offset = np.polyfit(np.arange(len(profile)), profile, 1)
    return float(np.abs((target - offset) / slope - coordinate.reshape(GRID)).max())


@pytest.mark.parametrize(("height", "width"), [(300, 420), (420, 300), (256, 256)])
def test_coordinates_of_every_target_cell_in_the_frame_of_the_source(height, width):
    size = (GRID[0] * PATCH, GRID[1] * PATCH)
    transform = RandWorldViewPaird(size=size, flip_prob=0.5, jitter_prob=0.0)
    flips: Counter = Counter()
    for seed in range(60):
        by_row, by_column = render(transform, seed, height, width)
        flips[by_row["box1"][4].item(), by_row["box2"][4].item()] += 1
        for rel, source, target in (("rel_21", "view1", "view2"), ("rel_12", "view2", "view1")):
            rho, gamma = (values[0].double().numpy() for values in relative_coordinates(by_row[rel][None], GRID))
            views = [cell_centres(sample[key]) for sample in (by_row, by_column) for key in (source, target)]
            assert error_in_cells(views[0], views[1], rho, axis=0) < TOLERANCE
            assert error_in_cells(views[2], views[3], gamma, axis=1) < TOLERANCE
    assert set(flips) == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert min(flips.values()) >= 5


def test_box_tells_the_pixels_of_each_view():
    height, width = 200, 320
    transform = RandWorldViewPaird(size=(64, 64), flip_prob=0.5, jitter_prob=0.0)
    flipped = 0
    for seed in range(30):
        by_row, by_column = render(transform, seed, height, width)
        for number in ("1", "2"):
            top, left, crop_height, crop_width, mirrored = by_row["box" + number].tolist()
            centre_row = by_row["view" + number][0, 31:33].mean().item() * height
            centre_column = by_column["view" + number][0, :, 31:33].mean().item() * width
            expected = left + crop_width / 2
            assert centre_row == pytest.approx(top + crop_height / 2, abs=0.05)
            assert centre_column == pytest.approx(width - expected if mirrored else expected, abs=0.05)
            flipped += mirrored
    assert 15 < flipped < 45
