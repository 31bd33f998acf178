"""The picture and the masks of one film, reviewed together."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image

from benchmarks.quality.other_films import drawn
from cxw_monai.io import read_radiograph
from cxw_monai.quality.review import checked_choice, review, shows_chest


def test_models_of_other_parts_are_not_judged():
    hand = drawn(np.random.default_rng(0))
    blob = np.zeros((40, 40), dtype=bool)
    assert review(hand, {"femur": blob, "tibia_left": blob}) == []
    assert not shows_chest(["femur"]) and shows_chest(["Left lung"]) and shows_chest(["pneumothorax"])


def test_a_picture_that_is_no_chest_is_doubted_whatever_its_masks():
    page = np.ones((300, 300), dtype=np.float32)
    page[::20] = 0
    reasons = review(page, {"pneumothorax": np.zeros((10, 10), dtype=bool)})
    assert reasons == ["not a frontal chest film"]


def test_an_unknown_choice_is_refused():
    assert checked_choice("skip") == "skip"
    with pytest.raises(ValueError, match="on_implausible must be one of keep, flag, skip, got 'drop'"):
        checked_choice("drop")


def test_manual_masks_of_real_films_are_plausible_and_of_spoilt_ones_are_not(shared_data):
    folder = shared_data / "wingspan_heart_lungs"
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] == "validation"]
    doubted = {"as it is": 0, "inverted": 0, "upside down": 0}
    for row in rows:
        film = read_radiograph(folder / row["image"]).array[0]
        names = {"lung_left": "mask_left_lung", "lung_right": "mask_right_lung", "heart": "mask_heart"}
        masks = {name: np.asarray(Image.open(folder / row[column])) > 127 for name, column in names.items()}
        doubted["as it is"] += bool(review(film, masks))
        doubted["inverted"] += bool(review(1 - film, masks))
        turned = {name: mask[::-1] for name, mask in masks.items()}
        doubted["upside down"] += bool(review(film[::-1], turned))
    assert doubted["as it is"] <= 2 and min(doubted["inverted"], doubted["upside down"]) >= 25, doubted
