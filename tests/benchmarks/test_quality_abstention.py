"""What speaks against masks, sign by sign, and the table of it."""

from __future__ import annotations

import csv

import numpy as np
import torch
from PIL import Image
from torch import nn

from benchmarks.quality.abstention import format_table, main, signs_of_film
from cxw_monai.inference.api import SegmentationModel
from cxw_monai.quality.plausibility import plausibility
from cxw_monai.weights.segmenter import new_segmenter, save_segmenter, segmenter_settings


class Halves(nn.Module):
    """The film's right half as the left lung, its left half as the right one, as sure as it is told to be."""

    structures = ("lung_left", "lung_right")

    def __init__(self, sure: float) -> None:
        super().__init__()
        self.sure = sure

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        side = torch.where(torch.arange(image.shape[-1]) < image.shape[-1] // 2, -self.sure, self.sure)
        side = side[None, None, None].expand(1, 1, *image.shape[-2:])
        return torch.cat([side, -side], dim=1)


def test_a_page_with_lungs_as_large_as_the_film():
    page = np.random.default_rng(0).random((96, 96)).astype(np.float32)
    found = [
        signs_of_film(SegmentationModel(Halves(sure), (96, 96), torch.device("cpu"), amp="none"), page)  # type: ignore[arg-type]
        for sure in (9.0, 1.0)
    ]
    assert found[0] == {"by_film": True, "by_masks": True, "by_doubt": False}
    assert found[1] == {"by_film": True, "by_masks": True, "by_doubt": True}


def test_the_films_own_signs_are_those_that_no_mask_gave(monkeypatch):
    monkeypatch.setattr("cxw_monai.inference.predictor.review", lambda film, masks, spacing: plausibility(masks))
    model = SegmentationModel(Halves(1.0), (96, 96), torch.device("cpu"), amp="none")  # type: ignore[arg-type]
    found = signs_of_film(model, np.zeros((96, 96), np.float32))
    assert found == {"by_film": False, "by_masks": True, "by_doubt": True}


def test_the_table_by_hand():
    names = ("films", "by_film", "by_masks", "by_doubt")
    rows = [("a", "True", "False", "False"), ("a", "False", "True", "True"), ("b", "False", "False", "False")]
    table = format_table([dict(zip(names, row, strict=True)) for row in rows]).splitlines()
    assert table[2:] == ["| a | 2 | 50.0 % | 50.0 % | 50.0 % | 100.0 % |", "| b | 1 | 0.0 % | 0.0 % | 0.0 % | 0.0 % |"]


def test_films_of_a_split_some_of_them_turned_and_none_twice(tmp_path, capsys):
    settings = segmenter_settings(["lung_left", "lung_right"], 32, "tiny", 16, "hybrid", 4)
    save_segmenter(new_segmenter(settings), settings, tmp_path / "model.pt")
    rows = [("image", "split")]
    for name, split in (("a", "test"), ("b", "test"), ("c", "training")):
        grey = np.random.default_rng(len(rows)).integers(0, 256, (64, 48), dtype=np.uint8)
        Image.fromarray(grey).save(tmp_path / f"{name}.png")
        rows.append((f"{name}.png", split))
    with (tmp_path / "films.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    arguments = ["--model", str(tmp_path / "model.pt"), "--output", str(tmp_path / "out.csv"), "--turned", "1"]
    for _ in range(2):
        assert main([*arguments, "--source", f"clinic={tmp_path / 'films.csv'}:test"]) == 0
        with (tmp_path / "out.csv").open() as stream:
            found = [row["films"] for row in csv.DictReader(stream)]
        assert len(found) == 8
        assert found.count("clinic") == 2
        assert found.count("inverted") == found.count("mirrored") == 1
    assert "| clinic | 2 |" in capsys.readouterr().out
