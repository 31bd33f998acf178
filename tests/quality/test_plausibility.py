"""Masks of a chest drawn by hand, and what is said when one thing about them is wrong."""

from __future__ import annotations

import numpy as np
import pytest

from cxw_monai.quality.plausibility import LIMITS, plausibility, shape_values
from cxw_monai.quality.review import shows_chest

SHAPE = (400, 400)


def ellipse(row: float, column: float, height: float, width: float, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return ((rows - row) / (height / 2)) ** 2 + ((columns - column) / (width / 2)) ** 2 <= 1


def chest(**changes: np.ndarray | None) -> dict[str, np.ndarray]:
    """The right lung at image left, the heart between the lungs and to the patient's left."""
    masks = {
        "lung_right": ellipse(190, 110, 240, 130),
        "lung_left": ellipse(190, 290, 240, 130),
        "heart": ellipse(250, 215, 110, 150),
    } | changes
    return {name: mask for name, mask in masks.items() if mask is not None}


CLAVICLES = {"clavicle_right": ellipse(85, 140, 20, 90), "clavicle_left": ellipse(85, 260, 20, 90)}


def fields(**changes: np.ndarray | None) -> dict[str, np.ndarray]:
    """The same chest with its lungs as they are visible: they end at the heart's edge."""
    masks = chest()
    for side in ("left", "right"):
        masks[f"lung_field_{side}"] = masks.pop(f"lung_{side}") & ~masks["heart"]
    return {name: mask for name, mask in (masks | changes).items() if mask is not None}


def test_values_by_hand():
    values = shape_values(chest())
    assert values["left lung area"] == pytest.approx(np.pi * 120 * 65 / 400**2, rel=0.01)
    assert values["left lung height over width"] == pytest.approx(240 / 130, rel=0.01)
    assert values["left lung solidity"] == pytest.approx(1, abs=0.03)
    assert values["lungs ratio"] == pytest.approx(1)
    assert values["lungs apart"] == pytest.approx(180 / 310, rel=0.01)
    assert values["heart side"] == pytest.approx((215 - 110) / 180, abs=0.01)
    assert values["heart row"] == pytest.approx((250 - 70) / 240, abs=0.01)
    assert values["cardiothoracic ratio"] == pytest.approx(150 / 310, rel=0.02)
    assert values["heart apex"] == pytest.approx((290 - 200) / 310, abs=0.01)
    clavicles = {"left clavicle row", "right clavicle row", "left clavicle side", "right clavicle side"}
    assert set(values) == set(LIMITS) - clavicles
    values = shape_values(chest(**CLAVICLES))
    assert set(values) == set(LIMITS)
    assert values["left clavicle row"] == pytest.approx((85 - 70) / 240, abs=0.01)
    assert values["left clavicle side"] == pytest.approx((260 - 110) / 180, abs=0.01)


def test_a_chest_is_plausible_whatever_its_names_and_size():
    assert plausibility(chest()) == []
    assert plausibility({"Right lung": chest()["lung_right"], "left_lung": chest()["lung_left"]}) == []
    large = {name: np.kron(mask, np.ones((6, 6), dtype=bool)) for name, mask in chest().items()}
    assert plausibility(large) == []


def test_a_child_s_hollow_left_field_beside_a_large_heart_is_plausible():
    """The heart takes a bay of half the left field, which a lung behind it doesn't have."""
    heart = ellipse(230, 225, 190, 210)
    hollow = fields(heart=heart, lung_field_left=ellipse(190, 290, 240, 130) & ~ellipse(230, 250, 200, 170))
    assert 0.45 < shape_values(hollow, lungs="lung_field")["left lung solidity"] < LIMITS["left lung solidity"].low
    assert plausibility(hollow) == []
    as_lungs = {name.replace("_field", ""): mask for name, mask in hollow.items()}
    assert any(one.startswith("left lung: area over its convex hull") for one in plausibility(as_lungs))


def test_lung_fields_are_judged_as_lungs_are_and_named_as_what_they_are():
    assert shows_chest(["lung_field_left"])
    assert plausibility(fields()) == [] and plausibility(chest() | fields()) == []
    blank = np.zeros(SHAPE, dtype=bool)
    assert "no left lung field was found" in plausibility(fields(lung_field_left=blank))
    swapped = {"lung_field_left": fields()["lung_field_right"], "lung_field_right": fields()["lung_field_left"]}
    assert "left and right lung field lie on exchanged sides" in plausibility(fields(**swapped))
    inside = plausibility(fields(heart=ellipse(250, 130, 110, 150)))
    assert any(one.startswith("heart: share inside the right lung field 0.") for one in inside)


def test_a_heart_in_front_of_the_right_lung_is_right_where_lungs_go_on_behind_it():
    """Of rendered hearts 0.18 to 0.32 lie in front of the right lung, and 0.06 to 0.16 in its visible field."""
    masks = chest(heart=ellipse(250, 195, 110, 180))
    share = np.count_nonzero(masks["heart"] & masks["lung_right"]) / np.count_nonzero(masks["heart"])
    assert share == pytest.approx(0.28, abs=0.01)
    assert any("share inside the right lung" in one for one in plausibility(masks))
    visible = masks["lung_right"] & (np.indices(SHAPE)[1] < 150)
    assert plausibility(masks | fields(heart=masks["heart"], lung_field_right=visible)) == []


def test_a_lung_field_lies_inside_its_lung():
    low = ellipse(265, 290, 240, 130)
    reasons = plausibility(chest() | fields(lung_field_left=low))
    assert any(one.startswith("left lung field: share outside the left lung 0.") for one in reasons), reasons


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"clavicle_left": ellipse(200, 260, 20, 90)}, "left clavicle: place of the centre from the lungs' top"),
        ({"clavicle_right": ellipse(10, 140, 20, 90)}, "right clavicle: place of the centre from the lungs' top"),
        ({"clavicle_left": CLAVICLES["clavicle_right"]}, "left clavicle: place of the centre from the right lung's"),
        ({"clavicle_right": CLAVICLES["clavicle_left"]}, "right clavicle: place of the centre from the right lung's"),
    ],
)
def test_clavicles_lie_above_and_on_their_side(changes, reason):
    assert plausibility(chest(**CLAVICLES)) == []
    assert any(one.startswith(reason) for one in plausibility(chest(**(CLAVICLES | changes))))


def test_pixels_that_are_not_square_are_put_right_by_their_spacing():
    flat = {name: mask[::4] for name, mask in chest().items()}
    assert any("height over width" in reason for reason in plausibility(flat))
    assert plausibility(flat, (0.8, 0.2)) == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"lung_left": np.zeros(SHAPE, dtype=bool)}, "no left lung was found"),
        ({"heart": np.zeros(SHAPE, dtype=bool)}, "no heart was found"),
        ({"lung_left": chest()["lung_right"], "lung_right": chest()["lung_left"]}, "exchanged sides"),
        ({"heart": ellipse(250, 130, 110, 150)}, "heart: share inside the right lung"),
        ({"heart": ellipse(250, 170, 110, 150)}, "heart: place of the centre from the right lung's"),
        ({"heart": ellipse(100, 215, 110, 150)}, "heart: place of the centre from the lungs' top"),
        ({"heart": ellipse(250, 200, 120, 290)}, "cardiothoracic ratio"),
        ({"heart": ellipse(250, 215, 30, 40)}, "heart: area over the film's"),
        ({"lung_left": ellipse(190, 290, 60, 60)}, "lungs: left lung's area over the right's"),
        ({"lung_left": ellipse(190, 290, 60, 130)}, "left lung: height over width"),
        ({"lung_left": chest()["lung_left"] & (np.indices(SHAPE).sum(0) % 60 < 30)}, "left lung: "),
        ({"lung_left": ellipse(190, 290, 240, 130) | ellipse(30, 30, 60, 60)}, "left lung: share of stray parts"),
        ({"lung_left": ellipse(190, 170, 240, 130)}, "lungs: overlap"),
    ],
)
def test_each_fault_is_told(changes, reason):
    reasons = plausibility(chest(**changes))
    assert any(reason in one for one in reasons), reasons


@pytest.mark.parametrize(
    ("value", "told"),
    [(0.2512, "0.251"), (0.25 + 1e-9, "0.250000001"), (0.4, "0.40"), (np.nextafter(0.25, 1), "0.2500000000000001")],
)
def test_a_value_is_told_with_the_digits_that_show_it_outside(monkeypatch, value, told):
    monkeypatch.setattr("cxw_monai.quality.plausibility.shape_values", lambda *_: {"heart in right lung": value})
    assert plausibility({}) == [f"heart: share inside the right lung {told}, expected 0 to 0.25"]


def test_structures_that_are_not_known_are_not_judged():
    blob = {"femur": ellipse(50, 50, 40, 40), "opacity": np.zeros(SHAPE, dtype=bool)}
    assert plausibility(blob) == [] and shape_values(blob) == {}
    assert plausibility({}) == []
