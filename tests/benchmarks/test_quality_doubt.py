"""Scores of a segmenter's doubt: sides are exchanged in the mirrored pass, and the table ranks films by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.quality.doubt import dice, doubts_of_film, format_table
from cxw_monai.inference.api import SegmentationModel

STRUCTURES = ("lung_field_right", "lung_field_left", "heart")


class Thirds(nn.Module):
    """Lungs are what is bright in the outer thirds, the heart in the middle one; what the film's side says counts."""

    structures = STRUCTURES

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        columns = torch.arange(image.shape[-1]) * 3 // image.shape[-1]
        return torch.cat([torch.where(columns == third, 12 * image - 6, -9.0) for third in (0, 2, 1)], dim=1)


def model() -> SegmentationModel:
    return SegmentationModel(Thirds(), (48, 48), torch.device("cpu"), amp="none")  # type: ignore[arg-type]


def test_dice_by_hand():
    one, two = np.array([True, True, False]), np.array([True, False, False])
    assert dice(one, two) == pytest.approx(2 / 3)
    assert np.isnan(dice(~one & one, two & ~two))


def test_a_network_that_does_as_well_on_the_mirrored_film_agrees_with_itself():
    image = np.zeros((1, 48, 48), dtype=np.float32)
    image[0, 10:30] = 1
    lungs = {"lung_field_right": image[0, :, :] * (np.arange(48) < 16) > 0.5}
    sure = doubts_of_film(model(), image, lungs)[0]
    assert (sure["structure"], sure["dice"], sure["mirrored_dice"]) == ("lung_field_right", 1, 1)
    assert sure["expected_dice"] == pytest.approx(1, abs=0.01)
    image[0, 10:30] = 0.52
    assert doubts_of_film(model(), image, lungs)[0]["expected_dice"] < 0.8


def test_the_table_ranks_films():
    rows = [
        {"structure": "heart", "dice": true, "expected_dice": expected, "mirrored_dice": mirrored}
        for true, expected, mirrored in ((0.96, 0.9, 0.5), (0.92, 0.8, 0.6), (0.6, 0.7, 0.7), (0.0, float("nan"), 0.8))
    ]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in format_table(rows, 0.9).splitlines()]
    assert cells[2] == ["heart", "4", "0.620", "2", "expected_dice", "1.00", "1.00"]
    assert cells[3] == ["heart", "4", "0.620", "2", "mirrored_dice", "-1.00", "0.00"]
